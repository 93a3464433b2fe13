"""What a coalition sees is explained by the sum alone, at every layer, and what masking cannot see is said."""

import numpy as np
import pytest

from data_contracts.errors import ProtocolError
from data_contracts.plan import Lane
from data_contracts.references import BlobReference
from tasks.secure_aggregation import coordinator, masking, messages, protocol
from tasks.secure_aggregation.protocol import Attempt
from tests.secure_aggregation.consortium import COUNT, Consortium, secret
from tests.secure_aggregation.deviations import until_masked

MODEL = BlobReference(sha256="a" * 64, bytes=10, contract="trunk@1")
FLAT = (Lane(name="count", length=64, ring_bits=32, value_bits=20),)


def every_message(c: Consortium, sent=None):
    """All messages of a run in which p004 drops out after it dealt shares."""
    shared, adverts, shares, masked = until_masked(c, masked_by=c.names[:4], sent=sent)
    confirmations = c.confirmations(c.names[:4], c.names[:4])
    confirmed = shared.masked(masked).confirmations(confirmations)
    unmaskings = c.unmaskings(confirmations, c.names[:4])
    total = confirmed.unmask(unmaskings).values["count"]
    return {"adverts": adverts, "shares": shares, "masked": masked, "confirmations": confirmations, "unmaskings": unmaskings}, total  # fmt: skip


def test_every_message_stays_the_same_if_honest_inputs_are_exchanged_for_others_of_equal_sum(monkeypatch):
    """Simulation: p000 and p001 are honest, all others and the coordinator collude and hold every other key.

    For the other inputs there is a mask of the pair, as probable as the first, under which not one byte of the
    round differs: the coalition's view says nothing beyond the sum.
    """
    c = Consortium(5, 4, FLAT)
    delta = np.arange(64, dtype=np.int64) * 1000 - 31_337
    c.contributions["p000"]["count"] = np.full(64, 7)
    c.contributions["p001"]["count"] = np.full(64, -9)
    first, total = every_message(c)

    pair_keys = []
    honest_key, honest_apply = protocol.pair_mask_key, masking.MaskStreams.apply_to

    def watched_key(*arguments, me, peer, **more):
        key = honest_key(*arguments, me=me, peer=peer, **more)
        if {me, peer} == {"p000", "p001"}:
            pair_keys.append(key)
        return key

    class Streams(masking.MaskStreams):
        def __init__(self, masks, *, start):
            super().__init__(masks, start=start)
            self.adds = pair_keys[:1] and pair_keys[0] in masks.added
            self.subtracts = pair_keys[:1] and pair_keys[0] in masks.subtracted

        def apply_to(self, block):
            honest_apply(self, block)
            if self.adds or self.subtracts:  # the other mask of the pair: the first one less delta
                other = np.zeros(block.size, block.dtype)
                other[:64] = delta.astype(block.dtype)
                (np.subtract if self.adds else np.add)(block, other, out=block)

    monkeypatch.setattr("tasks.secure_aggregation.partner.pair_mask_key", watched_key)
    monkeypatch.setattr(masking, "MaskStreams", Streams)
    exchanged = Consortium(5, 4, FLAT)
    exchanged.contributions["p000"]["count"] = np.full(64, 7) + delta
    exchanged.contributions["p001"]["count"] = np.full(64, -9) - delta
    second, same_total = every_message(exchanged, sent=first["shares"])
    assert len(set(pair_keys)) == 1
    assert second == first
    np.testing.assert_array_equal(total, same_total)


def test_each_layer_alone_stops_a_partner_that_was_shown_another_model(five, monkeypatch):
    """Model inconsistency, with one defence after the other taken away; the last is that the seals do not open."""
    adverts = five.adverts()
    elsewhere = Consortium(5, 4, (COUNT,), plan_fields={"model_in": MODEL})
    adverts["p004"] = elsewhere.adverts()["p004"]
    with pytest.raises(ProtocolError, match="'p004' was made for another plan"):
        five.states["p000"].share(adverts)

    monkeypatch.setattr(messages, "_head", the_same_head)
    monkeypatch.setattr(messages, "signature_holds", lambda *_, **__: True)
    mixed = {**five.adverts(), "p004": elsewhere.adverts()["p004"]}
    shares = five.shares(mixed, five.names[:4]) | elsewhere.shares(mixed, ["p004"])
    with pytest.raises(ProtocolError, match="shares message of 'p004' follows another transcript"):
        five.masked(shares, ["p000"])

    monkeypatch.setattr(messages, "_demand_transcript", accept)
    with pytest.raises(ProtocolError, match="sealed shares of 'p004' do not open"):
        five.masked(shares, ["p000"])


def the_same_head(attempt, *, kind, sender):
    return bytes(messages.HEAD_BYTES)


def accept(*arguments, **more):
    """Whatever it is, it is fine."""


def test_mask_keys_under_two_plans_or_two_transcripts_are_unrelated(five):
    """Even if every message were believed, partners with different plans would add masks that do not cancel."""
    other = Consortium(5, 4, (COUNT,), plan_fields={"model_in": MODEL})
    keys = set()
    for c in (five, other):
        attempt = Attempt(c.plan, c.identities)
        c.adverts()
        mine, theirs = (c.states[name]._secrets.mask for name in ("p000", "p001"))
        for transcript in (secret("t"), secret("u")):
            pair = [
                protocol.pair_mask_key(
                    a.dh, b.dh.public, attempt, transcript, me=x, peer=y, secret=secret("s")
                )
                for a, b, x, y in ((mine, theirs, "p000", "p001"), (theirs, mine, "p001", "p000"))
            ]
            assert pair[0] == pair[1]
            keys.add(pair[0])
    assert len(keys) == 4


def test_a_second_request_to_unmask_gets_the_same_shares_or_none(five):
    """The last state holds nothing, and the state before answers for the one set that it signed."""
    until_masked(five)
    confirmations = five.confirmations(five.names, five.names)
    state = five.states["p000"]
    _, first = state.unmask(confirmations)
    fewer = {name: confirmations[name] for name in five.names[:4]}
    finished, second = state.unmask(fewer)
    assert first == second
    assert not hasattr(finished, "unmask")
    assert vars(finished) == {"survivors": five.names}


def test_a_partner_can_poison_the_sum_and_masking_cannot_see_it(five):
    """Not guaranteed: one that encodes beyond its range shifts the sum; gates on the sum are for that."""
    shared, adverts, shares, masked = until_masked(five)
    body = np.frombuffer(masked["p003"][192:], "<u8").copy()
    body[0] += np.uint64(2**50)
    attempt = shared.attempt
    digest = messages.body_digest(attempt.layout, memoryview(body.view(np.uint8)), workers=1)
    transcript = protocol.transcript_of_shares(
        attempt, protocol.transcript_of_adverts(attempt, adverts), shares
    )
    header = messages.sign(
        messages.MaskedHeader(transcript=transcript, body_digest=digest).pack(),
        attempt,
        kind=messages.Kind.MASKED,
        sender="p003",
        signer=five.signing["p003"].sign,
    )
    survived = shared.masked({**masked, "p003": header + body.tobytes()})
    confirmations = five.confirmations(survived.survivors, five.names)
    total = survived.confirmations(confirmations).unmask(five.unmaskings(confirmations, five.names))
    honest = np.sum([value["count"] for value in five.contributions.values()], axis=0)
    assert (total.values["count"] - honest).tolist() == [2**50, 0, 0]


def test_the_coordinator_never_holds_anything_but_the_sum(five):
    """Its last state has bodies that are masked and a sum: no attribute or method gives one partner's values."""
    total = five.run()
    assert set(vars(total)) == {"values", "survivors", "n_clipped"}
    public = {name for name in dir(coordinator.Confirmed) if not name.startswith("_")}
    assert public == {
        "check_unmasking", "is_enough", "recovery", "survivors", "unmask", "unmask_blinded",
    }  # fmt: skip
