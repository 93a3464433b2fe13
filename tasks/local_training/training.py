"""The jobs of the training child: local steps of a round, training without federation, and scoring.

Why: one process, one thread and private random generators make a job a function of its inputs: the same
inputs give the same bytes, also after kill -9 and repetition. Runs: on the partner, in the training child.
Source: FedAvg local update (McMahan et al. 2017, Algorithm 1 ``ClientUpdate``) with Adam as local optimizer.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from data_contracts.errors import UpdateMismatch
from tasks.evaluation.metrics import selection_value
from tasks.evaluation.score_tables import CALIBRATION
from tasks.local_training.adaptation import adapt
from tasks.local_training.baseline import Baseline, best_logistic
from tasks.local_training.boosted_trees import best_boosted
from tasks.local_training.dataset import TRAINING_FOLDS, PreparedDataset
from tasks.local_training.epochs import (
    Meter,
    batches,
    loss_scale,
    steps_per_epoch,
    training_rows,
    validated,
)
from tasks.local_training.head_files import head_path, joined_heads, last_or_first_head, write_arm
from tasks.local_training.jobs import (
    Adapt,
    BaselineName,
    Centralised,
    CentralisedResult,
    Epoch,
    LocalSteps,
    LocalStepsResult,
    Machine,
    MinibatchGradient,
    MinibatchResult,
    Score,
    ScoreBaseline,
    ScoreResult,
    TrainingJob,
    TrainingResult,
)
from tasks.local_training.learner import Learner
from tasks.local_training.minibatch import minibatch_gradient
from tasks.local_training.parameters import (
    read_parameters,
    unflatten,
    write_parameters,
    write_vector,
)
from tasks.local_training.place import Place, place_of
from tasks.local_training.score_files import SCORES_FILE, write_scores
from tasks.local_training.scoring import Predictions, measure_all, predict_all
from tasks.local_training.shared_model import (
    layout_of_shared,
    read_places,
    read_shared,
    split_shared,
    with_catalogue,
    write_catalogue,
)

Rows = npt.NDArray[np.int64]


IN_MAIN_MEMORY = Machine(device="cpu")

FITS: dict[BaselineName, Callable[..., Baseline]] = {"logistic": best_logistic, "boosted": best_boosted}


def train(job: TrainingJob, *, machine: Machine = IN_MAIN_MEMORY) -> TrainingResult:
    """Do one job and write its files.

    Call it in the training child only: it fixes torch to one thread.

    Args:
        job: What to do.
        machine: What to compute on.

    Raises:
        ContractViolation: If the prepared data set is not sound, or has nothing to train on.
        UpdateMismatch: If trunk, head or optimizer state are damaged or do not fit the data set.
        SettingsError: If the machine lacks the device.
    """
    torch.set_num_threads(1)
    place = place_of(machine)
    job.output.mkdir(parents=True, exist_ok=True)
    if isinstance(job, LocalSteps):
        return _local_steps(job, place=place)
    if isinstance(job, MinibatchGradient):
        return _minibatch_gradient(job, place=place)
    if isinstance(job, Centralised):
        return _centralised(job, place=place)
    if isinstance(job, Adapt):
        return adapt(job, place=place)
    if isinstance(job, ScoreBaseline):
        return _score_baseline(job)
    return _score(job, place=place)


def _local_steps(job: LocalSteps, *, place: Place) -> LocalStepsResult:
    meter = Meter()
    dataset = PreparedDataset.open(job.dataset, modality=job.modality)
    dataset = dataset.balanced(job.settings.regression_weight)
    shared, before = read_shared(read_parameters(job.trunk))
    trunk, catalogue = split_shared(shared)
    places = read_places(job.places)
    rows = training_rows(dataset, job.folds, who=job.dataset.name)
    head = last_or_first_head(job, dataset, rows, hidden=len(trunk["embedding.bias"]), places=places)
    generator = torch.Generator().manual_seed(job.seed)
    n_steps = max(1, round(job.epochs * steps_per_epoch(len(rows), job.settings)))
    learner = Learner(
        dataset,
        rows,
        trunk=trunk,
        head=with_catalogue(head, catalogue, places),
        settings=job.settings,
        generator=generator,
        loss_scale=loss_scale(dataset, rows, settings=job.settings),
        place=place,
    )
    if job.optimizer is not None:
        learner.resume(read_parameters(job.optimizer))
    totals = np.zeros(3)
    for _, batch in zip(range(n_steps), batches(rows, job.settings, generator), strict=False):
        totals += learner.step(batch)
    after = before.copy()
    trained_model = unflatten(after, layout_of_shared(shared))
    learner.write_trunk(split_shared(trained_model)[0])
    write_catalogue(trained_model, learner.head_arrays(), places)
    np.subtract(after, before, out=after)
    write_vector(job.output / "update.npy", after)
    optimizer = job.output / "optimizer.safetensors" if job.keep_optimizer else None
    if optimizer is not None:  # before the head, by which a round is known
        write_parameters(optimizer, learner.optimizer_state())
    write_parameters(job.output / "head.safetensors", learner.head_arrays())
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


def _minibatch_gradient(job: MinibatchGradient, *, place: Place) -> MinibatchResult:
    meter = Meter()
    dataset = PreparedDataset.open(job.dataset)
    rows = training_rows(dataset, job.folds, who=job.dataset.name)
    hidden = len(read_parameters(job.trunk)["embedding.bias"])
    head = last_or_first_head(job, dataset, rows, hidden=hidden, places=None)
    loss_sum, weight_sum, n_labels = minibatch_gradient(job, dataset, rows, head=head, place=place)
    return MinibatchResult(
        gradient=job.output / "gradient.npy",
        head=job.output / "head.safetensors",
        optimizer=job.output / "optimizer.safetensors",
        loss_sum=loss_sum,
        weight_sum=weight_sum,
        n_labels=n_labels,
        usage=meter.usage(),
    )


def _centralised(job: Centralised, *, place: Place) -> CentralisedResult:
    meter = Meter()
    if len(job.head_seeds) != len(job.datasets):
        raise UpdateMismatch(
            f"{len(job.datasets)} data sets need as many head seeds, got {len(job.head_seeds)}"
        )
    dataset = PreparedDataset.pool(
        [PreparedDataset.open(path, modality=job.modality) for path in job.datasets],
        places=[found for path in job.places if (found := read_places(path)) is not None],
    ).balanced(job.settings.regression_weight)
    trunk, _ = split_shared(read_shared(read_parameters(job.trunk))[0])
    rows = training_rows(dataset, job.folds, who=job.datasets[0].name)
    generator = torch.Generator().manual_seed(job.seed)
    learner = Learner(
        dataset,
        rows,
        trunk=trunk,
        head=joined_heads(job, dataset, rows, hidden=len(trunk["embedding.bias"])),
        settings=job.settings,
        generator=generator,
        loss_scale=loss_scale(dataset, rows, settings=job.settings),
        place=place,
    )
    history: list[Epoch] = []
    best, best_value = 0, -np.inf
    order = batches(rows, job.settings, generator)
    for number in range(1, job.max_epochs + 1):
        learner.set_learning_rate(_learning_rate(job, number))
        totals = np.zeros(3)
        for _, batch in zip(range(steps_per_epoch(len(rows), job.settings)), order, strict=False):
            totals += learner.step(batch)
        learner.write_trunk(trunk)
        epoch = validated(
            job, dataset, learner, trunk=trunk, number=number, training_loss=totals[0] / totals[1]
        )
        history.append(epoch)
        value = _selection_value(job, epoch)
        if value > best_value:
            best, best_value = number, value
            write_arm(job.output, trunk, learner.head_arrays(), dataset=dataset)
        elif job.patience is not None and number - best >= job.patience:
            break
    return CentralisedResult(
        kind=job.kind,
        trunk=job.output / "trunk.safetensors",
        heads=tuple(head_path(job.output, k) for k in range(len(job.datasets))),
        best_epoch=best,
        history=tuple(history),
        usage=meter.usage(),
    )


def _score(job: Score, *, place: Place) -> ScoreResult:
    meter = Meter()
    dataset = PreparedDataset.open(job.dataset, modality=job.modality)
    shared = read_parameters(job.trunk)
    layout_of_shared(shared)
    trunk, catalogue = split_shared(shared)
    rows, places = dataset.training_rows(TRAINING_FOLDS), read_places(job.places)
    head = last_or_first_head(job, dataset, rows, hidden=len(trunk["embedding.bias"]), places=places)
    head = with_catalogue(head, catalogue, places)
    predictions = predict_all(dataset, job.folds, trunk=trunk, head=head, place=place)
    return _scored(job, dataset, predictions, job.output, meter=meter)


def _learning_rate(job: Centralised, epoch: int) -> float:
    return float(job.settings.learning_rate * job.learning_rate_decay ** ((epoch - 1) // job.decay_epochs))


def _selection_value(job: Centralised, epoch: Epoch) -> float:
    """What the best epoch maximises; without counted endpoints the training fit, without a held-out fold the number."""
    if not job.validation_folds:
        return float(epoch.epoch)
    quality = selection_value(epoch.validation.model_dump(), job.modality)
    return -epoch.training_loss if quality is None else quality


def _score_baseline(job: ScoreBaseline) -> ScoreResult:
    meter = Meter()
    dataset = PreparedDataset.open(job.dataset)
    found = FITS[job.baseline](
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
    meter: "Meter",
) -> ScoreResult:
    """Measure predictions and write their tables."""
    measured = measure_all(dataset, predictions, min_per_class=job.min_per_class, min_values=job.min_values)
    classes, numbers = write_scores(output, dataset, predictions, measured)
    return ScoreResult(
        metrics=classes,
        scores=None if classes is None else output / SCORES_FILE,
        regression_metrics=numbers,
        means=measured.means,
        usage=meter.usage(),
    )
