"""Training jobs in child processes, one per core at a time.

Why: a site and a whole simulated consortium share their cores in the same way. Runs: on the partner.
Source: own.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tasks.local_training.jobs import Machine, TrainingJob, TrainingResult
from tasks.local_training.worker_process import TrainingProcess
from tasks.studies.qsar_training import RunJob

JOB_TIMEOUT_SECONDS = 3600.0


@asynccontextmanager
async def training_children(machine: Machine) -> AsyncIterator[RunJob]:
    """Run training jobs in child processes on a partner's machine, one per core at a time."""
    free_cores = asyncio.Semaphore(os.cpu_count() or 1)
    async with TrainingProcess(machine=machine) as training:

        async def run_job(job: TrainingJob) -> TrainingResult:
            async with free_cores:
                return await training.run(job, timeout_seconds=JOB_TIMEOUT_SECONDS)

        yield run_job
