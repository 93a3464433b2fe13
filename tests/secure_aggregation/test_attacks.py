"""The attack table: each deviation ends in a named refusal, and names its author where that can be shown."""

import numpy as np
import pytest

from data_contracts.errors import ProtocolError, TooFewPartners, UpdateMismatch
from data_contracts.plan import Lane
from data_contracts.references import BlobReference
from tasks.secure_aggregation import coordinator, messages, protocol, shamir
from tasks.secure_aggregation.keys import mask_key_pair
from tasks.secure_aggregation.masking import MaskStreams
from tests.secure_aggregation.consortium import COUNT, Consortium, Journey, secret

LANES = (COUNT,)


@pytest.fixture
def five() -> Consortium:
    return Consortium(5, 4, LANES)


def resign(consortium: Consortium, message: bytes, *, signer: str, change) -> bytes:
    """Change a message's signed bytes and sign them anew: what a partner that deviates can do."""
    signed = bytearray(message[:-64])
    change(signed)
    return bytes(signed) + consortium.signing[signer].sign(bytes(signed))


def flip(data: bytes, at: int, bit: int = 0) -> bytes:
    out = bytearray(data)
    out[at] ^= 1 << bit
    return bytes(out)


def until_masked(c: Consortium, masked_by=None):
    """Run honestly to the end of phase 3; returns the coordinator's state and all messages so far."""
    opened = coordinator.begin(c.plan, identities=c.identities)
    adverts = c.adverts()
    advertised = opened.adverts(adverts)
    shares = c.shares(adverts, c.names)
    shared = advertised.shares(shares)
    masked = c.masked(shares, masked_by or c.names)
    return shared, adverts, shares, masked


# ---------------------------------------------------------------- keys


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


# ---------------------------------------------------------------- plans and replays

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


# ---------------------------------------------------------------- shares


def test_an_altered_share_does_not_open(five):
    """Altered on the way: the dealer's signature breaks. Altered by the dealer: the holder's seal or commitment."""
    adverts = five.adverts()
    shares = five.shares(adverts, five.names)
    with pytest.raises(ProtocolError, match="'p001' carries no valid signature"):
        five.masked({**shares, "p001": flip(shares["p001"], 140)}, ["p000"])
    start = messages.HEAD_BYTES + 64
    sealed = resign(five, shares["p001"], signer="p001", change=lambda b: b.__setitem__(start, b[start] ^ 1))
    with pytest.raises(ProtocolError, match="sealed shares of 'p001' do not open"):
        five.masked({**shares, "p001": sealed}, ["p000"])
    committed = start + messages.SEALED_BYTES
    broken = resign(
        five, shares["p001"], signer="p001", change=lambda b: b.__setitem__(committed, b[committed] ^ 1)
    )
    with pytest.raises(ProtocolError, match="'p001' dealt 'p000' a share that it did not commit to"):
        five.masked({**shares, "p001": broken}, ["p000"])


def test_a_share_that_is_not_the_dealt_one_names_its_sender_and_the_others_suffice(five):
    """p001 releases a wrong share: it is refused on arrival, and four of five still unmask the sum."""
    start = messages.HEAD_BYTES + 32 + 1

    def alter(phase, sent):
        if phase == "unmasking":
            at = start + 33 + 32
            sent["p001"] = resign(
                five, sent["p001"], signer="p001", change=lambda b: b.__setitem__(at, b[at] ^ 1)
            )
        return sent

    journey = Journey(five, [set()] * 5, alter)
    total = journey.run()
    assert journey.refused == {"p001": "'p001' sent a share that is not the one 'p001' dealt to it"}
    np.testing.assert_array_equal(
        total.values["count"], np.sum([c["count"] for c in five.contributions.values()], axis=0)
    )


def test_a_share_outside_the_field_names_its_sender(five):
    def alter(phase, sent):
        if phase == "unmasking":
            at = messages.HEAD_BYTES + 32 + 1
            sent["p001"] = resign(
                five,
                sent["p001"],
                signer="p001",
                change=lambda b: b.__setitem__(slice(at, at + 33), b"\xff" * 33),
            )
        return sent

    journey = Journey(five, [set()] * 5, alter)
    journey.run()
    assert journey.refused == {"p001": "unmasking message of 'p001' holds a share outside the field"}


@pytest.mark.parametrize(("which", "gone", "what"), [(0, (), "self seed"), (1, ("p001",), "mask key")])
def test_a_dealer_whose_shares_do_not_fit_together_is_named_and_nothing_is_released(
    which, gone, what, monkeypatch
):
    """p001 deals one share off its polynomial, sealed and committed to as if it were right."""
    from tasks.secure_aggregation import partner

    def crooked(value, **arguments):
        shares = shamir.split(value, **arguments)
        calls.append(1)
        if len(calls) == 1 + which:
            shares[1] = (1).to_bytes(33, "big")
        return shares

    calls: list[int] = []
    c = Consortium(5, 4, LANES)
    honest_share = partner.Advertised.share

    def share(self, adverts):
        if self.me == "p001":
            monkeypatch.setattr(partner, "split", crooked)
        try:
            return honest_share(self, adverts)
        finally:
            monkeypatch.setattr(partner, "split", shamir.split)

    monkeypatch.setattr(partner.Advertised, "share", share)
    with pytest.raises(ProtocolError, match=f"'p001' dealt of its {what} do not give"):
        c.run((), (), gone)


# ---------------------------------------------------------------- survivors


def test_two_survivor_sets_never_unmask_both():
    """Seven partners, threshold 5: the coordinator shows one half one set, the other half another."""
    c = Consortium(7, 5, LANES)
    shared, _, _, masked = until_masked(c)
    first, second = c.names[:6], c.names[1:]
    one = c.confirmations(first, c.names[:4])
    two = c.confirmations(second, c.names[4:])
    for name in c.names[1:6]:
        for shown in ({**one, **{k: two[k] for k in ("p004", "p005")}}, one, two):
            if name in shown:
                with pytest.raises((ProtocolError, TooFewPartners)):
                    c.unmaskings({k: v for k, v in shown.items() if k in c.states[name].survivors}, [name])
    survived = shared.masked({name: masked[name] for name in first})
    with pytest.raises(ProtocolError, match="'p004' signs another set of survivors: two sets were shown"):
        survived.check_confirmation("p004", two["p004"])


def test_a_second_survivor_set_is_refused_by_the_partner_itself(five):
    until_masked(five)
    state = five.states["p000"]
    _, first = state.confirm(five.names[:4])
    _, again = state.confirm(five.names[:4])
    assert first == again
    with pytest.raises(ProtocolError, match="a second set of survivors was shown"):
        state.confirm(five.names)


def test_the_decision_to_pin_is_the_same_after_a_restart_and_differs_for_another_set():
    decisions = []
    for survivors in (4, 4, 5):
        c = Consortium(5, 4, LANES)
        until_masked(c)
        c.confirmations(c.names[:survivors], ["p000"])
        decisions.append(c.states["p000"].decision)
    assert decisions[0] == decisions[1] != decisions[2]


def test_no_partner_ever_releases_both_shares_of_anybody(five):
    """There is no request for shares: each partner derives from the one set it signed which share it gives."""
    _shared, _, _shares, _masked = until_masked(five)
    survivors = five.names[:4]
    confirmations = five.confirmations(survivors, survivors)
    held = {name: five.states[name]._held for name in survivors}
    unmaskings = five.unmaskings(confirmations, survivors)
    for name in survivors:
        for dealer in five.names:
            self_share, mask_share = held[name][dealer]
            released = (self_share in unmaskings[name], mask_share in unmaskings[name])
            assert released == ((True, False) if dealer in survivors else (False, True))
    finished = five.states["p000"]
    assert vars(finished) == {"survivors": survivors}, "nothing secret is left after the last phase"


@pytest.mark.parametrize(
    ("survivors", "error", "message"),
    [
        (("p001", "p002", "p003", "p004"), ProtocolError, "does not count 'p000'"),
        (("p000", "p001", "p002", "p003", "p003"), ProtocolError, "twice"),
        (("p000", "p001", "p002", "p003", "p009"), ProtocolError, "counts p009"),
        (("p000", "p001", "p002"), TooFewPartners, "3 of 5"),
    ],
)
def test_survivors_that_no_honest_coordinator_names_are_refused(five, survivors, error, message):
    until_masked(five)
    with pytest.raises(error, match=message):
        five.states["p000"].confirm(survivors)


def test_too_few_or_foreign_confirmations_unmask_nothing(five):
    until_masked(five)
    confirmations = five.confirmations(five.names[:4], five.names[:4])
    state = five.states["p000"]
    with pytest.raises(TooFewPartners, match="3 of 5 partners in phase 'confirmation'"):
        state.unmask({name: confirmations[name] for name in five.names[:3]})
    with pytest.raises(ProtocolError, match="counts p004"):
        state.unmask({**confirmations, "p004": confirmations["p003"]})
    with pytest.raises(ProtocolError, match="'p003' was made for another plan, phase or sender"):
        state.unmask({**confirmations, "p003": confirmations["p002"]})
    with pytest.raises(
        ProtocolError, match=r"'p002' carries no valid signature.*; .*'p003' carries no valid"
    ):
        state.unmask({**confirmations, **{n: flip(confirmations[n], -1) for n in ("p002", "p003")}})


# ---------------------------------------------------------------- masked vectors


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
    assert mask_key_pair(seed, plan_digest=confirmed.attempt.digest).public == adverts["p004"][95:127]
    keys = confirmed._pair_masks("p004", seed)
    assert set(keys) == set(survivors)
    late = np.frombuffer(masked["p004"][192:], "<u4").copy()
    MaskStreams(added=list(keys.values()), subtracted=[]).apply_to(late)
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


# ---------------------------------------------------------------- malformed bytes

KINDS = ("advert", "shares", "masked", "confirmation", "unmasking")


@pytest.fixture(scope="module")
def honest():
    """Every message of one small run with a dropout, and the state that checks each kind on arrival."""
    c = Consortium(4, 3, (Lane(name="count", length=2, ring_bits=16, value_bits=8),))
    opened = coordinator.begin(c.plan, identities=c.identities)
    adverts = c.adverts()
    advertised = opened.adverts(adverts)
    shares = c.shares(adverts, c.names)
    shared = advertised.shares(shares)
    masked = c.masked(shares, c.names[:3])
    survived = shared.masked(masked)
    confirmations = c.confirmations(c.names[:3], c.names[:3])
    confirmed = survived.confirmations(confirmations)
    unmaskings = c.unmaskings(confirmations, c.names[:3])
    return {
        "advert": (opened.check_advert, adverts["p001"]),
        "shares": (advertised.check_shares, shares["p001"]),
        "masked": (shared.check_masked, masked["p001"]),
        "confirmation": (survived.check_confirmation, confirmations["p001"]),
        "unmasking": (confirmed.check_unmasking, unmaskings["p001"]),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_single_byte_mutation_is_refused_and_names_the_sender(honest, kind):
    check, message = honest[kind]
    check("p001", message)
    for at in range(len(message)):
        with pytest.raises(ProtocolError, match="'p001'"):
            check("p001", flip(message, at, at % 8))


@pytest.mark.parametrize("kind", ["advert", "shares", "confirmation"])
def test_every_single_byte_mutation_is_refused_by_a_partner_that_is_shown_it(kind):
    c = Consortium(3, 3, (Lane(name="count", length=2, ring_bits=16, value_bits=8),))
    adverts = c.adverts()
    step, shown = c.states["p000"].share, adverts
    if kind != "advert":
        shares = c.shares(adverts, c.names)
        state, shown = c.states["p000"], shares
        step = lambda seen: state.mask(seen, c.contributions["p000"], rounding_key=secret("r"))  # noqa: E731
    if kind == "confirmation":
        c.masked(shares, c.names)
        shown = c.confirmations(c.names, c.names)
        step = c.states["p000"].unmask
    step(shown)
    for at in range(0, len(shown["p001"]), 2):
        with pytest.raises(ProtocolError, match="'p001'"):
            step({**shown, "p001": flip(shown["p001"], at, at % 8)})


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_and_every_extension_is_refused_and_names_the_sender(honest, kind):
    check, message = honest[kind]
    for mutated in [message[:cut] for cut in range(0, len(message), 3)] + [message + b"\x00", message * 2]:
        with pytest.raises(ProtocolError, match=f"{kind} message of 'p001' has {len(mutated)} bytes"):
            check("p001", mutated)


@pytest.mark.parametrize("kind", KINDS[2:])
def test_a_message_of_a_partner_absent_before_is_refused(honest, kind):
    check, message = honest[kind]
    stranger = "p003" if kind != "masked" else "p009"
    with pytest.raises(ProtocolError, match=stranger):
        check(stranger, message)


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_of_another_phase_is_refused(honest, kind):
    check, _ = honest[kind]
    for other in KINDS:
        if other != kind:
            with pytest.raises(ProtocolError, match="'p001'"):
                check("p001", honest[other][1])


def test_padding_that_is_not_zero_is_refused_although_signed(five):
    shared, _, _, masked = until_masked(five)
    header = masked["p001"][:192]
    forged = resign(five, header, signer="p001", change=lambda b: b.__setitem__(127, 1))
    with pytest.raises(ProtocolError, match="padding that is not zero"):
        shared.check_masked("p001", forged + masked["p001"][192:])


def test_one_hostile_message_per_phase_does_not_block_the_round():
    """Eleven partners, threshold 6: one sends garbage in each phase, the sum is that of the honest survivors."""
    c = Consortium(11, 6, LANES)

    def alter(phase, sent):
        hostile = f"p00{KINDS.index(phase)}"
        return {**sent, hostile: b"garbage" * 30}

    journey = Journey(c, [set()] * 5, alter)
    total = journey.run()
    assert set(journey.refused) == {"p000", "p001", "p002", "p003", "p004"}
    survivors = c.names[3:]
    assert total.survivors == survivors
    np.testing.assert_array_equal(
        total.values["count"], np.sum([c.contributions[n]["count"] for n in survivors], axis=0)
    )


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
        protocol.seal_key(secret("s"), place=protocol.seal_place(attempt, secret(1), dealer=a, holder=b))
        for a in five.names
        for b in five.names
    }
    assert len(keys) == 10
    assert len(places) == 25
    assert not keys & places
