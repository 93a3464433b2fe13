"""Two sets of survivors, both shares of one partner: one set is unmasked, or none."""

import pytest

from data_contracts.errors import ProtocolError, TooFewPartners
from tests.secure_aggregation.consortium import COUNT, Consortium
from tests.secure_aggregation.deviations import flip, until_masked

LANES = (COUNT,)


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
    decisions, sent = [], None
    for survivors in (4, 4, 5):
        c = Consortium(5, 4, LANES)
        _, _, sent, _ = until_masked(c, sent=sent)
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
