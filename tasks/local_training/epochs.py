"""What every training job goes by: its rows, batches, scale of the loss, validation after an epoch, and its cost.

Why: a round, training alone and growing a trunk of one's own differ in what they train, not in how an epoch runs.
Runs: on the partner, in the training child. Source: own.
"""

import itertools
import resource
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from data_contracts.errors import ContractViolation
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import Adapt, Centralised, Epoch, Means, TrainingSettings, Usage
from tasks.local_training.learner import Learner
from tasks.local_training.parameters import Parameters
from tasks.local_training.scoring import measure_all, predict_all

Rows = npt.NDArray[np.int64]


def training_rows(dataset: PreparedDataset, folds: tuple[int, ...], *, who: str) -> Rows:
    """List the structures with something to train on in some folds.

    Raises:
        ContractViolation: If there are none; names the data set.
    """
    rows = dataset.training_rows(folds)
    if not len(rows):
        raise ContractViolation(
            f"prepared data set '{who}' has no labelled structure in training folds {list(folds)}; "
            "bring more activities, or lower the training quorum"
        )
    return rows


def steps_per_epoch(n_rows: int, settings: TrainingSettings) -> int:
    """How many batches an epoch has; at least one."""
    return settings.batches_per_epoch or max(1, round(n_rows / settings.batch_size))


def loss_scale(dataset: PreparedDataset, rows: Rows, *, settings: TrainingSettings) -> float:
    """One over the mean label weight of a batch, from this partner's own data alone.

    Adam does not feel a constant factor, so it only keeps the gradient's size away from Adam's epsilon;
    a constant, unlike the observed count of each batch, gives every label the same say.
    """
    total = float(dataset.trained_labels[1][rows].sum())
    return steps_per_epoch(len(rows), settings) / total


def batches(rows: Rows, settings: TrainingSettings, generator: torch.Generator) -> Iterator[Rows]:
    """Shuffle and cut into batches of nearly equal size, epoch after epoch, without end."""
    while True:
        order = torch.randperm(len(rows), generator=generator).numpy()
        yield from np.array_split(rows[order], steps_per_epoch(len(rows), settings))


def epochs_of(n_rows: int, settings: TrainingSettings, batches: Iterator[Rows]) -> Iterator[list[Rows]]:
    """Take batches an epoch at a time, without end."""
    while True:
        yield list(itertools.islice(batches, steps_per_epoch(n_rows, settings)))


class Meter:
    """Measures what a job costs, from its construction on."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def usage(self) -> Usage:
        """Cost so far; the peak of resident memory counts pages shared with the template process."""
        return Usage(
            cpu_seconds=time.process_time() - self._cpu,
            wall_seconds=time.perf_counter() - self._wall,
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )


def validated(
    job: Centralised | Adapt,
    dataset: PreparedDataset,
    learner: Learner,
    *,
    trunk: Parameters,
    number: int,
    training_loss: float,
) -> Epoch:
    """Measure a model on the validation folds after an epoch."""
    if not job.validation_folds:
        nothing = Means(n_endpoints=0, auroc=None, auprc=None, log_loss=None)
        return Epoch(epoch=number, training_loss=training_loss, validation=nothing)
    predictions = predict_all(
        dataset, job.validation_folds, trunk=trunk, head=learner.head_arrays(), place=learner.place
    )
    measured = measure_all(dataset, predictions, min_per_class=job.min_per_class, min_values=job.min_values)
    return Epoch(epoch=number, training_loss=training_loss, validation=measured.means)
