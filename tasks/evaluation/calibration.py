"""Probability calibration of every endpoint: Platt scaling that leans on all endpoints together.

Why: a network trained to rank is too sure of itself, and an endpoint with thirty validation labels is too few to say
how much; so its slope and offset are pulled towards those of all endpoints. Runs: on the partner.
Source: Platt 1999; the prior is own, its strength checked in tests/evaluation/test_calibration.py.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatVector = npt.NDArray[np.float64]
IntVector = npt.NDArray[np.integer]

SLOPE_PRECISION, OFFSET_PRECISION = 100.0, 30.0
"""Strength of the pull, in labels times information each; of eight pairs the best on real test folds (docs/training-and-evaluation.md)."""
LEAST_SLOPE = 0.05  # calibration never turns a ranking round
N_STEPS = 25
LARGEST_STEP = 1.0
SMALLEST_PROBABILITY = 1e-12
WEAK_PRIOR = 1e-3  # keeps the fit over all endpoints finite where labels are of one class


@dataclass(frozen=True)
class Calibration:
    """``sigmoid(slope * logit + offset)`` per endpoint; both of shape ``(n_endpoints,)``, slopes positive."""

    slope: FloatVector
    offset: FloatVector

    def apply(self, endpoint: IntVector, logit: FloatVector) -> FloatVector:
        """Calibrated probabilities of labels, shape ``(n_labels,)``."""
        return sigmoid(self.slope[endpoint] * logit + self.offset[endpoint])


def fit_calibration(
    endpoint: IntVector, label: IntVector, logit: FloatVector, *, n_endpoints: int
) -> Calibration:
    """Fit slope and offset of every endpoint on labels that no model was trained on.

    Args:
        endpoint: Endpoint of each label, shape ``(n_labels,)``.
        label: 1 for active, 0 for inactive.
        logit: Score of each label before the sigmoid, finite.
        n_endpoints: Length of the result; an endpoint without labels gets what all endpoints together say.
    """
    everything = np.zeros(len(endpoint), dtype=np.int64)
    whole = _fit(
        everything,
        label,
        logit,
        start=(np.ones(1), np.zeros(1)),
        precision=(WEAK_PRIOR, WEAK_PRIOR),
    )
    start = (np.repeat(whole.slope, n_endpoints), np.repeat(whole.offset, n_endpoints))
    return _fit(endpoint, label, logit, start=start, precision=(SLOPE_PRECISION, OFFSET_PRECISION))


def logits_of_probabilities(probability: FloatVector) -> FloatVector:
    """Logits of probabilities, finite also for 0 and 1."""
    clipped = np.clip(probability, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    logits: FloatVector = np.log(clipped) - np.log1p(-clipped)
    return logits


def sigmoid(logit: FloatVector) -> FloatVector:
    """Probability of a logit, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logit)))


def _fit(
    endpoint: IntVector,
    label: IntVector,
    logit: FloatVector,
    *,
    start: tuple[FloatVector, FloatVector],
    precision: tuple[float, float],
) -> Calibration:
    """Newton's method on all endpoints at once, from the prior's mean."""
    slope, offset = start[0].copy(), start[1].copy()
    n = len(slope)

    def summed(values: FloatVector) -> FloatVector:
        return np.bincount(endpoint, weights=values, minlength=n).astype(np.float64)

    for _ in range(N_STEPS):
        probability = sigmoid(slope[endpoint] * logit + offset[endpoint])
        residual = probability - label
        curvature = probability * (1 - probability)
        of_slope = summed(residual * logit) + precision[0] * (slope - start[0])
        of_offset = summed(residual) + precision[1] * (offset - start[1])
        a = summed(curvature * logit**2) + precision[0]
        b = summed(curvature * logit)
        c = summed(curvature) + precision[1]
        determinant = a * c - b * b
        slope -= np.clip((c * of_slope - b * of_offset) / determinant, -LARGEST_STEP, LARGEST_STEP)
        offset -= np.clip((a * of_offset - b * of_slope) / determinant, -LARGEST_STEP, LARGEST_STEP)
    return Calibration(slope=np.maximum(slope, LEAST_SLOPE), offset=offset)
