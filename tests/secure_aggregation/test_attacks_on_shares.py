"""Altered, wrong and crooked shares: the holder or the dealer that deviates is named."""

import numpy as np
import pytest

from data_contracts.errors import ProtocolError
from tasks.secure_aggregation import messages, shamir
from tests.secure_aggregation.consortium import COUNT, Consortium, Journey
from tests.secure_aggregation.deviations import flip, resign

LANES = (COUNT,)


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
    from tasks.secure_aggregation import dealing, partner

    def crooked(value, **arguments):
        shares = shamir.split(value, **arguments)
        calls.append(1)
        if len(calls) == 1 + which:
            shares[1] = (1).to_bytes(33, "big")
        return shares

    calls: list[int] = []
    c = Consortium(5, 4, LANES)
    honest_share = partner.Advertised.share

    def share(self, adverts, **arguments):
        if self.me == "p001":
            monkeypatch.setattr(dealing, "split", crooked)
        try:
            return honest_share(self, adverts, **arguments)
        finally:
            monkeypatch.setattr(dealing, "split", shamir.split)

    monkeypatch.setattr(partner.Advertised, "share", share)
    with pytest.raises(ProtocolError, match=f"'p001' dealt of its {what} do not give"):
        c.run((), (), gone)
