"""The blind coordinator: it adds up and removes masks, and what it holds in the end still says nothing to it.

Why: where even the sum is too much for whoever runs the coordinator, every partner adds one more stream under a
key that all partners share, and the partners subtract these streams from what the coordinator publishes.
Runs: on the partner. Source: own; the trust is that of homomorphic encryption under one key: the coordinator
together with any one partner reads the sum, and never more than the sum.
"""

from collections.abc import Sequence

from typing_extensions import Buffer

from data_contracts.errors import ProtocolError
from tasks.secure_aggregation.masking import Masks
from tasks.secure_aggregation.protocol import Attempt, blinding_key
from tasks.secure_aggregation.vector import SecureSum, unmask_sum


def open_blinded(
    attempt: Attempt, blinded: Buffer, *, survivors: Sequence[str], blinding_secret: bytes, workers: int = 1
) -> SecureSum:
    """Open the sum that a blind coordinator published.

    Args:
        attempt: The attempt.
        blinded: The blinded sum, as ``coordinator.Confirmed.unmask_blinded`` returned it.
        survivors: Whose vectors it sums.
        blinding_secret: The 32 bytes that all partners share.
        workers: How many threads.

    Returns:
        The survivors' exact sum.

    Raises:
        ProtocolError: If the blinded sum has another size, or the survivors are not of the cohort.
        TooFewPartners: If the survivors are fewer than the threshold.
    """
    body = memoryview(blinded).cast("B")
    if len(body) != attempt.layout.n_bytes:
        raise ProtocolError(
            f"the blinded sum of round {attempt.plan.round} has {len(body)} bytes, expected {attempt.layout.n_bytes}"
        )
    names = attempt.in_order(survivors)
    attempt.demand_enough(frozenset(names), phase="survivors")
    keys = tuple(blinding_key(blinding_secret, attempt, name=name) for name in names)
    return unmask_sum(attempt, [body], Masks(subtracted=keys), survivors=names, workers=workers)
