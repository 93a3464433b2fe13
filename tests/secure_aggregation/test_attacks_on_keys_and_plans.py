"""Swapped, replayed and repeated keys, plans shown differently: each ends in a refusal that names its author."""

import pytest

from data_contracts.errors import ProtocolError
from data_contracts.plan import Lane
from data_contracts.references import BlobReference
from tasks.secure_aggregation import coordinator, protocol
from tests.secure_aggregation.consortium import COUNT, Consortium, secret
from tests.secure_aggregation.deviations import flip, resign, until_masked

LANES = (COUNT,)


def test_a_key_swapped_on_the_way_is_noticed_by_every_partner(five):
    """Man in the middle: the coordinator replaces a key, without or with a signature of its own making."""
    adverts = five.adverts()
    swapped = resign(
        five, adverts["p001"], signer="p004", change=lambda b: b.__setitem__(slice(63, 95), secret("k"))
    )
    for forged in (flip(adverts["p001"], 70), swapped):
        with pytest.raises(ProtocolError, match=r"'p001' carries no valid signature"):
            five.states["p000"].share({**adverts, "p001": forged})
        with pytest.raises(ProtocolError, match=r"'p001' carries no valid signature"):
            coordinator.begin(five.plan, identities=five.identities).check_advert("p001", forged)


def test_a_partner_notices_that_its_own_advert_was_replaced_by_a_validly_signed_one(five):
    adverts = five.adverts()
    other = Consortium(5, 4, LANES, root_label="another root").adverts()
    with pytest.raises(ProtocolError, match="shows a message of 'p000' that it did not send"):
        five.states["p000"].share({**adverts, "p000": other["p000"]})


def test_keys_that_occur_twice_are_refused_and_named(five):
    adverts = five.adverts()
    keys = adverts["p000"][63:127]
    copied = resign(
        five, adverts["p003"], signer="p003", change=lambda b: b.__setitem__(slice(63, 127), keys)
    )
    with pytest.raises(ProtocolError, match="'p003' repeats a public key that 'p000'"):
        five.states["p001"].share({**adverts, "p003": copied})
    opened = coordinator.begin(five.plan, identities=five.identities)
    opened.check_advert("p000", adverts["p000"])
    with pytest.raises(ProtocolError, match="'p003' repeats a public key that 'p000'"):
        opened.check_advert("p003", copied)
    opened.check_advert("p000", adverts["p000"])  # the first stands, and may be seen again


def test_a_key_of_low_order_is_refused_and_named(five):
    adverts = five.adverts()
    low = resign(
        five, adverts["p003"], signer="p003", change=lambda b: b.__setitem__(slice(63, 95), bytes(32))
    )
    with pytest.raises(ProtocolError, match="'p003' is a point of low order"):
        five.states["p001"].share({**adverts, "p003": low})


def test_a_sender_outside_the_cohort_and_one_under_anothers_name_are_refused(five):
    adverts = five.adverts()
    with pytest.raises(ProtocolError, match="'p009' is not in the cohort"):
        five.states["p000"].share({**adverts, "p009": adverts["p001"]})
    opened = coordinator.begin(five.plan, identities=five.identities)
    with pytest.raises(ProtocolError, match="'p009' is not in the cohort"):
        opened.check_advert("p009", adverts["p001"])
    with pytest.raises(ProtocolError, match="'p002' was made for another plan, phase or sender"):
        opened.check_advert("p002", adverts["p001"])


MODEL = BlobReference(sha256="a" * 64, bytes=10, contract="trunk@1")


@pytest.mark.parametrize(
    "other",
    [
        {"attempt": 1},
        {"round": 4},
        {"run_id": "run-2"},
        {"model_in": MODEL},
        {"parameters": {"learning_rate": 0.1}},
        {"threshold": 5},
        {"lanes": (Lane(name="count", length=3, ring_bits=64, value_bits=41),)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_partner_that_was_shown_another_plan_is_found_before_anything_is_shared(five, other):
    """Model or configuration inconsistency, and the replay of another round's or attempt's advert."""
    adverts = five.adverts()
    elsewhere = Consortium(5, 4, LANES, plan_fields=other).adverts()
    mixed = {**adverts, "p004": elsewhere["p004"]}
    with pytest.raises(ProtocolError, match="'p004' was made for another plan"):
        five.states["p000"].share(mixed)
    with pytest.raises(ProtocolError, match="'p004' was made for another plan"):
        coordinator.begin(five.plan, identities=five.identities).adverts(mixed)


def test_partners_that_were_shown_different_adverts_find_out_before_they_mask(five):
    """p004 signed two adverts, and the coordinator showed p003 the other one."""
    adverts = five.adverts()
    second = Consortium(5, 4, LANES, root_label="another root").adverts()["p004"]
    shares = five.shares(adverts, ["p000", "p001", "p002"]) | five.shares(
        {**adverts, "p004": second}, ["p003"]
    )
    with pytest.raises(ProtocolError, match="shares message of 'p003' follows another transcript"):
        five.masked(shares, ["p000"])


def test_partners_that_were_shown_different_shares_find_out_before_they_unmask(five):
    """p003 masks after having been shown fewer shares; the coordinator cannot use its vector."""
    opened = coordinator.begin(five.plan, identities=five.identities)
    adverts = five.adverts()
    shares = five.shares(adverts, five.names)
    fewer = {name: shares[name] for name in five.names if name != "p004"}
    masked = five.masked(shares, ["p000", "p001", "p002"]) | five.masked(fewer, ["p003"])
    shared = opened.adverts(adverts).shares(shares)
    with pytest.raises(ProtocolError, match="masked message of 'p003' follows another transcript"):
        shared.masked(masked)
    confirmations = five.confirmations(["p000", "p001", "p002", "p003"], ["p000", "p001", "p002", "p003"])
    with pytest.raises(ProtocolError, match="confirmation message of 'p003' follows another transcript"):
        five.unmaskings(confirmations, ["p000"])


def test_a_set_that_grows_from_nowhere_is_refused(five):
    adverts = five.adverts()
    four = {name: adverts[name] for name in five.names[:4]}
    shares = five.shares(four, five.names[:4])
    with pytest.raises(ProtocolError, match="counts p004, absent from the phase before"):
        five.masked({**shares, "p004": shares["p003"]}, ["p000"])


def test_no_state_prints_a_secret(five):
    """repr() ends in logs and tracebacks: no key, seed, share or signer may stand there."""
    shared, _adverts, _shares, _masked = until_masked(five)
    held = {value for pair in five.states["p000"]._held.values() for value in pair}
    texts = [repr(five.states["p000"]), repr(shared)]
    c = Consortium(5, 4, LANES)
    c.adverts()
    texts.append(repr(c.states["p000"]))
    root, seed = five.root("p000"), c.states["p000"]._secrets.self_seed
    for text in texts:
        assert not any(repr(value)[2:-1] in text or value.hex() in text for value in (*held, root, seed))
        assert len(text) < 3000


def test_contexts_of_different_uses_never_meet(five):
    """Two places of one attempt, or one place of two transcripts, give different keys."""
    attempt = protocol.Attempt(five.plan, five.identities)
    keys = {
        protocol.self_mask_key(secret("s"), attempt, secret(t), name=name)
        for t in (1, 2)
        for name in five.names
    }
    places = {
        protocol.seal_key(secret("s"), b"", place=protocol.seal_place(attempt, secret(1), dealer=a, holder=b))
        for a in five.names
        for b in five.names
    }
    assert len(keys) == 10
    assert len(places) == 25
    assert not keys & places
