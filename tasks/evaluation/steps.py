"""Prefect task of a partner's own report.

Why: the report is written in one go and always anew, so Prefect keeps no result.
Runs: on the partner. Source: own.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from data_contracts.plan import Modality
from tasks.evaluation.whole_report import report_of


@task(
    name="evaluation",
    task_run_name="{partner}/report/evaluation",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def partner_report(
    partner: str,
    scores: Path,
    *,
    arms: Sequence[str],
    modality: Modality,
    prepared: Path,
    output: Path,
    seed: int,
    simulated_assays: bool,
) -> str:
    """Compare the partner's arms; the figures stay in its directory."""
    await asyncio.to_thread(
        report_of,
        scores,
        arms=arms,
        modality=modality,
        partner=partner,
        prepared=prepared,
        output=output,
        seed=seed,
        simulated_assays=simulated_assays,
    )
    return output.name
