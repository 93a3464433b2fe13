"""The jobs of the training child: local steps of a round, training without federation, and scoring.

Why: one process, one thread and private random generators make a job a function of its inputs: the same
inputs give the same bytes, also after kill -9 and repetition. Runs: on the partner, in the training child.
Source: FedAvg local update (McMahan et al. 2017, Algorithm 1 ``ClientUpdate``) with Adam as local optimizer.
"""

import itertools
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from data_contracts.errors import ContractViolation, UpdateMismatch
from data_contracts.plan import Modality
from tasks.evaluation.metrics import selection_value
from tasks.evaluation.score_tables import CALIBRATION
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import (
    Adapt,
    Centralised,
    CentralisedResult,
    Epoch,
    LocalSteps,
    LocalStepsResult,
    Score,
    ScoreBaseline,
    ScoreResult,
    TrainingJob,
    TrainingResult,
    TrainingSettings,
    Usage,
)
from tasks.local_training.learner import Learner
from tasks.local_training.local_trunk import beside_each_other, widened_head
from tasks.local_training.parameters import (
    Parameters,
    check_layout,
    head_layout,
    initial_head,
    initial_trunk,
    read_parameters,
    unflatten,
    write_parameters,
    write_vector,
)
from tasks.local_training.regression_heads import with_scales
from tasks.local_training.score_files import write_scores
from tasks.local_training.scoring import Predictions, measure_all, predict_all
from tasks.local_training.shared_model import (
    Places,
    layout_of_shared,
    read_places,
    read_shared,
    split_shared,
    with_catalogue,
    write_catalogue,
)

Rows = npt.NDArray[np.int64]


def train(job: TrainingJob) -> TrainingResult:
    """Do one job and write its files.

    Call it in the training child only: it fixes torch to one thread.

    Raises:
        ContractViolation: If the prepared data set is not sound, or has nothing to train on.
        UpdateMismatch: If trunk, head or optimizer state are damaged or do not fit the data set.
    """
    torch.set_num_threads(1)
    job.output.mkdir(parents=True, exist_ok=True)
    if isinstance(job, LocalSteps):
        return _local_steps(job)
    if isinstance(job, Centralised):
        return _centralised(job)
    if isinstance(job, Adapt):
        return _adapt(job)
    if isinstance(job, ScoreBaseline):
        return _score_baseline(job)
    return _score(job)


def _local_steps(job: LocalSteps) -> LocalStepsResult:
    meter = _Meter()
    dataset = PreparedDataset.open(job.dataset, modality=job.modality)
    dataset = dataset.balanced(job.settings.regression_weight)
    shared, before = read_shared(read_parameters(job.trunk))
    trunk, catalogue = split_shared(shared)
    places = read_places(job.places)
    rows = _training_rows(dataset, job.folds, who=job.dataset.name)
    head = _last_or_first_head(job, dataset, rows, hidden=len(trunk["embedding.bias"]), places=places)
    generator = torch.Generator().manual_seed(job.seed)
    n_steps = max(1, round(job.epochs * _steps_per_epoch(len(rows), job.settings)))
    learner = Learner(
        dataset,
        rows,
        trunk=trunk,
        head=with_catalogue(head, catalogue, places),
        settings=job.settings,
        generator=generator,
        loss_scale=_loss_scale(dataset, rows, settings=job.settings),
    )
    if job.optimizer is not None:
        learner.resume(read_parameters(job.optimizer))
    totals = np.zeros(3)
    for _, batch in zip(range(n_steps), _batches(rows, job.settings, generator), strict=False):
        totals += learner.step(batch)
    after = before.copy()
    trained_model = unflatten(after, layout_of_shared(shared))
    learner.write_trunk(split_shared(trained_model)[0])
    write_catalogue(trained_model, learner.head_arrays(), places)
    np.subtract(after, before, out=after)
    write_vector(job.output / "update.npy", after)
    write_parameters(job.output / "head.safetensors", learner.head_arrays())
    optimizer = job.output / "optimizer.safetensors" if job.keep_optimizer else None
    if optimizer is not None:
        write_parameters(optimizer, learner.optimizer_state())
    return LocalStepsResult(
        update=job.output / "update.npy",
        head=job.output / "head.safetensors",
        optimizer=optimizer,
        n_structures=len(rows),
        n_labels=int(dataset.trained_labels[0][rows].sum()),
        labels_seen=int(totals[2]),
        weight_sum=float(totals[1]),
        loss_sum=float(totals[0]),
        n_steps=n_steps,
        usage=meter.usage(),
    )


def _centralised(job: Centralised) -> CentralisedResult:
    meter = _Meter()
    if len(job.head_seeds) != len(job.datasets):
        raise UpdateMismatch(
            f"{len(job.datasets)} data sets need as many head seeds, got {len(job.head_seeds)}"
        )
    dataset = PreparedDataset.pool(
        [PreparedDataset.open(path, modality=job.modality) for path in job.datasets],
        places=[found for path in job.places if (found := read_places(path)) is not None],
    ).balanced(job.settings.regression_weight)
    trunk, _ = split_shared(read_shared(read_parameters(job.trunk))[0])
    rows = _training_rows(dataset, job.folds, who=job.datasets[0].name)
    generator = torch.Generator().manual_seed(job.seed)
    learner = Learner(
        dataset,
        rows,
        trunk=trunk,
        head=with_scales(
            _joined_heads(dataset, hidden=len(trunk["embedding.bias"]), seeds=job.head_seeds),
            dataset,
            rows,
            modality=job.modality,
        ),
        settings=job.settings,
        generator=generator,
        loss_scale=_loss_scale(dataset, rows, settings=job.settings),
    )
    history: list[Epoch] = []
    best, best_value = 0, -np.inf
    batches = _batches(rows, job.settings, generator)
    for number in range(1, job.max_epochs + 1):
        decays = (number - 1) // job.decay_epochs
        learner.set_learning_rate(job.settings.learning_rate * job.learning_rate_decay**decays)
        totals = np.zeros(3)
        for _, batch in zip(range(_steps_per_epoch(len(rows), job.settings)), batches, strict=False):
            totals += learner.step(batch)
        learner.write_trunk(trunk)
        epoch = _validated(
            job, dataset, learner, trunk=trunk, number=number, training_loss=totals[0] / totals[1]
        )
        history.append(epoch)
        quality = selection_value(epoch.validation.model_dump(), job.modality)
        value = -epoch.training_loss if quality is None else quality  # if nothing counts, the training fit
        if value > best_value:
            best, best_value = number, value
            _write_arm(job.output, trunk, learner.head_arrays(), dataset=dataset)
        elif job.patience is not None and number - best >= job.patience:
            break
    return CentralisedResult(
        kind=job.kind,
        trunk=job.output / "trunk.safetensors",
        heads=tuple(_head_path(job.output, k) for k in range(len(job.datasets))),
        best_epoch=best,
        history=tuple(history),
        usage=meter.usage(),
    )


def _adapt(job: Adapt) -> CentralisedResult:
    meter = _Meter()
    dataset = PreparedDataset.open(job.dataset, modality=job.modality)
    dataset = dataset.balanced(job.settings.regression_weight)
    shared, catalogue = split_shared(read_shared(read_parameters(job.trunk))[0])
    hidden = len(shared["embedding.bias"])
    head = _read_head(job.head, dataset, hidden=hidden, modality=job.modality)
    head = widened_head(with_catalogue(head, catalogue, read_places(job.places)), width=job.width)
    own = initial_trunk(job.width, seed=job.seed)
    rows = _training_rows(dataset, job.folds, who=job.dataset.name)
    generator = torch.Generator().manual_seed(job.seed)
    learner = Learner(
        dataset,
        rows,
        trunk=own,
        head=head,
        settings=job.settings,
        generator=generator,
        loss_scale=_loss_scale(dataset, rows, settings=job.settings),
        beside=shared,
    )
    batches = _batches(rows, job.settings, generator)
    best, history = _grow(
        job, dataset, learner, shared=shared, own=own, epochs=_epochs_of(len(rows), job.settings, batches)
    )
    return CentralisedResult(
        kind=job.kind,
        trunk=job.output / "trunk.safetensors",
        heads=(_head_path(job.output, 0),),
        best_epoch=best,
        history=history,
        usage=meter.usage(),
    )


def _grow(
    job: Adapt,
    dataset: PreparedDataset,
    learner: Learner,
    *,
    shared: Parameters,
    own: Parameters,
    epochs: Iterator[list[Rows]],
) -> tuple[int, tuple[Epoch, ...]]:
    """Train a partner's own trunk and keep the best epoch; epoch 0 is the model as it came."""
    history: list[Epoch] = []
    best, best_value = 0, -np.inf
    for number in range(job.max_epochs + 1):
        losses = [learner.step(batch)[:2] for batch in (next(epochs) if number else ())]
        loss, weight = np.sum(losses, axis=0) if losses else (0.0, 1.0)
        learner.write_trunk(own)
        wide = beside_each_other(shared, own)
        epoch = _validated(job, dataset, learner, trunk=wide, number=number, training_loss=loss / weight)
        history.append(epoch)
        value = selection_value(epoch.validation.model_dump(), job.modality)
        if not number or (value is not None and value > best_value):
            best, best_value = number, -np.inf if value is None else value
            _write_arm(job.output, wide, learner.head_arrays(), dataset=dataset)
        elif number - best >= job.patience:
            break
    return best, tuple(history)


def _score(job: Score) -> ScoreResult:
    meter = _Meter()
    dataset = PreparedDataset.open(job.dataset, modality=job.modality)
    shared = read_parameters(job.trunk)
    layout_of_shared(shared)
    trunk, catalogue = split_shared(shared)
    head = _read_head(job.head, dataset, hidden=len(trunk["embedding.bias"]), modality=job.modality)
    head = with_catalogue(head, catalogue, read_places(job.places))
    predictions = predict_all(dataset, job.folds, trunk=trunk, head=head)
    return _scored(job, dataset, predictions, job.output, meter=meter)


def _score_baseline(job: ScoreBaseline) -> ScoreResult:
    from tasks.local_training.baseline import best_baseline

    meter = _Meter()
    dataset = PreparedDataset.open(job.dataset)
    found = best_baseline(
        dataset,
        job.training_folds,
        validation_folds=job.validation_folds,
        min_per_class=job.min_per_class,
    )
    calibration = job.output / CALIBRATION
    calibration.mkdir(exist_ok=True)
    _scored(job, dataset, Predictions(found.scores(job.validation_folds), None), calibration, meter=meter)
    return _scored(job, dataset, Predictions(found.scores(job.folds), None), job.output, meter=meter)


def _scored(
    job: Score | ScoreBaseline,
    dataset: PreparedDataset,
    predictions: Predictions,
    output: Path,
    *,
    meter: "_Meter",
) -> ScoreResult:
    """Measure predictions and write their tables."""
    measured = measure_all(dataset, predictions, min_per_class=job.min_per_class, min_values=job.min_values)
    classes, numbers = write_scores(output, dataset, predictions, measured)
    return ScoreResult(metrics=classes, regression_metrics=numbers, means=measured.means, usage=meter.usage())


def _validated(
    job: Centralised | Adapt,
    dataset: PreparedDataset,
    learner: Learner,
    *,
    trunk: Parameters,
    number: int,
    training_loss: float,
) -> Epoch:
    predictions = predict_all(dataset, job.validation_folds, trunk=trunk, head=learner.head_arrays())
    measured = measure_all(dataset, predictions, min_per_class=job.min_per_class, min_values=job.min_values)
    return Epoch(epoch=number, training_loss=training_loss, validation=measured.means)


def _last_or_first_head(
    job: LocalSteps, dataset: PreparedDataset, rows: Rows, *, hidden: int, places: Places | None
) -> Parameters:
    if job.head is not None:
        return _read_head(job.head, dataset, hidden=hidden, modality=job.modality)
    head = initial_head(dataset.n_endpoints, hidden, seed=job.head_seed)
    return with_scales(head, dataset, rows, modality=job.modality, places=places)


def _read_head(path: Path, dataset: PreparedDataset, *, hidden: int, modality: Modality) -> Parameters:
    head = read_parameters(path)
    check_layout(head, head_layout(dataset.n_endpoints, hidden, modality=modality))
    return head


def _joined_heads(dataset: PreparedDataset, *, hidden: int, seeds: tuple[int, ...]) -> Parameters:
    joined = initial_head(dataset.n_endpoints, hidden, seed=0)
    for numbers, seed in zip(dataset.endpoints_of, seeds, strict=True):
        for name, array in initial_head(len(numbers), hidden, seed=seed).items():
            joined[name][numbers] = array
    return joined


def _head_path(output: Path, number: int) -> Path:
    return output / f"head-{number}.safetensors"


def _write_arm(output: Path, trunk: Parameters, head: Parameters, *, dataset: PreparedDataset) -> None:
    write_parameters(output / "trunk.safetensors", trunk)
    for number, rows in enumerate(dataset.endpoints_of):
        write_parameters(_head_path(output, number), {name: array[rows] for name, array in head.items()})


def _training_rows(dataset: PreparedDataset, folds: tuple[int, ...], *, who: str) -> Rows:
    rows = dataset.training_rows(folds)
    if not len(rows):
        raise ContractViolation(
            f"prepared data set '{who}' has no labelled structure in training folds {list(folds)}; "
            "bring more activities, or lower the training quorum"
        )
    return rows


def _steps_per_epoch(n_rows: int, settings: TrainingSettings) -> int:
    return max(1, round(n_rows / settings.batch_size))


def _loss_scale(dataset: PreparedDataset, rows: Rows, *, settings: TrainingSettings) -> float:
    """One over the mean label weight of a batch, from this partner's own data alone.

    Adam does not feel a constant factor, so it only keeps the gradient's size away from Adam's epsilon;
    a constant, unlike the observed count of each batch, gives every label the same say.
    """
    total = float(dataset.trained_labels[1][rows].sum())
    return _steps_per_epoch(len(rows), settings) / total


def _batches(rows: Rows, settings: TrainingSettings, generator: torch.Generator) -> Iterator[Rows]:
    """Shuffle and cut into batches of nearly equal size, epoch after epoch, without end."""
    while True:
        order = torch.randperm(len(rows), generator=generator).numpy()
        yield from np.array_split(rows[order], _steps_per_epoch(len(rows), settings))


def _epochs_of(n_rows: int, settings: TrainingSettings, batches: Iterator[Rows]) -> Iterator[list[Rows]]:
    """Take batches an epoch at a time, without end."""
    while True:
        yield list(itertools.islice(batches, _steps_per_epoch(n_rows, settings)))


class _Meter:
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
