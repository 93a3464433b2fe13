"""``motet verify round``: repeat a round from its messages and compare it with what was announced.

Why: whoever holds the mailbox need not believe the coordinator. Runs: where the mailbox can be read.
Source: own; ``tasks.rounds.verification``.
"""

import argparse
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

from data_contracts.errors import AgreementViolation, SettingsError
from flows.run_directory import RunDirectory
from flows.site_directory import ROSTER_RUN, open_site, visit_site
from flows.site_settings import role_at
from flows.sites import Site
from tasks.exchange.blob_store import BlobStore
from tasks.exchange.board import Board
from tasks.exchange.identity import Identity, Roster
from tasks.exchange.mailbox import DirectoryMailbox
from tasks.rounds.study import Study
from tasks.rounds.transcript import Transcript
from tasks.rounds.verification import FinishedRound, check_outcome, read_round, repeat_sum

READER = "reader"


def verify(arguments: argparse.Namespace) -> dict[str, Any]:
    """Verify one round of a run under this home."""
    board = _board(Path(arguments.home).resolve(), arguments.run)
    found = read_round(board, arguments.round)
    total = repeat_sum(found, identities=board.roster.partner_keys, workers=os.cpu_count() or 1)
    model = found.plan.model_in
    has_model = model is None or model in board.mailbox.blobs
    if has_model:
        with tempfile.TemporaryDirectory() as directory:
            store = _store_of_its_own(board, Path(directory))
            check_outcome(found, total, study=_study(found), inputs=store)
    return _say(found, outcome_repeated=has_model)


def fetch(arguments: argparse.Namespace) -> dict[str, Any]:
    """Copy the messages of a run, or of all runs, from the mailbox of a site's roster.

    Raises:
        SettingsError: If there is no such run.
    """
    copied = {}
    with visit_site(arguments.home) as site:
        listed = site.mailbox(copies=site.path / "received").runs()
        runs = [name for name in listed if not name.startswith(ROSTER_RUN)]
        if arguments.run is not None and arguments.run not in runs:
            raise SettingsError(
                f"there is no run '{arguments.run}' in the mailbox", advice=f"there: {', '.join(runs)}"
            )
        for name in runs if arguments.run is None else [arguments.run]:
            site.keep_roster_of(name, site.roster_of(name))
            found = Transcript(site.board(name), DirectoryMailbox(site.run(name).mailbox)).take()
            copied[name] = dataclasses.asdict(found)
            print(
                f"{name}: {found.rounds} rounds, {found.messages} new messages, {found.blob_bytes / 1e6:.1f} MB; "
                f"{found.missing} bodies are gone, {found.refused} messages refused"
            )
    return {"runs": copied}


def _board(home: Path, run_id: str) -> Board:
    """A reader's view of a run: on one machine of its own mailbox, at a site of the copy that was fetched."""
    run = RunDirectory(home / "runs" / run_id)
    is_site = role_at(home) is not None
    if not (run.mailbox if is_site else run.path / "run.json").exists():
        raise SettingsError(
            f"there is no run '{run_id}' under {home}",
            advice="copy it first: motet verify fetch" if is_site else "see `motet runs`",
        )
    if is_site:
        return open_site(home).copied_board(run_id)
    return Board(
        mailbox=DirectoryMailbox(run.mailbox),
        identity=Identity(READER, os.urandom(32)),
        roster=_roster(run),
        run_id=run.run_id,
    )


def _roster(run: RunDirectory) -> Roster:
    """The public keys of all sites: on one machine from the key files beside each other, elsewhere from the agreement."""
    names = sorted(path.name for path in (run.path / "partners").iterdir() if (path / "keys").is_dir())
    sites: list[Site] = [run.coordinator, *(run.partner(name) for name in names)]
    return Roster(
        coordinator=run.coordinator.name,
        public_keys={site.name: site.identity.public_key.hex() for site in sites},
    )


def _study(found: FinishedRound) -> Study[Any, BlobStore, dict[str, Any]]:
    from tasks.studies.catalogue import CATALOGUE
    from tasks.studies.evaluation import EVALUATION
    from tasks.studies.minibatch_training import QSAR_MINIBATCHES
    from tasks.studies.qsar_training import QSAR_TRAINING

    for study in (CATALOGUE, QSAR_TRAINING, QSAR_MINIBATCHES, EVALUATION):
        if study.name == found.plan.study:
            return study
    raise AgreementViolation(
        f"round {found.plan.round} belongs to a study that this installation does not have",
        advice="install the version of motet that the run was made with",
    )


def _store_of_its_own(board: Board, directory: Path) -> BlobStore:
    """All blobs of the mailbox under links, so that repeating a study reads them and writes nothing there."""
    store = BlobStore(directory)
    for blob in board.mailbox.blobs.root.iterdir():
        (directory / blob.name).symlink_to(blob)
    return store


def _say(found: FinishedRound, *, outcome_repeated: bool) -> dict[str, Any]:
    plan, names = found.plan, list(found.survivors)
    what = "its outcome is" if outcome_repeated else "its sum is"
    print(
        f"round {plan.round} of {plan.run_id}: {what} what its messages give, bit for bit\n"
        f"  {plan.study}, attempt {plan.attempt}, {len(names)} of {len(plan.cohort)} partners ({', '.join(names)}), "
        f"{found.n_bytes / 1e6:.1f} MB of masked vectors repeated"
    )
    if not outcome_repeated:
        print(
            "  what was made of the sum could not be repeated: the model it started from went when the run ended;\n"
            "  verify a training round while the run lasts"
        )
    return {
        "run": plan.run_id,
        "round": plan.round,
        "attempt": plan.attempt,
        "study": plan.study,
        "survivors": names,
        "masked_bytes": found.n_bytes,
        "sum_verified": True,
        "outcome_verified": outcome_repeated,
    }
