"""A round as separate companies run it: sealed to its parties, in a bucket that somebody else operates."""

import time
from dataclasses import replace

import pytest
from obstore.store import MemoryStore

from data_contracts.envelope import Kind
from data_contracts.errors import MotetError, ProtocolError, SettingsError
from tasks.exchange.collection import DAY_SECONDS, collect
from tasks.exchange.object_mailbox import Bucket, ObjectMailbox
from tasks.exchange.run_seal import RunSeal
from tasks.rounds.retention import discard_old_vectors
from tasks.rounds.verification import check_outcome, read_round, repeat_sum
from tests.rounds.conftest import COUNTING, RUN

KEY = b"\x05" * 32


@pytest.fixture
def storage():
    return MemoryStore()


@pytest.fixture
def sealed(make_consortium, storage, tmp_path):
    """Four partners whose boards seal, over one bucket."""
    c = make_consortium(4)
    return replace(
        c, boards={name: _sealed(board, storage, tmp_path / name) for name, board in c.boards.items()}
    )


def _sealed(board, storage, directory, *, key=KEY):
    run_seal = RunSeal(key, run_id=RUN)
    bucket = Bucket(storage, name="s3://motet/ours")
    mailbox = ObjectMailbox(bucket, copies=directory / "copies", seal=lambda: run_seal)
    return replace(board, mailbox=mailbox, seal=lambda: run_seal)


def counts_of(c):
    return {name: [number, 10, 2**40] for number, name in enumerate(c.partners)}


def verified(board):
    found = read_round(board, 1)
    check_outcome(found, repeat_sum(found, identities=board.roster.partner_keys), study=COUNTING, inputs=None)
    return found


def test_a_sealed_round_gives_the_outcome_of_an_open_one_and_every_party_repeats_it(
    sealed, make_consortium, tmp_path
):
    outcome, *of_partners = sealed.run_round(sealed.draft(), counts_of(sealed))
    opened = replace(make_consortium(4), root=tmp_path / "open")
    assert outcome == opened.run_round(opened.draft(), counts_of(opened))[0]
    assert of_partners == [outcome] * 4
    for board in sealed.boards.values():
        assert verified(board).outcome == outcome


def test_who_operates_the_bucket_cannot_repeat_the_sum(sealed, storage, tmp_path):
    sealed.run_round(sealed.draft(), counts_of(sealed))
    reader = sealed.boards["partner-a"]
    curious = replace(
        reader, mailbox=ObjectMailbox(Bucket(storage, name="s3://x"), copies=tmp_path / "curious"), seal=None
    )
    plan = read_round(reader, 1).plan
    for kind in (Kind.PLAN, Kind.RESULT, Kind.SURVIVORS):
        with pytest.raises(ProtocolError):
            curious.read(kind, "coordinator", plan=plan).json()
    for name in sealed.partners:
        inside = reader.read(Kind.UNMASKING, name, plan=plan).body
        assert bytes(inside) not in bytes(curious.read(Kind.UNMASKING, name, plan=plan).body)
    with pytest.raises(MotetError):
        read_round(curious, 1)


def test_a_partner_with_another_key_counts_as_absent_and_is_named(sealed, storage, tmp_path):
    other = _sealed(sealed.boards["partner-d"], storage, tmp_path / "elsewhere", key=b"\x06" * 32)
    board = sealed.boards["coordinator"]
    plan = sealed.draft()
    other.post_json(Kind.ADVERT, {}, plan=plan)
    with pytest.raises(ProtocolError, match="'advert' of 'partner-d' in round 1 is not sealed with the key"):
        board.read(Kind.ADVERT, "partner-d", plan=plan)
    mistaken = replace(sealed, boards={**sealed.boards, "partner-d": other})
    draft = sealed.draft(round_number=2, seconds=1.0)
    outcome = mistaken.run_round(
        draft, counts_of(sealed), patience=sealed.contributor("partner-a", seconds=3).patience
    )
    assert outcome[0]["survivors"] == ["partner-a", "partner-b", "partner-c"]
    assert isinstance(outcome[-1], ProtocolError)


def test_old_vectors_are_dropped_from_the_bucket_and_the_round_says_so(sealed):
    for number in (1, 2):
        sealed.run_round(sealed.draft(round_number=number), counts_of(sealed))
    board = sealed.boards["coordinator"]
    discard_old_vectors(board, read_round(board, 2).plan, budget_bytes=1)
    verified_late = sealed.boards["partner-b"]
    assert read_round(verified_late, 2).outcome["n"] == 4
    with pytest.raises(SettingsError, match="no longer in the mailbox"):
        read_round(_fresh(board), 1)


def _fresh(board):
    """The same board without the copies that this site has made so far."""
    directory = board.mailbox.bodies.root
    for path in directory.iterdir():
        path.unlink()
    return board


def test_after_room_was_made_a_round_says_that_its_sum_cannot_be_repeated(sealed):
    sealed.run_round(sealed.draft(), counts_of(sealed))
    board = sealed.boards["coordinator"]
    board.post_json(Kind.RUN_CLOSED, {})
    now = time.time() + 40 * DAY_SECONDS
    assert collect(board.mailbox, roster=board.roster, now=now, keep_days=30).removed == 4 * 3
    with pytest.raises(SettingsError, match="no longer in the mailbox"):
        read_round(_fresh(board), 1)
