"""The vault: one root per attempt, erased when the attempt ends however it ends, and no core dumps meanwhile."""

import asyncio
import os
import resource
import signal
import subprocess
import sys

import pytest

from data_contracts.envelope import Kind
from data_contracts.errors import ProtocolError, TooFewPartners
from tasks.rounds.attempts import AttemptVault
from tasks.rounds.coordinator import publish_plan
from tasks.rounds.patience import Patience


def files(vault_directory, suffix):
    return sorted(path.name for path in vault_directory.glob(f"*.{suffix}"))


def test_the_first_of_two_kept_messages_stands(make_consortium, tmp_path):
    plan, vault = make_consortium(3).draft(), AttemptVault(tmp_path / "vault")
    assert vault.kept(plan, "shares") is None
    assert vault.keep(plan, "shares", b"one") == b"one"
    assert vault.keep(plan, "shares", b"two") == b"one"
    assert vault.kept(plan, "shares") == b"one"
    vault.end(plan)
    assert vault.kept(plan, "shares") is None


def test_roots_of_attempts_that_the_run_has_gone_past_are_erased(make_consortium, tmp_path):
    c, vault = make_consortium(3), AttemptVault(tmp_path / "vault")
    old = [c.draft(round_number=1), c.draft(round_number=2), c.draft(round_number=2, attempt=1)]
    elsewhere = c.draft(run_id="run-1-0b")  # a name that this run's name begins
    roots = [vault.root(plan) for plan in (elsewhere, *old)]
    assert len(set(roots)) == 4
    vault.root(c.draft(round_number=2, attempt=2))
    assert [vault.root(plan) for plan in old] == [None] * 3
    assert vault.root(elsewhere) == roots[0]
    kept = [path.read_bytes() for path in (tmp_path / "vault").iterdir() if path.is_file()]
    assert not any(root in kept for root in roots[1:])


def test_an_attempt_of_a_later_round_is_never_taken_for_an_earlier_one(make_consortium, tmp_path):
    c, vault = make_consortium(3), AttemptVault(tmp_path / "vault")
    later = vault.root(c.draft(round_number=10))
    assert vault.root(c.draft(round_number=9)) is not None
    assert vault.root(c.draft(round_number=10)) == later


def test_an_abandoned_attempt_leaves_no_root(make_consortium):
    c = make_consortium(4)
    outcomes = asyncio.run(c.play(c.draft(seconds=0.3), {name: [1, 2, 3] for name in c.partners[:2]}))
    assert all(isinstance(outcome, TooFewPartners) for outcome in outcomes)
    for name in c.partners[:2]:
        assert files(c.root / name / "attempts", "root") == []
        assert len(files(c.root / name / "attempts", "ended")) == 1


def test_the_vault_can_be_read_by_its_owner_only(make_consortium, tmp_path):
    plan, vault = make_consortium(3).draft(), AttemptVault(tmp_path / "vault")
    vault.root(plan)
    assert (tmp_path / "vault").stat().st_mode & 0o077 == 0
    (root,) = (tmp_path / "vault").glob("*.root")
    assert root.stat().st_mode & 0o077 == 0


CHILD = """
import os, pathlib, resource, sys
from data_contracts.plan import Lane, RoundPlan
from tasks.rounds.attempts import AttemptVault
most = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (most, most))
lane = Lane(name="counts", length=3, ring_bits=64, value_bits=48)
plan = RoundPlan(run_id="run-1", round=1, study="s", cohort=("a", "b", "c"), threshold=3, lanes=(lane,))
vault = AttemptVault(pathlib.Path("vault"))
root = vault.root(plan) if sys.argv[1] == "root" else None
print(resource.getrlimit(resource.RLIMIT_CORE)[0], flush=True)
os.abort()
"""


@pytest.mark.parametrize("holds", ["root", "nothing"])
def test_a_process_that_holds_a_root_leaves_no_core_dump(holds, tmp_path):
    """The limit is lowered the moment a root is read; a process that reads none keeps its own."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, holds],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},  # noqa: PTH109 - the checkout that this test runs in
    )
    said, _ = child.communicate()
    assert child.returncode == -signal.SIGABRT
    if holds == "root":
        assert int(said) in {0, 1}
        assert [path.name for path in tmp_path.iterdir()] == ["vault"]
    else:
        assert int(said) == resource.getrlimit(resource.RLIMIT_CORE)[1], "the child could have dumped"


@pytest.mark.parametrize(
    ("closing", "steps"),
    [
        (Kind.ADVERTS_CLOSED, (Kind.ADVERT,)),
        (Kind.SHARES_CLOSED, (Kind.ADVERT, Kind.SHARES)),
        (Kind.SURVIVORS, (Kind.ADVERT, Kind.SHARES, Kind.MASKED)),
    ],
)
def test_a_partner_that_is_left_out_of_a_phase_erases_its_root_at_once(make_consortium, closing, steps):
    c = make_consortium(4)
    board, left_out = c.boards["coordinator"], c.partners[-1]
    plan = publish_plan(board, c.draft())
    others = {"senders": sorted(c.partners[:-1])}
    everybody = {"senders": sorted(c.partners)}

    async def lead():
        """Close the phases before with everybody, this one without the last, then fall silent."""
        for kind, closes in zip(
            steps, (Kind.ADVERTS_CLOSED, Kind.SHARES_CLOSED, Kind.SURVIVORS), strict=False
        ):
            for name in c.partners:
                patience = Patience(20.0, last_look_seconds=0.01)
                assert await patience.until(lambda kind=kind, name=name: board.read(kind, name, plan=plan))
            board.post_json(closes, others if closes is closing else everybody, plan=plan)

    async def play():
        parts = [c.take_part(name, plan, [1, 2, 3], patience=Patience(2.0)) for name in c.partners]
        return await asyncio.gather(lead(), *parts, return_exceptions=True)

    outcomes = asyncio.run(play())
    assert all(isinstance(outcome, ProtocolError) for outcome in outcomes[1:])  # nobody heard an outcome
    assert files(c.root / left_out / "attempts", "root") == []
    assert len(files(c.root / left_out / "attempts", "ended")) == 1
    assert files(c.root / c.partners[0] / "attempts", "root") != []
