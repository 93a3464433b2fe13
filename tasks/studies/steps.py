"""Prefect tasks of the studies: ``catalogue``, ``local-training`` and ``evaluation`` of one partner in one round.

Why: only the path of the contribution passes on, never an array. What is finished is known by a mark beside the files
themselves, not by Prefect's cache, which could outlive them (docs/decisions/0017). Runs: on the partner. Source: own.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from data_contracts.plan import RoundPlan
from tasks.local_training.jobs import Adapt, Centralised
from tasks.rounds.study import Study, compute_once
from tasks.studies.arms import train_once
from tasks.studies.catalogue import CATALOGUE
from tasks.studies.catalogue import PartnerInputs as CatalogueInputs
from tasks.studies.evaluation import EVALUATION
from tasks.studies.evaluation import PartnerInputs as EvaluationInputs
from tasks.studies.qsar_training import PartnerInputs as TrainingInputs
from tasks.studies.qsar_training import RunJob


@task(
    name="catalogue",
    task_run_name="r{plan.round:03d}/{partner}/catalogue",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def catalogue(partner: str, plan: RoundPlan, *, inputs: CatalogueInputs, directory: Path) -> str:
    """Mark the listed endpoints that the partner trains; leaves its contribution in ``directory``."""
    return await compute_once(CATALOGUE, plan, inputs, directory, who=partner)


@task(
    name="local-training",
    task_run_name="r{plan.round:03d}/{partner}/local-training",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def local_training(
    partner: str,
    plan: RoundPlan,
    *,
    study: Study[TrainingInputs, Any, Any],
    inputs: TrainingInputs,
    directory: Path,
) -> str:
    """Train a round's model on the partner's data; leaves its contribution in ``directory``."""
    return await compute_once(study, plan, inputs, directory, who=partner)


@task(
    name="evaluation",
    task_run_name="r{plan.round:03d}/{partner}/evaluation",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def evaluation(partner: str, plan: RoundPlan, *, inputs: EvaluationInputs, directory: Path) -> str:
    """Measure the partner's arms; leaves its contribution in ``directory``."""
    return await compute_once(EVALUATION, plan, inputs, directory, who=partner)


@task(
    name="local-training",
    task_run_name="{who}/{kind}/local-training",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def train_without_federation(
    who: str, kind: str, *, make_job: Callable[[], Centralised | Adapt], output: Path, run_job: RunJob
) -> str:
    """Train an arm beside the federation: alone, (in simulation only) pooled, or with a trunk of its own after it."""
    return await train_once(output, make_job, run_job=run_job, what=f"{who}/{kind}")
