"""The same rounds without any mishap: in one process, with the same secrets, and with the cohorts that were committed."""

import asyncio
from pathlib import Path
from unittest.mock import patch

from data_contracts.envelope import Kind
from flows.site_directory import open_site
from tasks.exchange.board import Board
from tasks.exchange.identity import Identity, Roster
from tasks.exchange.mailbox import DirectoryMailbox
from tasks.local_training.training import train
from tasks.rounds import coordinator as coordinator_module
from tasks.rounds.attempts import AttemptVault
from tasks.rounds.committed import latest_plan
from tasks.rounds.coordinator import conduct
from tasks.rounds.partner import Contributor
from tasks.rounds.patience import Patience
from tasks.studies import catalogue as catalogue_study
from tasks.studies import qsar_training as training_study
from tests.chaos.parties import PARTIES, Parties

WAIT_FOR_THE_ABSENT_SECONDS = 1.5
STUDIES = {one.name: one for one in (catalogue_study.CATALOGUE, training_study.QSAR_TRAINING)}


async def run_job(job):
    return await asyncio.to_thread(train, job)


def committed_rounds(parties: Parties, run_id: str) -> list:
    """Plan and outcome of every finished round before the evaluations."""
    board = open_site(parties.home("coordinator")).board(run_id)
    rounds = []
    while True:
        _, plan = latest_plan(board, len(rounds))
        if plan is None or plan.study not in STUDIES:
            return rounds
        result = board.read(Kind.RESULT, "coordinator", plan=plan)
        if result is None:
            return rounds
        rounds.append((plan, result.json(), board))


def undisturbed_outcomes(parties: Parties, run_id: str, scratch: Path) -> list:
    """(announced, undisturbed) outcomes round by round; the first model is the plan's, all others are made here."""
    rounds = committed_rounds(parties, run_id)
    return asyncio.run(_all(parties, run_id, rounds, scratch))


async def _all(parties, run_id, rounds, scratch):
    identities = {name: Identity(name, bytes([i + 1]) * 32) for i, name in enumerate(PARTIES)}
    roster = Roster(
        coordinator="coordinator",
        public_keys={name: one.public_key.hex() for name, one in identities.items()},
    )
    mailbox = DirectoryMailbox(scratch / "mailbox")
    boards = {
        name: Board(mailbox=mailbox, identity=one, roster=roster, run_id=run_id)
        for name, one in identities.items()
    }
    counted_last: dict[str, Path] = {}
    compared = []
    for plan, announced, board in rounds:
        if plan.round < 2:  # public: the list of endpoints, and the first model
            source = board.mailbox.blobs.open(plan.model_in, who="coordinator")
            mailbox.blobs.put([source], contract=plan.model_in.contract)
        counted = announced["survivors"]
        with patch.object(coordinator_module, "Patience", _impatient(plan, counted)):
            outcome = await _round(
                parties, run_id, plan, counted, boards=boards, counted_last=counted_last, scratch=scratch
            )
        compared.append((announced, outcome))
        if outcome != announced:
            return compared
    return compared


def _impatient(plan, counted):
    """The plan's digest decides the rounding, so the plan stays as it was; but nobody who will not come is waited for."""
    seconds = 60.0 if len(counted) == len(plan.cohort) else WAIT_FOR_THE_ABSENT_SECONDS
    return lambda deadline_seconds: Patience(min(deadline_seconds, seconds))


async def _round(parties, run_id, plan, counted, *, boards, counted_last, scratch):
    study = STUDIES[plan.study]
    blobs = boards["coordinator"].mailbox.blobs
    work = {}
    for name in counted:  # all have computed before the round begins, so that only the absent are waited for
        site = open_site(parties.home(name)).in_run(run_id)
        directory = scratch / name / f"r{plan.round}"
        directory.mkdir(parents=True)
        if plan.study == catalogue_study.CATALOGUE.name:
            inputs = catalogue_study.PartnerInputs(dataset=site.prepared, blobs=blobs)
        else:
            last = counted_last.get(name)
            inputs = training_study.PartnerInputs(
                name=name,
                dataset=site.prepared,
                trunk=blobs.path(plan.model_in),
                places=site.root / "places.npy",
                head=last and last / "head.safetensors",
                optimizer=last and last / "optimizer.safetensors",
                seed=site.seed,
                run_job=run_job,
            )
        await study.compute(plan, inputs, directory)
        if (directory / "head.safetensors").exists():
            counted_last[name] = directory
        work[name] = (site, directory)

    async def contribute(name):
        site, directory = work[name]
        contributor = Contributor(
            board=boards[name],
            vault=AttemptVault(scratch / name / "attempts"),
            rounding_key=site.key("rounding"),
            patience=Patience(120.0),
        )
        return await contributor.contribute(plan, directory)

    coordinator = boards["coordinator"]
    coordinator.post_json(Kind.PLAN, plan.model_dump(mode="json"), plan=plan)
    outcome, *_ = await asyncio.gather(
        conduct(coordinator, plan, study=study, inputs=blobs), *(contribute(name) for name in counted)
    )
    return outcome


def differences(compared: list) -> list[str]:
    """Where an announced outcome is not the undisturbed one."""
    return [
        f"round {number}: {sorted(key for key in announced if announced[key] != outcome.get(key))}"
        for number, (announced, outcome) in enumerate(compared)
        if announced != outcome
    ]
