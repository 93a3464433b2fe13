"""The outside baseline: a logistic regression per endpoint on the same fingerprints.

Why: a network must be worth its trouble; a partner sees beside it what an afternoon with scikit-learn would give.
Runs: on the partner, in the training child. Source: scikit-learn's ``LogisticRegression``; on ChEMBL it equals a
single partner's multi-endpoint network (docs/training-and-evaluation.md), so it is no straw man.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse

from tasks.evaluation.metrics import endpoint_metrics
from tasks.evaluation.score_tables import Scores
from tasks.local_training.dataset import Labels, PreparedDataset
from tasks.local_training.parameters import N_BITS

STRENGTHS = (0.01, 0.1, 1.0)
"""Inverse regularization, chosen on the validation folds: as much tuning as the network gets by early stopping."""

FloatVector = npt.NDArray[np.float64]


class Baseline:
    """One regression per endpoint.

    Args:
        dataset: The data.
        folds: Training folds.
        strength: Inverse regularization.
    """

    def __init__(self, dataset: PreparedDataset, folds: Sequence[int], *, strength: float) -> None:
        from sklearn.linear_model import LogisticRegression

        rows = dataset.training_rows(folds)
        labels = dataset.labels_of(rows)
        matrix = fingerprint_matrix(dataset, rows)
        self._dataset = dataset
        self._coefficients: dict[int, scipy.sparse.csr_matrix] = {}  # few of the bits occur on an endpoint
        self._offsets = np.zeros(dataset.n_endpoints)
        order = np.argsort(labels.endpoint, kind="stable")
        bounds = np.searchsorted(labels.endpoint[order], np.arange(dataset.n_endpoints + 1))
        for number in range(dataset.n_endpoints):
            chosen = order[bounds[number] : bounds[number + 1]]
            truth = labels.value[chosen]
            n_active = int(truth.sum())
            if 0 < n_active < len(truth):
                model = LogisticRegression(C=strength, solver="liblinear", random_state=0)
                model.fit(matrix[labels.row[chosen]], truth)
                self._coefficients[number] = scipy.sparse.csr_matrix(model.coef_)
                self._offsets[number] = model.intercept_[0]
            else:  # what was never seen in both classes is predicted by its rate
                self._offsets[number] = np.log((n_active + 1) / (len(truth) - n_active + 1))

    def scores(self, folds: Sequence[int]) -> Scores:
        """Predict all observed labels of some folds."""
        rows = self._dataset.rows(folds)
        labels: Labels = self._dataset.labels_of(rows)
        matrix = fingerprint_matrix(self._dataset, rows)
        logit = np.empty(len(labels))
        order = np.argsort(labels.endpoint, kind="stable")
        bounds = np.searchsorted(labels.endpoint[order], np.arange(self._dataset.n_endpoints + 1))
        for number in range(self._dataset.n_endpoints):
            chosen = order[bounds[number] : bounds[number + 1]]
            logit[chosen] = self._offsets[number]
            if number in self._coefficients:
                product = matrix[labels.row[chosen]] @ self._coefficients[number].T
                logit[chosen] += product.toarray()[:, 0]
        return Scores(
            structure=rows[labels.row],
            endpoint=labels.endpoint,
            label=labels.value.astype(np.int8),
            probability=0.5 * (1 + np.tanh(0.5 * logit)),
        )


def best_baseline(
    dataset: PreparedDataset, folds: Sequence[int], *, validation_folds: Sequence[int], min_per_class: int
) -> Baseline:
    """Fit one regression per endpoint and strength, and keep the strength with the highest mean validation AUPRC."""
    candidates = [Baseline(dataset, folds, strength=strength) for strength in STRENGTHS]
    return max(candidates, key=lambda found: _quality(found, dataset, validation_folds, min_per_class))


def _quality(baseline: Baseline, dataset: PreparedDataset, folds: Sequence[int], min_per_class: int) -> float:
    scores = baseline.scores(folds)
    metrics = endpoint_metrics(
        scores.endpoint, scores.label, scores.probability, n_endpoints=dataset.n_endpoints
    )
    mean = metrics.means(metrics.counted(dataset.in_evaluation, min_per_class=min_per_class))["auprc"]
    return -np.inf if mean is None else mean


def fingerprint_matrix(dataset: PreparedDataset, rows: npt.NDArray[np.int64]) -> "scipy.sparse.csr_matrix":
    """Fingerprints as compressed sparse rows of ones, shape ``(n_rows, n_bits)``."""
    bits, starts = dataset.fingerprints_of(rows)
    return scipy.sparse.csr_matrix(
        (np.ones(len(bits)), bits.astype(np.int32), np.append(starts, len(bits))), shape=(len(rows), N_BITS)
    )
