"""The arms that a federation is compared with: trained once, by one party, without any round.

Why: they start when the first model is published and may end after it was discarded, so what a finished one needs is
only itself. Runs: on the partner, or on one machine for the pooled arm. Source: own.
"""

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from data_contracts.canonical_json import canonical_bytes
from tasks.evaluation.metrics import selection_value
from tasks.exchange.durable_files import replace_whole
from tasks.local_training.jobs import Adapt, Centralised, CentralisedResult, TrainingSettings
from tasks.studies.qsar_training import RunJob

COMPLETE = "complete.json"


class TrainedArm(BaseModel):
    """How an arm was trained, for its owner's eyes.

    Attributes:
        best_epoch: The epoch whose parameters were kept.
        auprc: Its mean validation AUPRC, or what chooses where numbers are learnt; None if nothing counted, or no fold was held out.
        settings: What it was trained with.
        learning_rate_decay: Factor on the learning rate.
        decay_epochs: Epochs at one rate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    best_epoch: int
    auprc: float | None
    settings: TrainingSettings
    learning_rate_decay: float
    decay_epochs: int


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
        job = make_job()
        result: CentralisedResult = await run_job(job)
        figures = {
            epoch.epoch: selection_value(epoch.validation.model_dump(), job.modality)
            for epoch in result.history
        }
        record = TrainedArm(
            best_epoch=result.best_epoch,
            auprc=figures.get(result.best_epoch),
            settings=job.settings,
            learning_rate_decay=job.learning_rate_decay,
            decay_epochs=job.decay_epochs,
        )
        replace_whole(output / COMPLETE, [canonical_bytes(record.model_dump(mode="json"))])
    return what


def trained_arm(output: Path) -> TrainedArm | None:
    """How an arm was trained that lies complete in a directory; None if none does."""
    try:
        return TrainedArm.model_validate_json((output / COMPLETE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
