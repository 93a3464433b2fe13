"""Metrics beside the three that travel: calibrated AUPRC, Brier score, calibration error, kappa, BEDROC.

Why: a medicinal chemist asks for early recognition, a modeller for honest probabilities; all endpoints in one pass.
Runs: on the partner. Source: calibrated AUPRC as in MELLODDY (precision at a reference rate of actives); BEDROC of
Truchon & Bayly 2007; Cohen 1960; ECE over ten bins as SparseChem; scikit-learn and RDKit are the oracles in the tests.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.evaluation.metrics import FloatVector, IntVector, RankedGroups, ranked_groups

REFERENCE_RATE = 0.1  # MELLODDY's evaluation: precision as if one compound in ten were active
N_BINS = 10
CUT = 0.5
EARLY = 20.0
"""BEDROC's alpha: 80 % of the score come from the first 8 % of the ranking."""

FURTHER = ("auprc_calibrated", "brier", "ece", "kappa", "bedroc")


@dataclass(frozen=True)
class FurtherMetrics:
    """One value per endpoint, shape ``(n_endpoints,)``; NaN where it is undefined.

    Attributes:
        auprc_calibrated: Average precision at the reference rate of actives; needs both classes.
        brier: Mean squared error of the probability.
        ece: Mean gap between probability and share of actives over ten bins of equal width, weighted by labels.
        kappa: Cohen's, at a cut of 0.5; NaN where labels and predictions are of one and the same class.
        bedroc: Early recognition, in ``[0, 1]``; ties count with their mean; needs both classes.
    """

    auprc_calibrated: FloatVector
    brier: FloatVector
    ece: FloatVector
    kappa: FloatVector
    bedroc: FloatVector


def further_metrics(
    endpoint: npt.NDArray[np.integer],
    label: npt.NDArray[np.integer],
    probability: npt.NDArray[np.floating],
    *,
    n_endpoints: int,
) -> FurtherMetrics:
    """Compute the metrics of all endpoints from one row per label, in any order.

    Args:
        endpoint: Endpoint index of each label, shape ``(n_labels,)``, in ``[0, n_endpoints)``.
        label: 1 for active, 0 for inactive.
        probability: Predicted probability of active, in ``[0, 1]``.
        n_endpoints: Length of the result.
    """
    order = np.lexsort((probability, endpoint))
    endpoint, active = np.asarray(endpoint)[order], np.asarray(label)[order] == 1
    probability = np.asarray(probability, dtype=np.float64)[order]
    n_labels = np.bincount(endpoint, minlength=n_endpoints)
    n_active = np.bincount(endpoint[active], minlength=n_endpoints)
    groups = ranked_groups(endpoint, active, probability, n_endpoints=n_endpoints)
    with np.errstate(divide="ignore", invalid="ignore"):
        squared = np.bincount(endpoint, weights=(probability - active) ** 2, minlength=n_endpoints)
        return FurtherMetrics(
            auprc_calibrated=_calibrated_auprc(groups, n_active, n_labels),
            brier=squared / n_labels,
            ece=_calibration_error(endpoint, active, probability, n_labels),
            kappa=_kappa(endpoint, active, probability >= CUT, n_active=n_active, n_labels=n_labels),
            bedroc=_bedroc(groups, n_active, n_labels),
        )


def _calibrated_auprc(groups: RankedGroups, n_active: IntVector, n_labels: IntVector) -> FloatVector:
    share = n_active / n_labels
    factor = share * (1 - REFERENCE_RATE) / (REFERENCE_RATE * (1 - share))
    found = n_active[groups.endpoint] - groups.active_before
    false = (n_labels - n_active)[groups.endpoint] - groups.inactive_before
    precision = found / (found + factor[groups.endpoint] * false)
    gained = np.bincount(groups.endpoint, weights=groups.actives * precision, minlength=len(n_labels))
    return _where_both(gained / n_active, n_active, n_labels)


def _calibration_error(
    endpoint: npt.NDArray[np.integer],
    active: npt.NDArray[np.bool_],
    probability: FloatVector,
    n_labels: IntVector,
) -> FloatVector:
    key = endpoint * N_BINS + np.minimum((probability * N_BINS).astype(np.int64), N_BINS - 1)
    gaps = np.bincount(key, weights=probability - active, minlength=len(n_labels) * N_BINS)
    error: FloatVector = np.abs(gaps).reshape(-1, N_BINS).sum(axis=1) / n_labels
    return error


def _kappa(
    endpoint: npt.NDArray[np.integer],
    active: npt.NDArray[np.bool_],
    called: npt.NDArray[np.bool_],
    *,
    n_active: IntVector,
    n_labels: IntVector,
) -> FloatVector:
    n_called = np.bincount(endpoint[called], minlength=len(n_labels))
    agreed = np.bincount(endpoint[called == active], minlength=len(n_labels)) / n_labels
    chance = (n_called * n_active + (n_labels - n_called) * (n_labels - n_active)) / n_labels.astype(
        np.float64
    ) ** 2
    kappa: FloatVector = (agreed - chance) / (1 - chance)
    return kappa


def _bedroc(groups: RankedGroups, n_active: IntVector, n_labels: IntVector) -> FloatVector:
    """Robust initial enhancement, scaled to its own least and largest value."""
    of_group = n_labels[groups.endpoint].astype(np.float64)
    size = groups.actives + groups.inactives
    first = of_group - groups.active_before - groups.inactive_before - size  # rank in front of the group
    rate = EARLY / of_group
    # Mean of exp(-rate * rank) over the group's ranks first + 1 .. first + size, a geometric sum.
    mean = np.exp(-rate * (first + 1)) * np.expm1(-rate * size) / (np.expm1(-rate) * size)
    gained = np.bincount(groups.endpoint, weights=groups.actives * mean, minlength=len(n_labels))
    expected = -np.expm1(-EARLY) / (n_labels * np.expm1(EARLY / n_labels))
    enhancement = gained / n_active / expected
    share = n_active / n_labels
    largest = np.expm1(-EARLY * share) / (share * np.expm1(-EARLY))
    least = np.expm1(EARLY * share) / (share * np.expm1(EARLY))
    return _where_both((enhancement - least) / (largest - least), n_active, n_labels)


def _where_both(values: FloatVector, n_active: IntVector, n_labels: IntVector) -> FloatVector:
    return np.where((n_active > 0) & (n_active < n_labels), values, np.nan)
