"""Altered, late and repeated masked vectors."""

import numpy as np
import pytest

from data_contracts.errors import ProtocolError, UpdateMismatch
from data_contracts.plan import Lane
from tasks.secure_aggregation import shamir
from tasks.secure_aggregation.attempt_secrets import mask_pair
from tasks.secure_aggregation.masking import Masks
from tests.secure_aggregation.consortium import COUNT, Consortium, secret
from tests.secure_aggregation.deviations import flip, until_masked

LANES = (COUNT,)


def test_a_masked_vector_altered_on_its_way_is_refused(five):
    shared, _, _, masked = until_masked(five)
    for at in (192, len(masked["p001"]) - 1):
        with pytest.raises(UpdateMismatch, match="'p001' is not the one that 'p001' signed"):
            shared.check_masked("p001", flip(masked["p001"], at))
        with pytest.raises(UpdateMismatch, match="'p001'"):
            shared.masked({**masked, "p001": flip(masked["p001"], at)})
    for at in range(0, 192, 5):
        with pytest.raises(ProtocolError, match="'p001'"):
            shared.check_masked("p001", flip(masked["p001"], at))


def test_a_late_masked_vector_stays_masked_although_its_pair_masks_are_known():
    """p004's vector arrives after it was declared dropped: all its pairwise masks fall, its self mask does not."""
    c = Consortium(5, 4, (Lane(name="zero", length=32_000, ring_bits=32, value_bits=8),))
    for name in c.names:
        c.contributions[name] = {"zero": np.zeros(32_000, np.int64)}
    shared, adverts, _shares, masked = until_masked(c)
    survivors = c.names[:4]
    survived = shared.masked({name: masked[name] for name in survivors})
    confirmations = c.confirmations(survivors, survivors)
    confirmed = survived.confirmations(confirmations)
    unmaskings = c.unmaskings(confirmations, survivors)
    points = {confirmed.attempt.point(n): confirmed._parse(n, unmaskings[n])["p004"] for n in survivors}
    seed = shamir.combine(points, threshold=4)
    plan = confirmed.attempt.plan
    pair = mask_pair(seed, plan_digest=confirmed.attempt.digest, pair_secrets=plan.pair_secrets)
    assert pair.public.dh == adverts["p004"][95:127]
    keys = confirmed.recovery.pair_masks("p004", seed)
    assert set(keys) == set(survivors)
    late = np.frombuffer(masked["p004"][192:], "<u4").copy()
    Masks(added=tuple(keys.values())).streams().apply_to(late)
    counts = np.bincount(late.view(np.uint8), minlength=256)
    assert (
        (counts - counts.mean()) ** 2
    ).sum() / counts.mean() < 400  # chi-square, 255 degrees: p < 1e-8 beyond
    assert np.count_nonzero(late) > 31_990


def test_a_retry_with_another_input_is_refused_and_with_the_same_repeats(five):
    """Two vectors under the same masks would reveal their difference."""
    shares = five.shares(five.adverts(), five.names)
    state = five.states["p000"]
    _, first = state.mask(shares, five.contributions["p000"], rounding_key=secret("r"))
    _, again = state.mask(shares, five.contributions["p000"], rounding_key=secret("r"))
    assert b"".join(first) == b"".join(again)
    other = {"count": five.contributions["p000"]["count"] + 1}
    with pytest.raises(UpdateMismatch, match="'p000' has masked another vector"):
        state.mask(shares, other, rounding_key=secret("r"))
    fewer = {name: shares[name] for name in five.names[:4]}
    with pytest.raises(UpdateMismatch, match="'p000' has masked another vector"):
        state.mask(fewer, five.contributions["p000"], rounding_key=secret("r"))
