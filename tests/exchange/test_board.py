"""What a reader of the mailbox accepts, and what it refuses."""

import dataclasses
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts.canonical_json import canonical_bytes
from data_contracts.envelope import Envelope, Kind, Slot
from data_contracts.errors import Equivocation, MotetError, ProtocolError, UpdateMismatch
from data_contracts.plan import Lane, RoundPlan
from tasks.exchange.board import Board
from tasks.exchange.identity import Identity, Roster
from tasks.exchange.mailbox import DirectoryMailbox

RUN = "run-1"
PLAN = RoundPlan(
    run_id=RUN,
    round=3,
    study="counting",
    cohort=("partner-a", "partner-b", "partner-c"),
    threshold=3,
    lanes=(Lane(name="counts", length=2, ring_bits=64, value_bits=40),),
)


@pytest.fixture
def boards(tmp_path):
    names = ("coordinator", "partner-a", "partner-b", "partner-c")
    identities = {name: Identity(name, bytes([i + 1]) * 32) for i, name in enumerate(names)}
    roster = Roster(
        coordinator="coordinator",
        public_keys={name: one.public_key.hex() for name, one in identities.items()},
    )
    mailbox = DirectoryMailbox(tmp_path / "mailbox")
    return {
        name: Board(mailbox=mailbox, identity=one, roster=roster, run_id=RUN)
        for name, one in identities.items()
    }


def envelope_path(board, kind, sender):
    return board.mailbox._path(Slot(RUN, PLAN.round, PLAN.attempt, kind, sender))


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


def test_a_partner_may_not_speak_as_the_coordinator(boards):
    boards["partner-a"].post_json(Kind.RESULT, {}, plan=PLAN)

    with pytest.raises(ProtocolError, match="not its role"):
        boards["partner-b"].read(Kind.RESULT, "partner-a", plan=PLAN)


def test_a_message_signed_by_another_key_is_refused(boards):
    impostor = dataclasses.replace(boards["partner-a"], identity=Identity("partner-a", b"\x77" * 32))
    impostor.post_json(Kind.ADVERT, {}, plan=PLAN)

    with pytest.raises(ProtocolError, match="no valid signature"):
        boards["partner-b"].read(Kind.ADVERT, "partner-a", plan=PLAN)


def test_a_message_moved_to_another_place_is_refused(boards):
    boards["partner-a"].post_json(Kind.ADVERT, {}, plan=PLAN)
    target = envelope_path(boards["partner-a"], Kind.ADVERT, "partner-b")
    target.write_bytes(envelope_path(boards["partner-a"], Kind.ADVERT, "partner-a").read_bytes())

    with pytest.raises(ProtocolError, match="moved or replayed"):
        boards["partner-c"].read(Kind.ADVERT, "partner-b", plan=PLAN)


def test_a_message_of_another_plan_is_refused(boards):
    other = PLAN.model_copy(update={"parameters": {"x": 1}})
    boards["partner-a"].post_json(Kind.ADVERT, {}, plan=other)

    with pytest.raises(ProtocolError, match="another plan"):
        boards["partner-b"].read(Kind.ADVERT, "partner-a", plan=PLAN)


def test_an_altered_body_is_refused(boards):
    reference = boards["partner-a"].post(Kind.ADVERT, [b"abc"], contract="advert@1", plan=PLAN)
    boards["partner-a"].mailbox.blobs.path(reference).write_bytes(b"abd")

    with pytest.raises(UpdateMismatch, match="do not match"):
        boards["partner-b"].read(Kind.ADVERT, "partner-a", plan=PLAN)


def test_a_body_above_the_cap_is_refused_before_it_is_opened(boards):
    boards["partner-a"].post(Kind.ADVERT, [bytes(600 * 1024)], contract="advert@1", plan=PLAN)

    with pytest.raises(ProtocolError, match="at most"):
        boards["partner-b"].read(Kind.ADVERT, "partner-a", plan=PLAN)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_no_single_altered_byte_of_an_envelope_is_accepted(boards, data):
    boards["partner-a"].post_json(Kind.ADVERT, {"x": 1}, plan=PLAN)
    path = envelope_path(boards["partner-a"], Kind.ADVERT, "partner-a")
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


def test_an_envelope_that_is_valid_but_not_canonical_is_refused(boards):
    boards["partner-a"].post_json(Kind.ADVERT, {}, plan=PLAN)
    path = envelope_path(boards["partner-a"], Kind.ADVERT, "partner-a")
    path.write_bytes(json.dumps(json.loads(path.read_bytes()), indent=1).encode())

    with pytest.raises(ProtocolError, match="canonical"):
        boards["partner-b"].read(Kind.ADVERT, "partner-a", plan=PLAN)


def test_canonical_json_follows_the_example_of_rfc_8785():
    # RFC 8785, section 3.2.2 (numbers) and 3.2.3 (sorting), shortened.
    value = {"numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 1e-27], "literals": [None, True, False]}

    assert canonical_bytes(value) == (
        b'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27]}'
    )
