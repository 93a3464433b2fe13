"""What a reader of the mailbox accepts, and what it refuses."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore.exceptions import PermissionDeniedError

from data_contracts.canonical_json import canonical_bytes
from data_contracts.envelope import APART_KINDS, INLINE_BYTES, MAX_ENVELOPE_BYTES, Envelope, Head, Kind, Slot
from data_contracts.errors import Equivocation, MotetError, ProtocolError, UpdateMismatch
from data_contracts.plan import Lane, RoundPlan
from tasks.exchange.blob_store import reference_to
from tasks.exchange.identity import Identity
from tasks.exchange.quarantine import Quarantine
from tests.exchange.conftest import RUN, SPEAKING

PLAN = RoundPlan(
    run_id=RUN,
    round=3,
    study="counting",
    cohort=("partner-a", "partner-b", "partner-c"),
    threshold=3,
    lanes=(Lane(name="counts", length=2, ring_bits=64, value_bits=40),),
)


@pytest.fixture
def boards(store):
    return {name: store.board(name) for name in SPEAKING}


def envelope_path(store, kind, sender):
    return store.place(Slot(RUN, PLAN.round, PLAN.attempt, kind, sender))


def test_a_posted_message_is_read_back_verified(boards):
    boards["partner-a"].post_json(Kind.ADVERT, {"x": 1}, plan=PLAN)

    message = boards["partner-b"].read(Kind.ADVERT, "partner-a", plan=PLAN)

    assert message.json() == {"x": 1}


def test_posting_the_same_again_is_a_no_op_and_something_else_is_equivocation(boards):
    boards["partner-a"].post_json(Kind.ADVERT, {"x": 1}, plan=PLAN)
    boards["partner-a"].post_json(Kind.ADVERT, {"x": 1}, plan=PLAN)

    with pytest.raises(Equivocation, match=r"partner-a.*the first one stands"):
        boards["partner-a"].post_json(Kind.ADVERT, {"x": 2}, plan=PLAN)
    assert boards["partner-b"].read(Kind.ADVERT, "partner-a", plan=PLAN).json() == {"x": 1}


def test_nothing_posted_reads_as_none(boards):
    assert boards["partner-a"].read(Kind.PLAN, "coordinator", plan=PLAN) is None


def test_a_partner_may_not_speak_as_the_coordinator(boards, store):
    store.operator("partner-a").post_json(Kind.RESULT, {}, plan=PLAN)

    with pytest.raises(ProtocolError, match="not its role"):
        boards["partner-b"].read(Kind.RESULT, "partner-a", plan=PLAN)


def test_a_message_signed_by_another_key_is_refused(boards, store):
    impostor = store.operator("partner-a", identity=Identity("partner-a", b"\x77" * 32))
    impostor.post_json(Kind.ADVERT, {}, plan=PLAN)

    with pytest.raises(ProtocolError, match="no valid signature"):
        boards["partner-b"].read(Kind.ADVERT, "partner-a", plan=PLAN)


def test_with_a_quarantine_hostile_bytes_stop_nobody_and_stay_as_evidence(store, tmp_path):
    impostor = store.operator("partner-a", identity=Identity("partner-a", b"\x77" * 32))
    impostor.post_json(Kind.ADVERT, {}, plan=PLAN)
    garbage = envelope_path(store, Kind.ADVERT, "partner-c")
    garbage.write_bytes(b"\x00" * 100_000)
    quarantine = Quarantine(tmp_path / "set-aside")
    reader = store.board("partner-b", quarantine=quarantine)

    for _ in range(2):  # every look finds them again, and keeps them once
        assert reader.read(Kind.ADVERT, "partner-a", plan=PLAN) is None
        assert reader.read(Kind.ADVERT, "partner-c", plan=PLAN) is None

    reasons = [json.loads(path.read_bytes())["why"] for path in quarantine.reasons()]
    assert len(reasons) == 2
    assert any("no valid signature" in why and "partner-a" in why for why in reasons)
    assert any(f"{MAX_ENVELOPE_BYTES + 1} bytes" in why and "partner-c" in why for why in reasons)


def test_a_quarantine_does_not_fill_the_disk(tmp_path):
    quarantine = Quarantine(tmp_path, max_entries=2)
    for number in range(5):
        quarantine.keep(bytes([number]) * 2**20, why="too much")

    assert len(quarantine.reasons()) == 2
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3 * MAX_ENVELOPE_BYTES


def test_a_message_moved_to_another_place_is_refused(boards, store):
    boards["partner-a"].post_json(Kind.ADVERT, {}, plan=PLAN)
    target = envelope_path(store, Kind.ADVERT, "partner-b")
    target.write_bytes(envelope_path(store, Kind.ADVERT, "partner-a").read_bytes())

    with pytest.raises(ProtocolError, match="moved or replayed"):
        boards["partner-c"].read(Kind.ADVERT, "partner-b", plan=PLAN)


@pytest.mark.parametrize("moved", [True, False], ids=["another message", "garbage"])
def test_what_is_misplaced_gives_way_to_the_senders_own_word_and_stays_beside_it(boards, store, moved):
    boards["partner-a"].post_json(Kind.ADVERT, {}, plan=PLAN)
    source = envelope_path(store, Kind.ADVERT, "partner-a")
    place = envelope_path(store, Kind.ADVERT, "partner-b")
    lies_there = source.read_bytes() if moved else b"\x00" * 10
    place.write_bytes(lies_there)

    boards["partner-b"].post_json(Kind.ADVERT, {"b": 1}, plan=PLAN)

    assert boards["partner-c"].read(Kind.ADVERT, "partner-b", plan=PLAN).json() == {"b": 1}
    if isinstance(place, Path):
        assert [path.read_bytes() for path in place.parent.glob("partner-b.misplaced-*")] == [lies_there]
    with pytest.raises(Equivocation):
        boards["partner-b"].post_json(Kind.ADVERT, {"b": 2}, plan=PLAN)
    assert boards["partner-c"].read(Kind.ADVERT, "partner-b", plan=PLAN).json() == {"b": 1}


@pytest.mark.parametrize("store", ["memory"], indirect=True)
def test_where_a_sender_may_not_delete_what_is_misplaced_stops_it_by_name(boards, store, monkeypatch):
    def refuse(*_):
        raise PermissionDeniedError("no")

    monkeypatch.setattr("obstore.delete", refuse)
    place = envelope_path(store, Kind.ADVERT, "partner-b")
    place.write_bytes(b"garbage")

    with pytest.raises(Equivocation, match=r"partner-b.*the first one stands"):
        boards["partner-b"].post_json(Kind.ADVERT, {}, plan=PLAN)
    assert place.read_bytes() == b"garbage"


def test_a_message_of_another_plan_is_refused(boards):
    other = PLAN.model_copy(update={"parameters": {"x": 1}})
    boards["partner-a"].post_json(Kind.ADVERT, {}, plan=other)

    with pytest.raises(ProtocolError, match="another plan"):
        boards["partner-b"].read(Kind.ADVERT, "partner-a", plan=PLAN)


@pytest.mark.parametrize(("kind", "size"), [(Kind.ADVERT, INLINE_BYTES + 1), (Kind.MASKED, 3)])
def test_an_altered_body_that_lies_apart_is_refused(boards, store, kind, size):
    reference = boards["partner-a"].post(kind, [b"a" * size], contract="body@1", plan=PLAN)
    store.spoil(reference, b"b" + b"a" * (size - 1))

    with pytest.raises(UpdateMismatch, match="do not match"):
        boards["partner-b"].read(kind, "partner-a", plan=PLAN)


def test_a_small_body_travels_in_its_envelope(boards, store):
    reference = boards["partner-a"].post(Kind.ADVERT, [b"a" * INLINE_BYTES], contract="body@1", plan=PLAN)
    assert reference not in boards["partner-a"].mailbox.bodies
    assert reference not in store.below.bodies
    assert boards["partner-b"].read(Kind.ADVERT, "partner-a", plan=PLAN).body == b"a" * INLINE_BYTES


def envelope_with(inline, *, body=b"abc", kind=Kind.ADVERT):
    """An envelope, well signed, that announces one body and holds what somebody put there."""
    signer = Identity("partner-a", b"\x01" * 32)
    slot = Slot(PLAN.run_id, PLAN.round, PLAN.attempt, kind, "partner-a")
    reference = reference_to([body], contract="body@1")
    head = Head(**slot._asdict(), plan_digest=PLAN.digest, body=reference)
    value = {
        "head": head.model_dump(mode="json"),
        "signature": signer.sign(head.signed_bytes).hex(),
        "inline": inline,
    }
    return canonical_bytes(value), slot


def test_a_body_in_its_envelope_is_read():
    data, slot = envelope_with("YWJj")
    assert Envelope.from_bytes(data, slot=slot).body == b"abc"
    assert Envelope.from_bytes(data, slot=slot).to_bytes() == data


@pytest.mark.parametrize(
    "inline",
    ["YWJk", "YWJjZA==", "", "YWJ", "YWJj\n", "YW Jj", "YWJj====", "not base64!", "\u00e9", 5, ["YWJj"], {}],
)
def test_an_envelope_that_holds_another_body_than_it_announces_is_refused(inline):
    data, slot = envelope_with(inline)
    with pytest.raises(ProtocolError, match=r"not the announced one|malformed fields: inline"):
        Envelope.from_bytes(data, slot=slot)


@pytest.mark.parametrize("inline", ["left out", None])
def test_a_small_body_that_is_not_in_its_envelope_makes_it_another_message(inline):
    data, slot = envelope_with(inline)
    if inline == "left out":
        data = canonical_bytes({key: part for key, part in json.loads(data).items() if key != "inline"})
    with pytest.raises(ProtocolError, match=r"not the announced one|belongs elsewhere"):
        Envelope.from_bytes(data, slot=slot)


def test_a_large_body_never_lies_in_its_envelope():
    body = b"a" * (INLINE_BYTES + 1)
    data, slot = envelope_with(base64.b64encode(body).decode(), body=body)
    with pytest.raises(ProtocolError, match="not the announced one"):
        Envelope.from_bytes(data, slot=slot)


def test_a_message_that_was_robbed_of_its_body_gives_way_to_its_sender(boards, store):
    boards["partner-a"].post_json(Kind.ADVERT, {"a": 1}, plan=PLAN)
    place = envelope_path(store, Kind.ADVERT, "partner-a")
    whole = json.loads(place.read_bytes())
    place.write_bytes(canonical_bytes({key: part for key, part in whole.items() if key != "inline"}))
    boards["partner-a"].post_json(Kind.ADVERT, {"a": 1}, plan=PLAN)
    assert boards["partner-b"].read(Kind.ADVERT, "partner-a", plan=PLAN).json() == {"a": 1}


def test_a_body_has_one_spelling_only():
    data, slot = envelope_with("YQ==", body=b"a")
    assert Envelope.from_bytes(data, slot=slot).body == b"a"
    with pytest.raises(ProtocolError, match="not the announced one"):
        Envelope.from_bytes(data.replace(b"YQ==", b"YR=="), slot=slot)


@pytest.mark.parametrize("kind", sorted(APART_KINDS))
def test_what_is_removed_in_time_never_lies_in_an_envelope(kind):
    data, slot = envelope_with("YWJj", kind=kind)
    with pytest.raises(ProtocolError, match="not the announced one"):
        Envelope.from_bytes(data, slot=slot)


def test_a_body_above_the_cap_is_refused_before_it_is_opened(boards, store):
    store.operator("partner-a").post(Kind.ADVERT, [bytes(600 * 1024)], contract="advert@1", plan=PLAN)

    with pytest.raises(ProtocolError, match="at most"):
        boards["partner-b"].read(Kind.ADVERT, "partner-a", plan=PLAN)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(data=st.data())
def test_no_single_altered_byte_of_an_envelope_is_accepted(boards, store, data):
    boards["partner-a"].post_json(Kind.ADVERT, {"x": 1}, plan=PLAN)
    path = envelope_path(store, Kind.ADVERT, "partner-a")
    good = path.read_bytes()
    position = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(bad))

    with pytest.raises(MotetError):
        boards["partner-b"].read(Kind.ADVERT, "partner-a", plan=PLAN)
    path.write_bytes(good)


@given(data=st.binary(max_size=300))
def test_hostile_bytes_end_in_a_protocol_error(data):
    slot = Slot(RUN, 3, 0, Kind.ADVERT, "partner-a")

    with pytest.raises(ProtocolError):
        Envelope.from_bytes(data, slot=slot)


def test_deeply_nested_json_is_refused_not_crashed_on():
    slot = Slot(RUN, 3, 0, Kind.ADVERT, "partner-a")

    with pytest.raises(ProtocolError):
        Envelope.from_bytes(b"[" * 2000 + b"]" * 2000, slot=slot)


def test_an_envelope_that_is_valid_but_not_canonical_is_refused(boards, store):
    boards["partner-a"].post_json(Kind.ADVERT, {}, plan=PLAN)
    path = envelope_path(store, Kind.ADVERT, "partner-a")
    path.write_bytes(json.dumps(json.loads(path.read_bytes()), indent=1).encode())

    with pytest.raises(ProtocolError, match="canonical"):
        boards["partner-b"].read(Kind.ADVERT, "partner-a", plan=PLAN)


def test_canonical_json_follows_the_example_of_rfc_8785():
    # RFC 8785, section 3.2.2 (numbers) and 3.2.3 (sorting), shortened.
    value = {"numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 1e-27], "literals": [None, True, False]}

    assert canonical_bytes(value) == (
        b'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27]}'
    )


def test_a_changed_copy_of_a_head_signs_its_own_bytes():
    slot = Slot(PLAN.run_id, PLAN.round, PLAN.attempt, Kind.ADVERT, "partner-a")
    head = Head(**slot._asdict(), plan_digest=PLAN.digest, body=reference_to([b"abc"], contract="body@1"))
    assert head.signed_bytes == Head.model_validate(head.model_dump()).signed_bytes
    for deep in (False, True):
        changed = head.model_copy(update={"sender": "partner-b"}, deep=deep)
        assert changed.signed_bytes == Head.model_validate(changed.model_dump()).signed_bytes
        assert changed.signed_bytes != head.signed_bytes
