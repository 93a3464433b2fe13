"""Anybody repeats a round: from its messages to the same sum, bit for bit.

Why: masked vectors and released shares reveal the sum and no more, and ring arithmetic is exact and free of
order, so a partner or an auditor need not trust the coordinator's arithmetic. Runs: anywhere. Source: own:
proved in ``tests/secure_aggregation/test_verification.py``.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from typing_extensions import Buffer

from data_contracts.errors import ProtocolError, UpdateMismatch
from data_contracts.plan import RoundPlan
from tasks.secure_aggregation import coordinator
from tasks.secure_aggregation.protocol import Identities
from tasks.secure_aggregation.vector import SecureSum


@dataclass(frozen=True)
class RoundMessages:
    """Every message that a round counted, by phase and sender."""

    adverts: Mapping[str, Buffer]
    shares: Mapping[str, Buffer]
    masked: Mapping[str, Buffer]
    confirmations: Mapping[str, Buffer]
    unmaskings: Mapping[str, Buffer]


def replay(
    plan: RoundPlan, messages: RoundMessages, *, identities: Identities, workers: int = 1
) -> SecureSum:
    """Repeat a round's aggregation, every signature, commitment and digest checked anew.

    Args:
        plan: The round's plan.
        messages: All that was counted.
        identities: Pinned Ed25519 public keys (32 bytes) by partner.
        workers: How many threads.

    Returns:
        The sum that these messages determine.

    Raises:
        ProtocolError: If a message of the first four phases does not verify, naming its sender.
        TooFewPartners: If a phase, or what verifies of the last one, is below the threshold.
        AgreementViolation: If the plan leaves the sum to the partners: see :func:`replay_blinded`.
    """
    confirmed = _confirmed(plan, messages, identities)
    return confirmed.unmask(_valid(confirmed, messages.unmaskings), workers=workers)


def replay_blinded(
    plan: RoundPlan, messages: RoundMessages, *, identities: Identities, workers: int = 1
) -> memoryview:
    """Repeat a round whose sum only the partners open, up to the blinded sum that the coordinator published.

    Raises:
        ProtocolError: As :func:`replay`.
        TooFewPartners: As :func:`replay`.
    """
    confirmed = _confirmed(plan, messages, identities)
    return confirmed.unmask_blinded(_valid(confirmed, messages.unmaskings), workers=workers)


def _confirmed(plan: RoundPlan, messages: RoundMessages, identities: Identities) -> coordinator.Confirmed:
    shared = coordinator.begin(plan, identities=identities).adverts(messages.adverts).shares(messages.shares)
    return shared.masked(messages.masked).confirmations(messages.confirmations)


def _valid(confirmed: coordinator.Confirmed, unmaskings: Mapping[str, Buffer]) -> dict[str, Buffer]:
    """Leave out what the coordinator refused on arrival: any sufficient set of shares gives the same sum."""
    valid = {}
    for sender, message in unmaskings.items():
        with contextlib.suppress(ProtocolError):
            confirmed.check_unmasking(sender, message)
            valid[sender] = message
    return valid


def verify(
    plan: RoundPlan, messages: RoundMessages, *, identities: Identities, claimed: SecureSum
) -> SecureSum:
    """Check a claimed sum against the round's messages.

    Returns:
        The repeated sum.

    Raises:
        UpdateMismatch: If the claim differs in the survivors or in any bit of any lane, naming the lanes.
        ProtocolError: If the messages do not verify.
    """
    found = replay(plan, messages, identities=identities)
    if claimed.survivors != found.survivors:
        raise UpdateMismatch(
            f"round {plan.round}: the claimed sum is of {', '.join(claimed.survivors)}, "
            f"the messages give that of {', '.join(found.survivors)}"
        )
    differ = sorted(set(found.values) ^ set(claimed.values))
    differ += [name for name in found.values if name not in differ and not _same(found, claimed, name)]
    if differ or dict(found.n_clipped) != dict(claimed.n_clipped):
        raise UpdateMismatch(
            f"round {plan.round}: the claimed sum is not the one that the messages give; "
            f"lanes that differ: {', '.join(differ) or 'counts of clipped values'}"
        )
    return found


def _same(found: SecureSum, claimed: SecureSum, name: str) -> bool:
    ours, theirs = found.values[name], claimed.values[name]
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape and np.array_equal(ours, theirs)
