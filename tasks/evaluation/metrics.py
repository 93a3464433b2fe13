"""AUROC, AUPRC and log-loss of all endpoints in one pass.

Why: one metric call per endpoint dominates wall time at tens of thousands of endpoints; one sort does not.
Runs: on the partner. Source: Mann-Whitney U with average ranks for ties; average precision as a sum over
distinct thresholds and clipping of log-loss as in scikit-learn, the oracle in tests/evaluation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntVector = npt.NDArray[np.int64]
FloatVector = npt.NDArray[np.float64]

METRICS = ("auroc", "auprc", "log_loss")
REGRESSION_METRICS = ("rmse", "rmse_censored", "r2", "spearman", "concordance")
"""Those of regression endpoints; see ``regression_metrics``."""
PERFECT = {
    "auroc": 1.0,
    "auprc": 1.0,
    "log_loss": 0.0,
    "rmse": 0.0,
    "rmse_censored": 0.0,
    "r2": 1.0,
    "spearman": 1.0,
    "concordance": 1.0,
}
"""The value of each metric that cannot be improved; where it is 0, smaller is better."""
METRICS_OF: Mapping[str, tuple[str, ...]] = {
    "classification": METRICS,
    "regression": REGRESSION_METRICS,
    "hybrid": METRICS + REGRESSION_METRICS,
}
"""What is measured in a study of each modality."""
SELECTION = {"classification": ("auprc",), "regression": ("concordance",), "hybrid": ("auprc", "concordance")}
"""What chooses between models, by its mean: both lie between 0 and 1, whatever the scales of the assays."""

_EPSILON = float(np.finfo(np.float64).eps)


def selection_value(means: Mapping[str, float | None], modality: str) -> float | None:
    """The one figure that chooses between models, higher is better; None where it could not be measured."""
    found = [means.get(name) for name in SELECTION[modality]]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class EndpointMetrics:
    """Metrics of every endpoint; each array has shape ``(n_endpoints,)``.

    ``auroc`` and ``auprc`` are NaN where an endpoint has labels of one class only, ``log_loss`` where it has none.
    """

    n_active: IntVector
    n_inactive: IntVector
    auroc: FloatVector
    auprc: FloatVector
    log_loss: FloatVector

    def counted(self, in_evaluation: npt.NDArray[np.bool_], *, min_per_class: int) -> npt.NDArray[np.bool_]:
        """Tell which endpoints enter a mean: those meant for evaluation, with enough labels of both classes.

        Args:
            in_evaluation: Shape ``(n_endpoints,)``, from the ``endpoints`` table.
            min_per_class: Fewest actives and fewest inactives; at least 1.

        Returns:
            Mask of shape ``(n_endpoints,)``.
        """
        quorum = max(min_per_class, 1)
        return in_evaluation & (self.n_active >= quorum) & (self.n_inactive >= quorum)

    def means(self, counted: npt.NDArray[np.bool_]) -> dict[str, float | None]:
        """Average each metric over the counted endpoints; None where there are none."""
        if not counted.any():
            return dict.fromkeys(METRICS)
        return {name: float(getattr(self, name)[counted].mean()) for name in METRICS}


def endpoint_metrics(
    endpoint: npt.NDArray[np.integer],
    label: npt.NDArray[np.integer],
    probability: npt.NDArray[np.floating],
    *,
    n_endpoints: int,
) -> EndpointMetrics:
    """Compute the metrics of all endpoints from one row per label, in any order.

    Args:
        endpoint: Endpoint index of each label, shape ``(n_labels,)``, in ``[0, n_endpoints)``.
        label: 1 for active, 0 for inactive, shape ``(n_labels,)``.
        probability: Predicted probability of active, shape ``(n_labels,)``, finite, in ``[0, 1]``.
        n_endpoints: Length of the result.

    Returns:
        The metrics; the ranking metrics handle ties exactly, independent of the order of rows.
    """
    order = np.lexsort((probability, endpoint))
    endpoint, active = np.asarray(endpoint)[order], np.asarray(label)[order] == 1
    probability = np.asarray(probability, dtype=np.float64)[order]
    n_labels = np.bincount(endpoint, minlength=n_endpoints)
    n_active = np.bincount(endpoint[active], minlength=n_endpoints)
    n_inactive = n_labels - n_active
    groups = ranked_groups(endpoint, active, probability, n_endpoints=n_endpoints)
    auroc, auprc = _ranking(groups, n_active=n_active, n_inactive=n_inactive)
    clipped = np.clip(probability, _EPSILON, 1 - _EPSILON)
    loss = -np.log(np.where(active, clipped, 1 - clipped))
    with np.errstate(invalid="ignore"):
        log_loss = np.bincount(endpoint, weights=loss, minlength=n_endpoints) / n_labels
    return EndpointMetrics(
        n_active=n_active, n_inactive=n_inactive, auroc=auroc, auprc=auprc, log_loss=log_loss
    )


@dataclass(frozen=True)
class RankedGroups:
    """Labels of equal probability on one endpoint as one group, ordered by endpoint and rising probability.

    All arrays have shape ``(n_groups,)``.

    Attributes:
        endpoint: Endpoint of each group.
        actives: Actives in the group.
        inactives: Inactives in the group.
        active_before: Actives of the endpoint with a lower probability.
        inactive_before: Inactives of the endpoint with a lower probability.
    """

    endpoint: IntVector
    actives: IntVector
    inactives: IntVector
    active_before: IntVector
    inactive_before: IntVector


def ranked_groups(
    endpoint: npt.NDArray[np.integer],
    active: npt.NDArray[np.bool_],
    probability: FloatVector,
    *,
    n_endpoints: int,
) -> RankedGroups:
    """Group rows that are sorted by endpoint, then by probability."""
    starts = np.flatnonzero(
        np.diff(endpoint, prepend=-1).astype(bool) | np.diff(probability, prepend=-1).astype(bool)
    )
    if not len(starts):
        nothing = np.empty(0, dtype=np.int64)
        return RankedGroups(nothing, nothing, nothing, nothing, nothing)
    group_endpoint = endpoint[starts].astype(np.int64)
    actives = np.add.reduceat(active.astype(np.int64), starts)
    inactives = np.diff(starts, append=len(endpoint)) - actives
    return RankedGroups(
        endpoint=group_endpoint,
        actives=actives,
        inactives=inactives,
        active_before=_before(actives, group_endpoint, n_endpoints=n_endpoints),
        inactive_before=_before(inactives, group_endpoint, n_endpoints=n_endpoints),
    )


def _before(counts: IntVector, endpoint: IntVector, *, n_endpoints: int) -> IntVector:
    """Count what came before within each group's endpoint: run over all at once, less what other endpoints had."""
    of_endpoint = np.bincount(endpoint, weights=counts, minlength=n_endpoints).astype(np.int64)
    before: IntVector = np.cumsum(counts) - counts - (np.cumsum(of_endpoint) - of_endpoint)[endpoint]
    return before


def _ranking(
    groups: RankedGroups, *, n_active: IntVector, n_inactive: IntVector
) -> tuple[FloatVector, FloatVector]:
    """AUROC and average precision."""
    n_endpoints = len(n_active)
    doubled_u = np.bincount(
        groups.endpoint,
        weights=groups.actives * (2 * groups.inactive_before + groups.inactives),
        minlength=n_endpoints,
    )
    true_positives = n_active[groups.endpoint] - groups.active_before
    positives = true_positives + n_inactive[groups.endpoint] - groups.inactive_before
    precision_gain = np.bincount(
        groups.endpoint, weights=groups.actives * (true_positives / positives), minlength=n_endpoints
    )
    both = (n_active > 0) & (n_inactive > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        auroc = np.where(both, doubled_u / (2.0 * n_active * n_inactive), np.nan)
        auprc = np.where(both, precision_gain / n_active, np.nan)
    return auroc, auprc
