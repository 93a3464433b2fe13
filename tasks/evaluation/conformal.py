"""Mondrian conformal prediction per endpoint: sets of classes that hold the true one at a promised rate.

Why: a chemist wants to know where a model may be believed; a set with one class is a prediction, with both a
confession. Validity (does it keep the promise) always stands beside efficiency (how often is it one class).
Runs: on the partner. Source: Vovk et al. 2005, class-conditional inductive conformal prediction; p-value
``(#{a >= a_test} + 1) / (n + 1)`` and efficiency as share of single-label sets, as MELLODDY (Sturm et al. 2023).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatVector = npt.NDArray[np.float64]
IntVector = npt.NDArray[np.integer]
Thresholds = npt.NDArray[np.float64]

LEVELS = (0.05, 0.1, 0.2, 0.3)
"""Significance levels: the promised share of true classes left out."""


@dataclass(frozen=True)
class ConformalThresholds:
    """What decides a set: a class is in it if the logit lies on the right side of its threshold.

    Only order statistics of the calibration scores are kept, not the scores.

    Attributes:
        active: Lowest logit at which *active* is in the set, shape ``(n_levels, n_endpoints)``; -inf: always.
        inactive: Highest logit at which *inactive* is in the set, the same shape; +inf: always.
    """

    active: Thresholds
    inactive: Thresholds

    def sets(
        self, endpoint: IntVector, logit: FloatVector, *, level: int
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which labels have *active* and which have *inactive* in their set, at one of ``LEVELS``."""
        return logit >= self.active[level][endpoint], logit <= self.inactive[level][endpoint]


@dataclass(frozen=True)
class ConformalQuality:
    """How sets do on labels that neither trained nor calibrated the model; shape ``(n_endpoints,)``, NaN without labels.

    Attributes:
        validity_active: Share of actives whose set holds *active*; at least 1 - level is promised.
        validity_inactive: The same of inactives.
        efficiency: Share of labels whose set is one class.
    """

    validity_active: FloatVector
    validity_inactive: FloatVector
    efficiency: FloatVector


def fit_conformal(
    endpoint: IntVector, label: IntVector, logit: FloatVector, *, n_endpoints: int
) -> ConformalThresholds:
    """Find the thresholds of every endpoint, class and level on a calibration fold.

    Args:
        endpoint: Endpoint of each label, shape ``(n_labels,)``.
        label: 1 for active, 0 for inactive.
        logit: Score of each label before the sigmoid.
        n_endpoints: Length of the result; with too few labels a class is always in the set.
    """
    active = label == 1
    return ConformalThresholds(
        active=_lowest(endpoint[active], logit[active], n_endpoints=n_endpoints),
        inactive=-_lowest(endpoint[~active], -logit[~active], n_endpoints=n_endpoints),
    )


def _lowest(endpoint: IntVector, score: FloatVector, *, n_endpoints: int) -> Thresholds:
    """The k-th smallest score of each endpoint, with k = floor(level (n + 1)); -inf where k is 0.

    A test score s is in the set if at least k calibration scores are no larger, which says that its p-value
    ``(#{calibration <= s} + 1) / (n + 1)`` is above the level.
    """
    ordered = score[np.lexsort((score, endpoint))]
    counts = np.bincount(endpoint, minlength=n_endpoints)
    starts = np.cumsum(counts) - counts
    thresholds = np.full((len(LEVELS), n_endpoints), -np.inf)
    for number, level in enumerate(LEVELS):
        # A level that is a whole number of labels must not fall below it by rounding.
        place = np.floor(level * (counts + 1) + 1e-9).astype(np.int64)
        some = place > 0
        thresholds[number, some] = ordered[(starts + place - 1)[some]]
    return thresholds


def conformal_quality(
    thresholds: ConformalThresholds,
    endpoint: IntVector,
    label: IntVector,
    logit: FloatVector,
    *,
    level: int,
    n_endpoints: int,
) -> ConformalQuality:
    """Measure validity and efficiency of every endpoint at one of ``LEVELS``."""
    has_active, has_inactive = thresholds.sets(endpoint, logit, level=level)
    active = label == 1

    def share(hit: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> FloatVector:
        with np.errstate(invalid="ignore"):
            found: FloatVector = np.bincount(
                endpoint[among], weights=hit[among].astype(np.float64), minlength=n_endpoints
            ) / np.bincount(endpoint[among], minlength=n_endpoints)
        return found

    return ConformalQuality(
        validity_active=share(has_active, active),
        validity_inactive=share(has_inactive, ~active),
        efficiency=share(has_active ^ has_inactive, np.ones(len(label), dtype=bool)),
    )
