"""Predicting the observed labels of some folds, and measuring them.

Why: every arm (single, federated, pooled) is measured by the same code on the same labels.
Runs: on the partner, in the training child. Source: own; metrics in tasks/evaluation/metrics.py and
regression_metrics.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tasks.evaluation.metrics import EndpointMetrics, endpoint_metrics
from tasks.evaluation.regression_metrics import RegressionMetrics, regression_metrics
from tasks.evaluation.score_tables import RegressionScores, Scores
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import Means
from tasks.local_training.network import embed, features_behind, logits_of, observed, without_dropout
from tasks.local_training.parameters import Parameters
from tasks.local_training.place import CPU, Place
from tasks.local_training.regression_heads import deviations, in_assay_units

BATCH_SIZE = 4096
"""Structures predicted at a time: bounds memory at 4,096 x n_endpoints logits."""


@dataclass(frozen=True)
class Predictions:
    """Scores of the classification endpoints, and of the regression endpoints where the data have any."""

    classes: Scores
    numbers: RegressionScores | None


@dataclass(frozen=True)
class Measured:
    """Metrics of all endpoints, and which of them count; ``numbers`` are regression endpoints from 0."""

    classes: EndpointMetrics
    counted: npt.NDArray[np.bool_]
    numbers: RegressionMetrics | None
    numbers_counted: npt.NDArray[np.bool_]

    @property
    def means(self) -> Means:
        """Averages over the endpoints that count."""
        found = self.classes.means(self.counted)
        if self.numbers is not None:
            found |= self.numbers.means(self.numbers_counted)
        return Means(
            n_endpoints=int(self.counted.sum()), n_regression=int(self.numbers_counted.sum()), **found
        )


def predict(
    dataset: PreparedDataset,
    folds: Sequence[int],
    *,
    trunk: Parameters,
    head: Parameters,
    place: Place = CPU,
) -> Scores:
    """Predict all observed classes of some folds, without dropout; ``place`` says where, and how precisely."""
    return predict_all(dataset, folds, trunk=trunk, head=head, place=place).classes


def predict_all(
    dataset: PreparedDataset,
    folds: Sequence[int],
    *,
    trunk: Parameters,
    head: Parameters,
    place: Place = CPU,
) -> Predictions:
    """Predict all observed labels of some folds, classes and numbers, as ``predict`` does."""
    rows = dataset.rows(folds)
    batches = [rows[start : start + BATCH_SIZE] for start in range(0, max(len(rows), 1), BATCH_SIZE)]
    trunk_tensors = {name: place.put(array) for name, array in trunk.items()}
    head_tensors = {name: place.put(array) for name, array in in_assay_units(head).items()}
    with torch.no_grad(), place.precision():
        parts = [
            _predict_batch(dataset, batch, trunk=trunk_tensors, head=head_tensors, place=place)
            for batch in batches
        ]
    structure, endpoint, value, censoring, output = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    numeric = dataset.is_regression[endpoint]
    classes = Scores(
        structure=structure[~numeric],
        endpoint=endpoint[~numeric],
        label=value[~numeric].astype(np.int8),
        probability=torch.sigmoid(torch.from_numpy(output[~numeric])).numpy(),
    )
    if dataset.regression is None:
        return Predictions(classes, None)
    numbers = RegressionScores(
        structure=structure[numeric],
        endpoint=np.searchsorted(dataset.regression.head_row, endpoint[numeric]),
        value=value[numeric].astype(np.float64),
        censoring=censoring[numeric],
        prediction=output[numeric],
        deviation=deviations(head)[endpoint[numeric]],
    )
    return Predictions(classes, numbers)


def _predict_batch(
    dataset: PreparedDataset,
    rows: npt.NDArray[np.int64],
    *,
    trunk: Mapping[str, torch.Tensor],
    head: Mapping[str, torch.Tensor],
    place: Place,
) -> tuple[npt.NDArray[np.generic], ...]:
    bits, starts = dataset.fingerprints_of(rows)
    embedded = embed(
        trunk["embedding.weight"],
        trunk["embedding.bias"],
        bits=place.put(bits.astype(np.int64)),
        starts=place.put(starts),
    )
    logits = logits_of(features_behind(embedded, trunk, dropout=without_dropout), head)
    labels = dataset.labels_of(rows)
    picked = observed(logits, row=place.put(labels.row), endpoint=place.put(labels.endpoint))
    return rows[labels.row], labels.endpoint, labels.value, labels.censoring, picked.double().cpu().numpy()


def measure(dataset: PreparedDataset, scores: Scores) -> EndpointMetrics:
    """Compute the metrics of every endpoint of the data set."""
    return endpoint_metrics(
        scores.endpoint, scores.label, scores.probability, n_endpoints=dataset.n_endpoints
    )


def measure_all(
    dataset: PreparedDataset, predictions: Predictions, *, min_per_class: int, min_values: int
) -> Measured:
    """Measure classes and numbers, and decide which endpoints count."""
    classes = measure(dataset, predictions.classes)
    counted = classes.counted(dataset.in_evaluation, min_per_class=min_per_class)
    scores = predictions.numbers
    if scores is None or dataset.regression is None:
        return Measured(classes, counted, None, np.zeros(0, dtype=np.bool_))
    head_row = dataset.regression.head_row
    numbers = regression_metrics(
        scores.endpoint, scores.value, scores.censoring, scores.prediction, n_endpoints=len(head_row)
    )
    in_evaluation = dataset.in_evaluation[head_row]
    return Measured(classes, counted, numbers, numbers.counted(in_evaluation, min_values=min_values))
