"""Prefect tasks of the round engine: what a person sees as ``secure-aggregation``.

Why: one task per party and round; the phases inside are messages, not tasks. A finished round is found in the
mailbox, so Prefect keeps no result. Runs: on every site. Source: own.
"""

from pathlib import Path
from typing import Any, TypeVar, cast

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

from data_contracts.plan import RoundPlan
from tasks.exchange.board import Board
from tasks.rounds.coordinator import conduct
from tasks.rounds.partner import Contributor
from tasks.rounds.study import Study

Value = TypeVar("Value")


def unwalked(value: Value) -> Value:
    """Hand a value to a task without Prefect's walk through all that it holds, in search of futures."""
    return cast("Value", quote(value))


@task(
    name="secure-aggregation",
    task_run_name="r{plan.round:03d}/{partner}/secure-aggregation",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def secure_aggregation(
    partner: str, plan: RoundPlan, contribution: Path, *, contributor: Contributor
) -> dict[str, Any]:
    """Mask a partner's contribution, help to unmask the sum, and return the round's public outcome."""
    del partner  # it names the task run
    return await contributor.contribute(plan, contribution)


@task(
    name="secure-aggregation",
    task_run_name="r{plan.round:03d}/coordinator/secure-aggregation",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def open_sum(
    plan: RoundPlan, *, board: Board, study: Study[Any, Any, dict[str, Any]], inputs: Any
) -> dict[str, Any]:
    """Relay the phases, open the sum of the survivors, combine it, and announce the outcome."""
    return await conduct(board, plan, study=study, inputs=inputs)
