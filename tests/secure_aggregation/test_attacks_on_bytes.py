"""Malformed bytes: every mutation, truncation and confusion of every message is refused by name."""

import numpy as np
import pytest

from data_contracts.errors import ProtocolError
from data_contracts.plan import Lane
from tasks.secure_aggregation import coordinator
from tests.secure_aggregation.consortium import COUNT, Consortium, Journey, secret
from tests.secure_aggregation.deviations import flip, resign, until_masked

LANES = (COUNT,)

KINDS = ("advert", "shares", "masked", "confirmation", "unmasking")


SMALL = (Lane(name="count", length=2, ring_bits=16, value_bits=8),)


@pytest.fixture(scope="module")
def whole_run():
    """Every message of a small run by kind, and the state that checks each kind on arrival."""
    c = Consortium(3, 3, SMALL)
    opened = coordinator.begin(c.plan, identities=c.identities)
    shared, adverts, shares, masked = until_masked(c)
    survived = shared.masked(masked)
    confirmations = c.confirmations(c.names, c.names)
    confirmed = survived.confirmations(confirmations)
    return {
        "advert": (opened.check_advert, adverts),
        "shares": (opened.adverts(adverts).check_shares, shares),
        "masked": (shared.check_masked, masked),
        "confirmation": (survived.check_confirmation, confirmations),
        "unmasking": (confirmed.check_unmasking, c.unmaskings(confirmations, c.names)),
    }


@pytest.fixture(scope="module")
def honest():
    """One message of each kind in a run with a dropout, and the state that checks each kind on arrival."""
    c = Consortium(4, 3, SMALL)
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
def test_every_single_byte_mutation_of_every_message_is_refused_and_names_the_sender(whole_run, kind):
    check, sent = whole_run[kind]
    for sender, message in sent.items():
        check(sender, message)
        for at in range(len(message)):
            with pytest.raises(ProtocolError, match=f"'{sender}'"):
                check(sender, flip(message, at, at % 8))


def test_every_single_byte_mutation_of_shares_of_a_dropped_partner_is_refused(honest):
    check, message = honest["unmasking"]
    check("p001", message)
    for at in range(len(message)):
        with pytest.raises(ProtocolError, match="'p001'"):
            check("p001", flip(message, at, at % 8))


@pytest.mark.parametrize("kind", ["advert", "shares", "confirmation"])
def test_every_single_byte_mutation_is_refused_by_a_partner_that_is_shown_it(kind):
    c = Consortium(3, 3, SMALL)
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
    for mutated in [message[:cut] for cut in range(0, len(message), 1 + len(message) // 200)] + [
        message + b"\x00",
        message * 2,
    ]:
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
