"""The blind coordinator adds up and learns nothing; the partners read the exact sum."""

import numpy as np
import pytest
from scipy.stats import chi2

from data_contracts.errors import AgreementViolation, ProtocolError, TooFewPartners
from data_contracts.plan import Lane
from tasks.secure_aggregation import coordinator
from tasks.secure_aggregation.blinding import open_blinded
from tasks.secure_aggregation.protocol import Attempt
from tasks.secure_aggregation.verification import RoundMessages, replay_blinded
from tests.secure_aggregation.consortium import COUNT, UPDATE, WIDE, Consortium, secret
from tests.secure_aggregation.deviations import until_masked

BLIND = {"opened_by": "partners"}
SHARED = secret("what the partners share")


def blinded(c: Consortium, dropped=()) -> tuple[coordinator.Confirmed, dict[str, bytes], RoundMessages]:
    """Run to the end; returns the coordinator's last state, the unmasking messages, and all messages."""
    shared, adverts, shares, masked = until_masked(c)
    kept = {name: message for name, message in masked.items() if name not in dropped}
    confirmations = c.confirmations(tuple(kept), tuple(kept))
    confirmed = shared.masked(kept).confirmations(confirmations)
    unmaskings = c.unmaskings(confirmations, tuple(kept))
    return confirmed, unmaskings, RoundMessages(adverts, shares, kept, confirmations, unmaskings)


@pytest.mark.parametrize("dropped", [(), ("p001",)])
def test_partners_read_the_exact_sum_of_the_survivors(dropped):
    c = Consortium(5, 4, (UPDATE, COUNT, WIDE), plan_fields=BLIND, blinding_secret=SHARED)
    confirmed, unmaskings, _ = blinded(c, dropped)
    hidden = confirmed.unmask_blinded(unmaskings)
    attempt = Attempt(c.plan, c.identities)
    found = open_blinded(attempt, hidden, survivors=confirmed.survivors, blinding_secret=SHARED)

    open_to_all = Consortium(5, 4, (UPDATE, COUNT, WIDE))
    plain = open_to_all.run((), (), dropped)
    assert found.survivors == plain.survivors
    np.testing.assert_array_equal(found.values["count"], plain.values["count"])
    for lane in (UPDATE, WIDE):  # the plans differ, so the rounding does: one step for each survivor
        step = lane.clip / (2 ** (lane.value_bits - 1) - 1)
        assert np.abs(found.values[lane.name] - plain.values[lane.name]).max() <= 5 * step * 1.001
    assert found.n_clipped == plain.n_clipped


def test_what_a_blind_coordinator_holds_is_uniform_although_the_sum_is_zero():
    zeros = (Lane(name="zero", length=100_000, ring_bits=16, value_bits=10),)
    c = Consortium(3, 3, zeros, plan_fields=BLIND, blinding_secret=SHARED)
    for name in c.names:
        c.contributions[name] = {"zero": np.zeros(100_000, np.int64)}
    confirmed, unmaskings, _ = blinded(c)
    hidden = confirmed.unmask_blinded(unmaskings)
    counts = np.bincount(np.frombuffer(hidden, np.uint8), minlength=256)
    assert chi2.sf(((counts - counts.mean()) ** 2).sum() / counts.mean(), df=255) > 1e-6
    attempt = Attempt(c.plan, c.identities)
    found = open_blinded(attempt, hidden, survivors=c.names, blinding_secret=SHARED)
    assert not found.values["zero"].any()
    wrong = open_blinded(attempt, hidden, survivors=c.names, blinding_secret=secret("another"))
    assert np.count_nonzero(wrong.values["zero"]) > 99_000


def test_a_blind_coordinator_cannot_open_the_sum_by_mistake():
    c = Consortium(4, 3, (COUNT,), plan_fields=BLIND, blinding_secret=SHARED)
    confirmed, unmaskings, _ = blinded(c)
    with pytest.raises(AgreementViolation, match="for the partners alone"):
        confirmed.unmask(unmaskings)


@pytest.mark.parametrize("missing", [None, b"short"])
def test_a_partner_without_the_shared_secret_sends_nothing(missing):
    c = Consortium(4, 3, (COUNT,), plan_fields=BLIND, blinding_secret=missing)
    with pytest.raises(AgreementViolation, match="'p000' has no secret of 32 bytes"):
        c.run()


def test_a_blinded_sum_of_the_wrong_size_or_of_too_few_is_refused():
    c = Consortium(4, 3, (COUNT,), plan_fields=BLIND, blinding_secret=SHARED)
    confirmed, unmaskings, _ = blinded(c)
    hidden = confirmed.unmask_blinded(unmaskings)
    attempt = Attempt(c.plan, c.identities)
    with pytest.raises(ProtocolError, match=f"has {len(hidden) - 8} bytes, expected {len(hidden)}"):
        open_blinded(attempt, hidden[8:], survivors=c.names, blinding_secret=SHARED)
    with pytest.raises(TooFewPartners, match="2 of 4"):
        open_blinded(attempt, hidden, survivors=c.names[:2], blinding_secret=SHARED)
    with pytest.raises(ProtocolError, match="'p009' is not in the cohort"):
        open_blinded(attempt, hidden, survivors=(*c.names, "p009"), blinding_secret=SHARED)


def test_anybody_repeats_a_blinded_round_bit_for_bit():
    c = Consortium(5, 4, (UPDATE, COUNT), plan_fields=BLIND, blinding_secret=SHARED)
    confirmed, unmaskings, everything = blinded(c, ("p002",))
    again = replay_blinded(c.plan, everything, identities=c.identities)
    assert bytes(again) == bytes(confirmed.unmask_blinded(unmaskings))


def test_masks_of_a_blind_round_need_the_coordinator_too():
    """The shared secret alone opens no vector: it blinds on top of the masks, it does not replace them."""
    zeros = (Lane(name="zero", length=50_000, ring_bits=16, value_bits=10),)
    c = Consortium(3, 3, zeros, plan_fields=BLIND, blinding_secret=SHARED)
    c.contributions["p001"] = {"zero": np.zeros(50_000, np.int64)}
    _, _, _, masked = until_masked(c)
    attempt = Attempt(c.plan, c.identities)
    found = open_blinded(attempt, masked["p001"][192:], survivors=c.names, blinding_secret=SHARED)
    assert np.count_nonzero(found.values["zero"]) > 49_000
