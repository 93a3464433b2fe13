"""The outside baselines: one model per endpoint on the same fingerprints, with nothing shared.

Why: a network must be worth its trouble; a partner sees beside it what an afternoon with a well-kept library gives.
Runs: on the partner, in the training child. Source: scikit-learn's ``LogisticRegression``, here, and LightGBM's trees, in
``boosted_trees``; measured against each other and a single partner's network in docs/training-and-evaluation.md.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse

from tasks.evaluation.calibration import sigmoid
from tasks.evaluation.metrics import endpoint_metrics
from tasks.evaluation.score_tables import Scores
from tasks.local_training.dataset import Labels, PreparedDataset
from tasks.local_training.jobs import BASELINES, BaselineName
from tasks.local_training.parameters import N_BITS

STRENGTHS = (0.01, 0.1, 1.0)
"""Inverse regularization, chosen on the validation folds: as much tuning as the network gets by early stopping."""
LIBRARY: dict[BaselineName, str] = {"boosted": "lightgbm"}
"""Libraries that only an extra installs; scikit-learn is always there."""

FloatVector = npt.NDArray[np.float64]
Matrix: TypeAlias = Any  # scipy.sparse.csr_matrix; scipy ships no types


class Baseline(Protocol):
    """What was fitted, one model per endpoint."""

    def scores(self, folds: Sequence[int]) -> Scores:
        """Predict all observed labels of some folds."""
        ...


def missing(names: Sequence[BaselineName]) -> tuple[BaselineName, ...]:
    """List the baselines whose library cannot be loaded here."""
    return tuple(name for name in BASELINES if name in names and not _loads(LIBRARY.get(name)))


def _loads(library: str | None) -> bool:
    try:
        return library is None or importlib.import_module(library) is not None
    except (ImportError, OSError):  # the latter where a shared library of the system is missing
        return False


class Logistic:
    """One logistic regression per endpoint.

    Args:
        dataset: The data.
        folds: Training folds.
        strength: Inverse regularization.
    """

    def __init__(self, dataset: PreparedDataset, folds: Sequence[int], *, strength: float) -> None:
        from sklearn.linear_model import LogisticRegression

        self._dataset = dataset
        self._coefficients: dict[int, Matrix] = {}  # few of the bits occur on an endpoint
        self._offsets = np.zeros(dataset.n_endpoints)
        for number, matrix, truth in endpoints_of(dataset, folds):
            if 0 < truth.sum() < len(truth):
                model = LogisticRegression(C=strength, solver="liblinear", random_state=0)
                model.fit(matrix, truth)
                self._coefficients[number] = scipy.sparse.csr_matrix(model.coef_)
                self._offsets[number] = model.intercept_[0]
            else:
                self._offsets[number] = rate_logit(truth)

    def scores(self, folds: Sequence[int]) -> Scores:
        """Predict all observed labels of some folds."""

        def logit(number: int, matrix: Matrix) -> FloatVector:
            found = np.full(matrix.shape[0], self._offsets[number])
            if number in self._coefficients:
                found += (matrix @ self._coefficients[number].T).toarray()[:, 0]
            return found

        return scores_of(self._dataset, folds, logit)


def best_logistic(
    dataset: PreparedDataset, folds: Sequence[int], *, validation_folds: Sequence[int], min_per_class: int
) -> Logistic:
    """Fit one regression per endpoint and strength, and keep the strength with the highest mean validation AUPRC."""
    candidates = [Logistic(dataset, folds, strength=strength) for strength in STRENGTHS]
    return max(
        candidates, key=lambda found: mean_auprc(dataset, found.scores(validation_folds), min_per_class)
    )


def endpoints_of(
    dataset: PreparedDataset, folds: Sequence[int]
) -> Iterator[tuple[int, Matrix, npt.NDArray[np.float32]]]:
    """Yield each endpoint's number, the fingerprints of its training structures, and their labels."""
    rows = dataset.training_rows(folds)
    labels = dataset.labels_of(rows)
    matrix = fingerprint_matrix(dataset, rows)
    for number, chosen in enumerate(_by_endpoint(labels, dataset.n_endpoints)):
        yield number, matrix[labels.row[chosen]], labels.value[chosen]


def scores_of(
    dataset: PreparedDataset, folds: Sequence[int], logit: Callable[[int, Matrix], FloatVector]
) -> Scores:
    """Predict all observed labels of some folds, endpoint by endpoint.

    Args:
        dataset: The data.
        folds: Folds to predict.
        logit: Given an endpoint and fingerprints, the logits of these structures.
    """
    rows = dataset.rows(folds)
    labels = dataset.labels_of(rows)
    matrix = fingerprint_matrix(dataset, rows)
    found = np.empty(len(labels))
    for number, chosen in enumerate(_by_endpoint(labels, dataset.n_endpoints)):
        if len(chosen):
            found[chosen] = logit(number, matrix[labels.row[chosen]])
    return Scores(
        structure=rows[labels.row],
        endpoint=labels.endpoint,
        label=labels.value.astype(np.int8),
        probability=sigmoid(found),
    )


def rate_logit(truth: npt.NDArray[np.float32]) -> float:
    """What was never seen in both classes is predicted by its rate: the logit of it, finite for every count."""
    n_active = float(truth.sum())
    return float(np.log((n_active + 1) / (len(truth) - n_active + 1)))


def mean_auprc(dataset: PreparedDataset, scores: Scores, min_per_class: int) -> float:
    """Mean AUPRC over the counted endpoints, by which a baseline is tuned; minus infinity where none counts."""
    metrics = endpoint_metrics(
        scores.endpoint, scores.label, scores.probability, n_endpoints=dataset.n_endpoints
    )
    mean = metrics.means(metrics.counted(dataset.in_evaluation, min_per_class=min_per_class))["auprc"]
    return -np.inf if mean is None else mean


def fingerprint_matrix(dataset: PreparedDataset, rows: npt.NDArray[np.int64]) -> Matrix:
    """Fingerprints as compressed sparse rows of ones, shape ``(n_rows, n_bits)``."""
    bits, starts = dataset.fingerprints_of(rows)
    return scipy.sparse.csr_matrix(
        (np.ones(len(bits)), bits.astype(np.int32), np.append(starts, len(bits))), shape=(len(rows), N_BITS)
    )


def _by_endpoint(labels: Labels, n_endpoints: int) -> list[npt.NDArray[np.int64]]:
    order = np.argsort(labels.endpoint, kind="stable")
    bounds = np.searchsorted(labels.endpoint[order], np.arange(1, n_endpoints))
    return np.split(order, bounds)
