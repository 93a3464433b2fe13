"""A partner's part in a run, from its files to its own registered model.

Why: read top to bottom, this is all that ever happens inside a partner's firewall.
Runs: on the partner. Source: own.
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.envelope import Kind
from data_contracts.errors import AgreementViolation, ProtocolError
from data_contracts.plan import Modality, RoundPlan, threshold_for
from data_contracts.references import BlobReference
from flows.earlier_runs import bring_calibrations
from flows.leaving import leave_round, leave_training
from flows.partner_work import (
    TRAINING,
    Partner,
    arms_of,
    compare_preparation,
    find_places,
    is_shown,
    score_held_out,
    train_alone,
    work_on,
)
from tasks.evaluation.metric_tables import selection_of
from tasks.evaluation.score_tables import CALIBRATION
from tasks.featurization.steps import featurization
from tasks.rounds.partner import Contributor, next_plan
from tasks.rounds.patience import Patience
from tasks.rounds.steps import secure_aggregation, unwalked
from tasks.studies.catalogue import CATALOGUE
from tasks.studies.evaluation import ADAPTED, EVALUATION, Arm
from tasks.studies.phases import MEASURED
from tasks.studies.training_parameters import TrainingParameters

WORKERS = max(1, (os.cpu_count() or 1) // 2)
WAIT_FOR_COORDINATOR_SECONDS = 6 * 3600.0


@dataclass(frozen=True)
class PartOutcome:
    """How a partner's part ended.

    Attributes:
        best_round: The round whose trunk the consortium chose.
        parameters: Of the training.
        arms: The partner's models by arm.
        scores: Directory with the tables of each arm on the test fold; None if the run's phase tests nothing.
        registered: Which arm is the partner's model: ``federated``, or ``adapted`` where that is better on the
            validation fold.
        validation: The partner's own figure on its validation fold, ``metrics.selection_value``; None without one.
    """

    best_round: int
    parameters: TrainingParameters
    arms: dict[str, Arm]
    scores: Path | None
    registered: str
    validation: float | None


async def take_part(partner: Partner) -> PartOutcome:
    """Take part in a run: prepare the data once, answer every round, keep the chosen model.

    Raises:
        MotetError: If the run cannot go on; finished work is kept, and the same call resumes it.
    """
    await featurization(
        partner.site.name,
        files=partner.files,
        rules=partner.rules,
        secret=partner.site.secret_path("consortium_secret"),
        output=partner.prepared,
        workers=WORKERS,
        executor=partner.executor,
    )
    contributor = Contributor(
        board=partner.board,
        vault=partner.site.vault,
        rounding_key=partner.site.key("rounding"),
        patience=Patience(WAIT_FOR_COORDINATOR_SECONDS),
        min_threshold=threshold_for(len(partner.board.roster.partners)),
    )
    trunks: dict[int, BlobReference] = {}
    async with asyncio.TaskGroup() as background:
        alone: asyncio.Task[Arm] | None = None
        round_number, plan, tested, parameters = 0, None, False, None
        prepared = compare_preparation(partner)
        while (
            found := await next_plan(partner.board, round_number, patience=contributor.patience)
        ) is not None:
            plan = found
            partner.accept(plan)
            await prepared.compare(plan, wait=plan.round == 0 and not contributor.is_over(plan))
            tested = _demand_one_test(plan, tested)
            if plan.study in TRAINING:
                parameters = _same_run(TRAINING[plan.study].parameters_of(plan), parameters, plan)
                _demand_phase_before(partner, parameters)
                if parameters.phase != "final":
                    alone = alone or background.create_task(train_alone(partner, plan))
            directory = partner.round_directory(plan.round)
            if _is_test(plan) or not contributor.is_over(plan):  # its own figures a late partner wants too
                await work_on(partner, plan, alone, directory=directory)
            outcome = await _aggregate(partner, plan, directory, contributor=contributor)
            if plan.study == CATALOGUE.name:
                await find_places(partner, plan, outcome)
            if plan.study in TRAINING:
                trunks[plan.round] = BlobReference.model_validate(outcome["trunk"])
            leave_round(partner, plan, outcome, parameters)
            round_number += 1
    if plan is None or parameters is None or not trunks:
        raise ProtocolError(f"'{partner.board.roster.coordinator}' closed the run before its first round")
    return await _finished(partner, plan, parameters, alone=alone, trunks=trunks)


def _same_run(
    parameters: TrainingParameters, before: TrainingParameters | None, plan: RoundPlan
) -> TrainingParameters:
    """Check that a run keeps its phase and what it rests on from plan to plan."""
    names = ("phase", "rounds_from", "warm_start", "search", "modality")
    if before is not None and any(getattr(parameters, name) != getattr(before, name) for name in names):
        raise AgreementViolation(
            f"the plan of round {plan.round} belongs to another phase or start than its run"
        )
    return parameters


def _demand_phase_before(partner: Partner, parameters: TrainingParameters) -> None:
    """A report rests on the partner's own part in its tuning run, a final model on that in its report."""
    if parameters.phase == "report":
        partner.earlier.demand(parameters.rounds_from, phase="tune")
    elif parameters.phase == "final":
        partner.earlier.demand(parameters.rounds_from, phase="report")


async def _aggregate(
    partner: Partner, plan: RoundPlan, directory: Path, *, contributor: Contributor
) -> dict[str, Any]:
    """Take part in a round's secure sum; among thousands of minibatches only those that are scored are Prefect tasks."""
    if is_shown(plan):
        outcome: dict[str, Any] = await secure_aggregation(
            partner.site.name, unwalked(plan), directory, contributor=unwalked(contributor)
        )
        return outcome
    return await contributor.contribute(plan, directory)


async def _finished(
    partner: Partner,
    plan: RoundPlan,
    parameters: TrainingParameters,
    *,
    alone: asyncio.Task[Arm] | None,
    trunks: dict[int, BlobReference],
) -> PartOutcome:
    """What the partner has once the coordinator has closed the run after a last plan."""
    leave_training(partner)
    best = _best_round(partner, trunks)
    is_tested = _is_test(plan)
    if is_tested:
        arms = await arms_of(partner, plan, alone)
    else:
        head = partner.demand_head(after_round=best)
        arms = {"federated": Arm(trunk=partner.trunk(trunks[best]), head=head, places=partner.places)}
        if alone is not None:
            arms["single"] = await alone
        if partner.pooled is not None and parameters.phase == "tune":
            arms["pooled"] = await partner.pooled()
    scores = partner.round_directory(plan.round) if is_tested else None
    if parameters.phase == "tune":
        await score_held_out(partner, arms)
    elif parameters.phase == "report" and scores is not None:
        tuned, _ = partner.earlier.demand(parameters.rounds_from, phase="tune")
        bring_calibrations(scores, arms=tuple(arms), tuned=tuned, site=partner.site)
    registered, validation = "federated", None
    if "validation" in MEASURED[parameters.phase]:
        validation = _validation(partner, best, parameters.modality)
    if scores is not None and ADAPTED in arms:
        adapted = selection_of(scores / ADAPTED / CALIBRATION, parameters.modality)
        if adapted is not None and adapted > (validation or 0.0):
            registered, validation = ADAPTED, adapted
    return PartOutcome(
        best_round=best,
        parameters=parameters,
        arms=arms,
        scores=scores,
        registered=registered,
        validation=validation,
    )


def _best_round(partner: Partner, trunks: dict[int, BlobReference]) -> int:
    """The round that the coordinator chose, by its closing message.

    Raises:
        ProtocolError: If that names no round of this run with the model that its outcome announced.
    """
    coordinator = partner.board.roster.coordinator
    message = partner.board.read(Kind.RUN_CLOSED, coordinator)
    said = message.json() if message is not None else {}
    best = said.get("best_round") if isinstance(said, dict) else None
    if not isinstance(best, int) or best not in trunks or said.get("trunk") != trunks[best].model_dump():
        raise ProtocolError(f"'{coordinator}' closed the run with a model that is none of its rounds'")
    return best


def _demand_one_test(plan: RoundPlan, tested: bool) -> bool:  # noqa: FBT001 - private
    """Answer one test evaluation a run: two over other cohorts would differ by one partner's figures.

    Returns:
        Whether the run has had its test, this plan included.
    """
    if _is_test(plan) and tested:
        raise AgreementViolation(
            f"the plan of round {plan.round} asks for a second test of the run; one is granted"
        )
    return tested or _is_test(plan)


def _is_test(plan: RoundPlan) -> bool:
    return plan.study == EVALUATION.name and plan.parameters.get("split") == "test"


def _validation(partner: Partner, best_round: int, modality: Modality) -> float | None:
    """The partner's figure for the chosen trunk, scored in the round after it stood; None if it missed that round."""
    directory = partner.round_directory(best_round + 1)
    table = "regression_metrics.arrow" if modality == "regression" else "metrics.arrow"
    for scored in (directory / "validation", directory / "federated"):
        if (scored / table).exists():
            return selection_of(scored, modality)
    return None
