"""``motet verify round`` over a real run directory: it repeats, it finds out, and it changes nothing."""

import asyncio
import json
from datetime import UTC, datetime

import numpy as np
import pytest

from data_contracts.envelope import Kind
from data_contracts.plan import RoundPlan
from flows.cli import main
from flows.run_directory import create_run
from flows.settings import RunSettings
from tasks.exchange.identity import Roster
from tasks.rounds.coordinator import conduct, publish_plan
from tasks.rounds.partner import Contributor
from tasks.rounds.patience import Patience
from tasks.rounds.study import Study, write_contribution
from tasks.studies.evaluation import EVALUATION, EvaluationParameters, lanes

NAMES = ("partner-a", "partner-b", "partner-c", "partner-d")
PARAMETERS = EvaluationParameters(split="validation", after_round=1, arms=1)


def exaggerated(plan, total, blobs):
    """A coordinator that improves the consortium's figures a little."""
    outcome = EVALUATION.combine(plan, total, blobs)
    return outcome | {"metrics": {name: value + 0.01 for name, value in outcome["metrics"].items()}}


@pytest.fixture
def play(tmp_path):
    """Play one evaluation round in a run directory, with the given way to combine; returns the run."""

    def played(combine=EVALUATION.combine):
        run = create_run(
            tmp_path, settings=RunSettings(), now=datetime(2026, 11, 25, tzinfo=UTC), run_id="run-1"
        )
        sites = [run.coordinator, *map(run.partner, NAMES)]
        roster = Roster(
            coordinator="coordinator", public_keys={s.name: s.identity.public_key.hex() for s in sites}
        )
        boards = {s.name: s.board(mailbox=run.mailbox, roster=roster, run_id="run-1") for s in sites}
        leading = boards["coordinator"]
        model = leading.mailbox.put_body([b"a trunk"], contract="trunk@1")
        draft = RoundPlan(
            run_id="run-1", round=1, study="evaluation", cohort=NAMES, threshold=3, lanes=lanes(PARAMETERS),
            model_in=model, parameters=PARAMETERS.model_dump(), deadline_seconds=10,
        )  # fmt: skip
        plan = publish_plan(leading, draft)
        study = Study("evaluation", EVALUATION.accept, EVALUATION.compute, combine)

        async def take_part(name):
            directory = tmp_path / name
            write_contribution(directory, {lane.name: np.full(lane.length, 2**20) for lane in plan.lanes})
            vault = run.partner(name).vault
            contributor = Contributor(boards[name], vault, bytes(32), Patience(10.0))
            await contributor.contribute(plan, directory)

        async def everybody():
            await asyncio.gather(
                conduct(leading, plan, study=study, inputs=leading.mailbox.blobs), *map(take_part, NAMES)
            )

        asyncio.run(everybody())
        return run, leading, plan

    return played


def verify(run, capsys, number=1):
    code = main(["verify", "round", run.run_id, str(number), "--home", str(run.home), "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out.splitlines()[-1]), said


def test_an_honest_round_is_repeated_to_its_outcome(play, capsys):
    run, _, _ = play()
    before = {path: path.read_bytes() for path in run.mailbox.rglob("*") if path.is_file()}
    code, outcome, said = verify(run, capsys)
    assert code == 0
    assert outcome["sum_verified"]
    assert outcome["outcome_verified"]
    assert outcome["survivors"] == list(NAMES)
    assert "bit for bit" in said.out
    assert {path: path.read_bytes() for path in run.mailbox.rglob("*") if path.is_file()} == before


def test_a_coordinator_that_improves_the_figures_is_found_out(play, capsys):
    run, _, _ = play(exaggerated)
    code, refusal, _ = verify(run, capsys)
    assert code == 6
    assert refusal["error"] == "UpdateMismatch"
    assert "fields that differ: metrics" in refusal["message"]


def test_without_the_model_the_sum_alone_is_verified_and_that_is_said(play, capsys):
    run, board, plan = play(exaggerated)
    board.mailbox.blobs.discard(plan.model_in)
    code, outcome, said = verify(run, capsys)
    assert code == 0
    assert outcome["sum_verified"]
    assert not outcome["outcome_verified"]
    assert "could not be repeated" in said.out


def test_a_forged_confirmation_is_named(play, capsys):
    run, _board, _plan = play()
    slot = run.mailbox / "messages" / "run-1" / "r00001-a0" / Kind.CONFIRMATION.value
    (slot / "partner-b.json").write_bytes((slot / "partner-c.json").read_bytes())
    code, refusal, _ = verify(run, capsys)
    assert code == 6
    assert "'partner-b'" in refusal["message"]


@pytest.mark.parametrize(("name", "number"), [("run-1", 2), ("run-9", 1)])
def test_what_is_not_there_is_refused_with_advice(play, capsys, name, number):
    run, _, _ = play()
    code = main(["verify", "round", name, str(number), "--home", str(run.home)])
    assert code == 2
    assert "motet runs" in capsys.readouterr().err
