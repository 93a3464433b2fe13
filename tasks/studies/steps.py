"""Prefect tasks of the studies: ``local-training`` and ``evaluation`` of one partner in one round.

Why: only the path of the contribution passes on, never an array; a finished contribution is found again.
Runs: on the partner. Source: own.
"""

from pathlib import Path
from typing import Any

from prefect import task

from data_contracts.plan import RoundPlan
from tasks.exchange.cache_keys import cache_key
from tasks.local_training.jobs import Centralised, CentralisedResult
from tasks.studies.catalogue import CATALOGUE
from tasks.studies.catalogue import PartnerInputs as CatalogueInputs
from tasks.studies.evaluation import EVALUATION
from tasks.studies.evaluation import PartnerInputs as EvaluationInputs
from tasks.studies.qsar_training import QSAR_TRAINING, RunJob
from tasks.studies.qsar_training import PartnerInputs as TrainingInputs

PER_ROUND = cache_key("2", "partner", "plan")
PER_RUN = cache_key("3", "run_id", "who")  # a run keeps its settings; the job holds private seeds


@task(
    name="catalogue",
    task_run_name="r{plan.round:03d}/{partner}/catalogue",
    tags=["partner", "stage:local-training"],
    cache_key_fn=PER_ROUND,
    persist_result=True,
    result_serializer="json",
)
async def catalogue(partner: str, plan: RoundPlan, *, inputs: CatalogueInputs, directory: Path) -> str:
    """Mark the listed endpoints that the partner trains; leaves its contribution in ``directory``."""
    del partner
    await CATALOGUE.compute(plan, inputs, directory)
    return directory.name


@task(
    name="local-training",
    task_run_name="r{plan.round:03d}/{partner}/local-training",
    tags=["partner", "stage:local-training"],
    cache_key_fn=PER_ROUND,
    persist_result=True,
    result_serializer="json",
)
async def local_training(partner: str, plan: RoundPlan, *, inputs: TrainingInputs, directory: Path) -> str:
    """Train a round's trunk on the partner's data; leaves its contribution in ``directory``."""
    del partner
    await QSAR_TRAINING.compute(plan, inputs, directory)
    return directory.name


@task(
    name="evaluation",
    task_run_name="r{plan.round:03d}/{partner}/evaluation",
    tags=["partner", "stage:evaluation"],
    cache_key_fn=PER_ROUND,
    persist_result=True,
    result_serializer="json",
)
async def evaluation(partner: str, plan: RoundPlan, *, inputs: EvaluationInputs, directory: Path) -> str:
    """Measure the partner's arms; leaves its contribution in ``directory``."""
    del partner
    await EVALUATION.compute(plan, inputs, directory)
    return directory.name


@task(
    name="local-training",
    task_run_name="{who}/{job.kind}/local-training",
    tags=["stage:local-training"],
    cache_key_fn=PER_RUN,
    persist_result=True,
    result_serializer="json",
)
async def train_without_federation(
    run_id: str, who: str, job: Centralised, *, run_job: RunJob
) -> dict[str, Any]:
    """Train the arm that the federation is compared with: alone, or (in simulation only) pooled."""
    del run_id, who
    result: CentralisedResult = await run_job(job)
    return {"best_epoch": result.best_epoch}
