"""Predicting the observed labels of some folds, and measuring them.

Why: every arm (single, federated, pooled) is measured by the same code on the same labels.
Runs: on the partner, in the training child. Source: own; metrics in tasks/evaluation/metrics.py.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from tasks.evaluation.metrics import EndpointMetrics, endpoint_metrics
from tasks.evaluation.score_tables import Scores
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import Means
from tasks.local_training.network import embed, features_behind, logits_of, observed, without_dropout
from tasks.local_training.parameters import Parameters
from tasks.local_training.place import CPU, Place

BATCH_SIZE = 4096
"""Structures predicted at a time: bounds memory at 4,096 x n_endpoints logits."""


def predict(
    dataset: PreparedDataset,
    folds: Sequence[int],
    *,
    trunk: Parameters,
    head: Parameters,
    place: Place = CPU,
) -> Scores:
    """Predict all observed labels of some folds, without dropout; ``place`` says where, and how precisely."""
    rows = dataset.rows(folds)
    batches = [rows[start : start + BATCH_SIZE] for start in range(0, max(len(rows), 1), BATCH_SIZE)]
    trunk_tensors = {name: place.put(array) for name, array in trunk.items()}
    head_tensors = {name: place.put(array) for name, array in head.items()}
    with torch.no_grad(), place.precision():
        parts = [
            _predict_batch(dataset, batch, trunk=trunk_tensors, head=head_tensors, place=place)
            for batch in batches
        ]
    return Scores(
        structure=np.concatenate([part.structure for part in parts]),
        endpoint=np.concatenate([part.endpoint for part in parts]),
        label=np.concatenate([part.label for part in parts]),
        probability=np.concatenate([part.probability for part in parts]),
    )


def _predict_batch(
    dataset: PreparedDataset,
    rows: npt.NDArray[np.int64],
    *,
    trunk: Mapping[str, torch.Tensor],
    head: Mapping[str, torch.Tensor],
    place: Place,
) -> Scores:
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
    return Scores(
        structure=rows[labels.row],
        endpoint=labels.endpoint,
        label=labels.value.astype(np.int8),
        probability=torch.sigmoid(picked.double()).cpu().numpy(),
    )


def measure(dataset: PreparedDataset, scores: Scores) -> EndpointMetrics:
    """Compute the metrics of every endpoint of the data set."""
    return endpoint_metrics(
        scores.endpoint, scores.label, scores.probability, n_endpoints=dataset.n_endpoints
    )


def means_of(metrics: EndpointMetrics, dataset: PreparedDataset, *, min_per_class: int) -> Means:
    """Average over the endpoints that count."""
    counted = metrics.counted(dataset.in_evaluation, min_per_class=min_per_class)
    return Means(n_endpoints=int(counted.sum()), **metrics.means(counted))
