"""Prefect task of featurization.

Why: the prepared directory itself remembers from which files and rules it was made, so Prefect keeps no result.
Runs: on the partner. Source: own.
"""

import asyncio
import logging
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.exchange.identity import secret_file
from tasks.featurization.executors import Executor, answer_block
from tasks.featurization.preparation import PartnerFiles, Progress, prepare_dataset
from tasks.featurization.preparation_rules import PreparationRules

logger = logging.getLogger("motet")
TELL_TIMES = 4


@task(
    name="featurization",
    task_run_name="{partner}/featurization",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def featurization(
    partner: str,
    *,
    files: PartnerFiles,
    rules: PreparationRules,
    secret: Path,
    output: Path,
    workers: int,
    executor: Executor | None = None,
) -> str:
    """Prepare a partner's files; bad rows stay in its quarantine. The secret is read from its file, here only."""
    await asyncio.to_thread(
        prepare_dataset,
        files,
        rules=rules,
        consortium_secret=secret_file(secret),
        output=output,
        workers=workers,
        executor=executor,
        progress=_progress_of(partner),
    )
    return output.name


@task(
    name="featurization-block",
    task_run_name="featurization/{block}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def featurization_block(directory: str, block: str) -> None:
    """Featurize one block of structures, on whatever machine of the partner's cluster this is."""
    await asyncio.to_thread(answer_block, Path(directory), block)


def _progress_of(partner: str) -> Progress:
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if done * TELL_TIMES // max(total, 1) > told:
            told = done * TELL_TIMES // max(total, 1)
            logger.info("%s: %d of %d structures featurized", partner, done, total)

    return tell
