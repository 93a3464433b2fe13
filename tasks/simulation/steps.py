"""Prefect task that finds or makes the simulated companies of a run.

Why: a dataset is published in one step under a name that says its recipe, so Prefect keeps no result.
Runs: on one machine. Source: own.
"""

import asyncio
import logging
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.simulation.datasets import SimulatedDataset, open_dataset, permuted_dataset
from tasks.simulation.embedded import build_embedded_dataset

logger = logging.getLogger("motet")
EMBEDDED = "embedded"


@task(name="simulation", task_run_name="simulated-companies", cache_policy=NO_CACHE, persist_result=False)
async def simulated_companies(
    data: str, *, partners: int, seed: int, permuted: bool, directory: Path
) -> SimulatedDataset:
    """Open an imported dataset, or build the embedded one: real molecules, simulated assays."""
    logger.info("companies: opening the data set '%s'", EMBEDDED if data == EMBEDDED else Path(data).name)
    if data == EMBEDDED:
        return await asyncio.to_thread(
            build_embedded_dataset, directory, partners=partners, seed=seed, permuted=permuted
        )
    dataset = open_dataset(Path(data))
    return await asyncio.to_thread(permuted_dataset, dataset, directory=directory) if permuted else dataset
