"""The arms that a federation is compared with: trained once, by one party, without any round.

Why: they start when the first model is published and may end after it was discarded, so what a finished one needs is
only itself. Runs: on the partner, or on one machine for the pooled arm. Source: own.
"""

from collections.abc import Callable
from pathlib import Path

from data_contracts.canonical_json import canonical_bytes
from tasks.exchange.durable_files import replace_whole
from tasks.local_training.jobs import Adapt, Centralised, CentralisedResult
from tasks.studies.qsar_training import RunJob

COMPLETE = "complete.json"


async def train_once(
    output: Path, make_job: Callable[[], Centralised | Adapt], *, run_job: RunJob, what: str
) -> str:
    """Train an arm unless it lies there complete.

    Args:
        output: Its directory.
        make_job: Makes the job; called only if there is something to do, because it opens the first model.
        run_job: Runs the job in a training child.
        what: Name of the arm.

    Returns:
        The name.
    """
    if not (output / COMPLETE).exists():
        result: CentralisedResult = await run_job(make_job())
        replace_whole(output / COMPLETE, [canonical_bytes({"best_epoch": result.best_epoch})])
    return what
