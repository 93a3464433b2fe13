"""One coordinator leads a run: a second one, started by mistake from a copy of the site, is refused by name.

Why: two that hold the same keys can equivocate only; the first word stands, and the second would fail somewhere in
the middle without saying why. Runs: on the coordinator. Source: own; the first claim in the mailbox wins.
"""

import hmac
import json
from pathlib import Path

from data_contracts.envelope import Kind
from data_contracts.errors import Equivocation, SettingsError
from flows.run_directory import RunDirectory
from flows.site_directory import ROSTER_RUN, SiteDirectory
from tasks.exchange.board import Board
from tasks.exchange.durable_files import replace_whole

MACHINE = Path("/etc/machine-id")
TAKEN_OVER = "taken-over.json"


def mark_of(home: SiteDirectory) -> str:
    """What tells this directory on this machine from a copy elsewhere; it says nothing to anybody else."""
    machine = MACHINE.read_bytes() if MACHINE.exists() else b""
    key = home.in_run("").key("leadership")
    return hmac.digest(key, machine + b"\x00" + str(home.path).encode(), "sha256").hex()


def take_over(home: SiteDirectory, run: RunDirectory) -> None:
    """Note that a person says: whatever led this run before has ended."""
    replace_whole(run.path / TAKEN_OVER, [json.dumps({"mark": mark_of(home)}).encode()])


def claim_run(home: SiteDirectory, board: Board) -> None:
    """Lead a run from here, unless a copy of this site leads one.

    Args:
        home: The coordinator's site.
        board: Of the run.

    Raises:
        SettingsError: If a run that is not closed is led from another machine or directory.
    """
    mark = mark_of(home)
    if _was_taken_over(home, board.run_id, mark):
        return
    for run_id in board.mailbox.runs():
        if not run_id.startswith(ROSTER_RUN) and run_id != board.run_id:
            _demand_led_from_here(home.board(run_id), mark)
    try:
        board.post_json(Kind.RUN_LEADER, {"mark": mark})
    except Equivocation:
        _demand_led_from_here(board, mark)


def _was_taken_over(home: SiteDirectory, run_id: str, mark: str) -> bool:
    try:
        noted = json.loads((home.run(run_id).path / TAKEN_OVER).read_bytes())
    except FileNotFoundError:
        return False
    return bool(noted == {"mark": mark})


def _demand_led_from_here(board: Board, mark: str) -> None:
    coordinator = board.roster.coordinator
    if board.was_said(Kind.RUN_CLOSED, coordinator) or not board.was_said(Kind.RUN_LEADER, coordinator):
        return
    found = board.read(Kind.RUN_LEADER, coordinator)
    if found is not None and found.json() != {"mark": mark}:
        raise SettingsError(
            f"'{coordinator}' leads run '{board.run_id}' from another machine or directory already",
            advice="let that one go on; or make sure that it has ended, and repeat this command with --take-over",
        )
