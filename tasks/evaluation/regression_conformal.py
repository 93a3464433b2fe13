"""Conformal prediction intervals of regression endpoints: half-widths that hold the truth at a promised rate.

Why: a potency without its uncertainty is a guess; validity always stands beside width. Runs: on the partner.
Source: normalized inductive conformal prediction (Papadopoulos & Haralambous 2011), normalized by each endpoint's
deviation, so that an endpoint with too few values of its own borrows the quantile of all.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.evaluation.conformal import LEVELS
from tasks.evaluation.score_tables import RegressionScores

FloatVector = npt.NDArray[np.float64]

FEWEST_OF_ITS_OWN = 20
"""Measured values from which an endpoint has quantiles of its own: the strictest level needs 19."""


@dataclass(frozen=True)
class IntervalQuality:
    """How intervals do on values that calibrated nothing; shape ``(n_endpoints,)``, NaN without measured values.

    Attributes:
        validity: Share of measured values inside; at least 1 - level is promised.
        width: Whole width, on the assay's scale; inf where too little is known to promise anything.
    """

    validity: FloatVector
    width: FloatVector


def fit_half_widths(scores: RegressionScores, *, deviation: FloatVector) -> FloatVector:
    """Find the half-width of every endpoint and level on a calibration fold.

    Only measured values calibrate: how far off a bound is cannot be known.

    Args:
        scores: Predictions of the calibration fold.
        deviation: The model's own deviation of each endpoint, on the assay's scale, shape ``(n_endpoints,)``.

    Returns:
        Shape ``(n_levels, n_endpoints)``; inf where fewer values stand behind it than the level needs.
    """
    free = scores.censoring == 0
    endpoint = scores.endpoint[free]
    n_endpoints = len(deviation)
    distance = np.abs(scores.prediction - scores.value)[free] / deviation[endpoint]
    ordered = distance[np.lexsort((distance, endpoint))]
    counts = np.bincount(endpoint, minlength=n_endpoints)
    starts = np.cumsum(counts) - counts
    of_all = np.sort(distance)
    widths = np.empty((len(LEVELS), n_endpoints))
    for number, level in enumerate(LEVELS):
        common = _place(np.array([len(of_all)]), level)[0]
        widths[number] = of_all[common] if common < len(of_all) else np.inf
        own = counts >= FEWEST_OF_ITS_OWN
        widths[number, own] = ordered[(starts + _place(counts, level))[own]]
    return widths * deviation


def _place(counts: npt.NDArray[np.integer], level: float) -> npt.NDArray[np.int64]:
    """Place, from 0, of the smallest distance that ``ceil((1 - level) (n + 1))`` of the calibration values keep."""
    # A level that is a whole number of values must not rise above it by rounding.
    return np.asarray(np.ceil((1 - level) * (counts + 1) - 1e-9), dtype=np.int64) - 1


def interval_quality(half_width: FloatVector, scores: RegressionScores) -> IntervalQuality:
    """Measure validity and width of every endpoint at one level, ``half_width`` of shape ``(n_endpoints,)``."""
    free = scores.censoring == 0
    endpoint = scores.endpoint[free]
    inside = np.abs(scores.prediction - scores.value)[free] <= half_width[endpoint]
    counts = np.bincount(endpoint, minlength=len(half_width))
    with np.errstate(invalid="ignore"):
        validity = np.bincount(endpoint, weights=inside, minlength=len(half_width)) / counts
    return IntervalQuality(validity=validity, width=np.where(counts > 0, 2 * half_width, np.nan))
