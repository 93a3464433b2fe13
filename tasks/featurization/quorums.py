"""Quorums and weights: which endpoints are trained, which enter means, and how much each counts.

Why: an endpoint is worth training only with enough of both classes, and worth counting only with enough of both in
the folds that are looked at. Runs: on the partner. Source: MELLODDY-TUNER 3 (``filter_classification``,
``filter_regression``, ``aggregate_values``, read in their code); a fold without any label counts as zero here.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tasks.featurization.measurements import BoolVector, FloatVector, IntVector
from tasks.featurization.preparation_rules import ClassQuorum, RegressionRule

Counts = npt.NDArray[np.int64]


def meets_training(counts: Counts, quorum: ClassQuorum) -> BoolVector:
    """Tell which endpoints have enough labels to be trained.

    Args:
        counts: Labels by endpoint, fold and label (0 inactive, 1 active), shape ``(n, n_folds, 2)``.
        quorum: Fewest of each, and of both together.
    """
    total = counts.sum(axis=1)
    enough = (total[:, 1] >= quorum.active) & (total[:, 0] >= quorum.inactive)
    return np.asarray(enough & (total.sum(axis=1) >= quorum.total), dtype=np.bool_)


def meets_evaluation(counts: Counts, quorum: ClassQuorum, *, folds: Sequence[int]) -> BoolVector:
    """Tell which endpoints have enough labels in every one of some folds; arguments as ``meets_training``."""
    smallest = counts[:, list(folds), :].min(axis=1)
    return np.asarray((smallest[:, 1] >= quorum.active) & (smallest[:, 0] >= quorum.inactive), dtype=np.bool_)


def deviation_by_fold(
    assay: IntVector, fold: IntVector, value: FloatVector, *, n_assays: int, n_folds: int
) -> FloatVector:
    """Sample standard deviation (n - 1) of the values of each assay in each fold.

    Args:
        assay: Assay of each value.
        fold: Fold of each value.
        value: Values.
        n_assays: Number of assays.
        n_folds: Number of folds.

    Returns:
        Shape ``(n_assays, n_folds)``; 0 where a fold has fewer than two values.
    """
    cell = assay * n_folds + fold
    count = np.bincount(cell, minlength=n_assays * n_folds)
    mean = np.bincount(cell, weights=value, minlength=len(count)) / np.maximum(count, 1)
    squares = np.bincount(cell, weights=(value - mean.take(cell)) ** 2, minlength=len(count))
    deviation = np.sqrt(squares / np.maximum(count - 1, 1))
    return np.where(count > 1, deviation, 0.0).reshape(n_assays, n_folds)


def shared_weights(assay: IntVector, weight: FloatVector) -> FloatVector:
    """Share each assay's weight equally among its endpoints.

    Args:
        assay: Assay of each trained endpoint.
        weight: Weight of that assay.
    """
    return weight / np.bincount(assay, minlength=1)[assay]


def censored_weights(share_censored: FloatVector, *, knock_in: float) -> FloatVector:
    """Weigh censored values down where they are many, so that together they count as ``knock_in`` of all.

    With censored share f above b, w = b (1 - f) / (f (1 - b)): then w f / (w f + 1 - f) = b.

    Args:
        share_censored: f of each endpoint.
        knock_in: b.
    """
    many = share_censored > knock_in
    share = np.where(many, share_censored, 1.0)
    return np.where(many, knock_in * (1 - share) / (share * (1 - knock_in)), 1.0)


def meets_regression(
    n_values: Counts,
    n_uncensored: Counts,
    deviation: FloatVector,
    rule: RegressionRule,
    *,
    evaluation_folds: Sequence[int],
) -> tuple[BoolVector, BoolVector]:
    """Tell which assays are trained as numbers, and which of these enter means.

    Args:
        n_values: Values by assay and fold, shape ``(n_assays, n_folds)``.
        n_uncensored: Uncensored ones among them.
        deviation: Of the uncensored values, same shape.
        rule: Quorums.
        evaluation_folds: Folds in which the quorum of evaluation must hold.
    """
    folds = list(evaluation_folds)
    trained = (n_values.sum(axis=1) >= rule.training_values) & (
        n_uncensored.sum(axis=1) >= rule.training_uncensored
    )
    evaluated = n_uncensored[:, folds].min(axis=1) >= rule.evaluation_uncensored
    evaluated &= deviation[:, folds].min(axis=1) >= rule.smallest_deviation
    return np.asarray(trained, dtype=np.bool_), np.asarray(trained & evaluated, dtype=np.bool_)
