"""Making room: large bodies of closed runs go, envelopes and everything of an unfinished run stay."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts.envelope import APART_KINDS, INLINE_BYTES, Envelope, Kind, Slot
from tasks.exchange.board import Board
from tasks.exchange.collection import DAY_SECONDS, collect
from tasks.exchange.identity import Identity
from tasks.exchange.mailbox import DirectoryMailbox
from tasks.exchange.mirrored_blobs import SealedBlobs
from tasks.exchange.run_seal import RunSeal
from tests.exchange.conftest import ObjectStore, ServiceStore, identity_of

KEEP_DAYS = 30.0
LATER = 40 * DAY_SECONDS


@pytest.fixture
def operated(store):
    """What the operator collects from."""
    return store.below


def say(store, run_id, *, closed, model=b"a model"):
    """A short run: one message of every kind, a model, and perhaps its end."""
    roster = store.parties.signed_roster.roster
    for kind in Kind:
        if kind is not Kind.RUN_CLOSED:
            sender = "coordinator" if kind in COORDINATOR else "partner-a"
            board = Board(store.mailbox(sender), identity_of(sender), roster, run_id)
            times = INLINE_BYTES if kind is Kind.RESULT else 1  # one lies apart for its size
            board.post(kind, [f"{kind} of {run_id}".encode() * times], contract="x@1")
    seal = RunSeal(bytes(32), run_id=run_id)
    if isinstance(store, ServiceStore | ObjectStore):
        remote = _sealed_shelf(store)
        SealedBlobs(store.root / "coordinator" / run_id, remote, lambda: seal).put(
            [model], contract="trunk@1"
        )
    if closed:
        Board(store.mailbox("coordinator"), identity_of("coordinator"), roster, run_id).post_json(
            Kind.RUN_CLOSED, {}
        )


COORDINATOR = {kind for kind in Kind if kind.value in ("plan", "result", "survivors", "abandoned")} | {
    Kind.ADVERTS_CLOSED,
    Kind.SHARES_CLOSED,
    Kind.CONFIRMATIONS_CLOSED,
    Kind.RUN_OPENED,
    Kind.RUN_KEY,
    Kind.RUN_LEADER,
}


def _sealed_shelf(store):
    from tasks.exchange.https_mailbox import HttpsBlobs
    from tasks.exchange.object_mailbox import ObjectBlobs

    if isinstance(store, ServiceStore):
        store.mailbox("coordinator")
        return HttpsBlobs(store.reached["coordinator"]._connection, shelf="sealed")
    return ObjectBlobs(store.bucket(), shelf="sealed")


def collected(store, operated, *, after=LATER):
    roster = store.parties.signed_roster.roster
    return collect(operated, roster=roster, now=time.time() + after, keep_days=KEEP_DAYS)


def lying(operated):
    return {blob.name for blob in operated.stored()}


def test_only_large_bodies_and_models_of_closed_runs_go_and_every_envelope_stays(store, operated):
    say(store, "ended", closed=True)
    say(store, "unfinished", closed=False)
    envelopes, before = sorted(operated.envelopes()), lying(operated)
    found = collected(store, operated)

    assert (found.ended, found.kept) == (("ended",), ("unfinished",))
    assert sorted(operated.envelopes()) == envelopes
    announced = {each.slot: _body(each) for each in envelopes}
    gone = {body for slot, body in announced.items() if slot.run_id == "ended" and slot.kind in APART_KINDS}
    models = {name for name in before if name.startswith("ended/")}
    assert before - lying(operated) == gone | models
    assert found.removed == len(gone | models)
    assert collected(store, operated).removed == 0


def _body(posted):
    return Envelope.from_bytes(posted.data, slot=posted.slot).head.body.sha256


def test_nothing_goes_before_its_time(store, operated):
    say(store, "ended", closed=True)
    before = lying(operated)
    assert collected(store, operated, after=20 * DAY_SECONDS).removed == 0
    assert lying(operated) == before


def test_a_body_that_an_unfinished_run_announces_too_stays(store, operated):
    say(store, "ended", closed=True)
    roster = store.parties.signed_roster.roster
    board = Board(store.mailbox("partner-a"), identity_of("partner-a"), roster, "unfinished")
    shared = board.post(Kind.MASKED, [f"{Kind.MASKED} of ended".encode()], contract="x@1")
    collected(store, operated)
    assert shared.sha256 in lying(operated)


def test_a_run_that_somebody_else_closes_is_not_closed(store, operated):
    say(store, "unfinished", closed=False)
    forger = store.operator("coordinator", identity=Identity("coordinator", b"\x77" * 32))
    Board(forger.mailbox, forger.identity, forger.roster, "unfinished").post_json(Kind.RUN_CLOSED, {})
    assert collected(store, operated).ended == ()
    assert collected(store, operated).removed == 0


def test_what_nobody_announced_goes_after_its_time(store, operated):
    reference = store.mailbox("partner-a").put_body([b"left by a broken connection"], contract="x@1")
    assert collected(store, operated, after=0).removed == 0
    assert collected(store, operated).removed == 1
    assert reference.sha256 not in lying(operated)


def test_a_message_of_an_older_version_keeps_the_body_that_it_names(parties, tmp_path):
    store = _DirectoryOnly(parties, tmp_path)
    say(store, "unfinished", closed=False)
    (posted,) = (each for each in store.below.envelopes() if each.slot.kind is Kind.RUN_ANSWER)
    envelope = Envelope.from_bytes(posted.data, slot=posted.slot)
    reference = store.below.put_body([envelope.body], contract="x@1")
    path = tmp_path / "messages" / "unfinished" / "r00000-a0" / "run-answer" / "partner-a.json"
    path.write_bytes(envelope.model_copy(update={"inline": None}).to_bytes())
    collect(store.below, roster=parties.signed_roster.roster, now=time.time() + LATER, keep_days=KEEP_DAYS)
    assert reference.sha256 in lying(store.below)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(closed=st.lists(st.booleans(), min_size=1, max_size=4), after=st.integers(0, 60))
def test_no_unfinished_run_loses_a_body_whatever_else_lies_there(parties, tmp_path_factory, closed, after):
    store = _DirectoryOnly(parties, tmp_path_factory.mktemp("collected"))
    for number, ends in enumerate(closed):
        say(store, f"run-{number}", closed=ends)
    collect(
        store.below,
        roster=parties.signed_roster.roster,
        now=time.time() + after * DAY_SECONDS,
        keep_days=KEEP_DAYS,
    )
    left = lying(store.below)
    for posted in store.below.envelopes():
        run_is_open = not closed[int(posted.slot.run_id.removeprefix("run-"))]
        # A body of exactly KEEP_DAYS is a moment older by the time of the collection.
        if run_is_open or posted.slot.kind not in APART_KINDS or after < KEEP_DAYS:
            inline = Envelope.from_bytes(posted.data, slot=posted.slot).inline
            assert inline is not None or _body(posted) in left


class _DirectoryOnly:
    def __init__(self, parties, root):
        self.parties, self.below = parties, DirectoryMailbox(root)

    def mailbox(self, _name):
        return self.below


def test_files_that_are_no_messages_are_left_alone(tmp_path, parties):
    mailbox = DirectoryMailbox(tmp_path)
    stray = tmp_path / "messages" / "run-1" / "notes.json"
    stray.parent.mkdir(parents=True)
    stray.write_text("{}")
    found = collect(mailbox, roster=parties.signed_roster.roster, now=time.time() + LATER, keep_days=1)
    assert found.removed == 0
    assert stray.exists()
    assert mailbox.read(Slot("run-1", 0, 0, Kind.PLAN, "coordinator")) is None
