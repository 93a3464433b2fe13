"""AUROC, AUPRC and log-loss of all endpoints in one pass.

Why: one metric call per endpoint dominates wall time at tens of thousands of endpoints; one sort does not.
Runs: on the partner. Source: Mann-Whitney U with average ranks for ties; average precision as a sum over
distinct thresholds and clipping of log-loss as in scikit-learn, the oracle in tests/evaluation.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntVector = npt.NDArray[np.int64]
FloatVector = npt.NDArray[np.float64]

METRICS = ("auroc", "auprc", "log_loss")
PERFECT = {"auroc": 1.0, "auprc": 1.0, "log_loss": 0.0}
"""The value of each metric that cannot be improved; where it is 0, smaller is better."""

_EPSILON = float(np.finfo(np.float64).eps)


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
    auroc, auprc = _ranking(endpoint, active, probability, n_active=n_active, n_inactive=n_inactive)
    clipped = np.clip(probability, _EPSILON, 1 - _EPSILON)
    loss = -np.log(np.where(active, clipped, 1 - clipped))
    with np.errstate(invalid="ignore"):
        log_loss = np.bincount(endpoint, weights=loss, minlength=n_endpoints) / n_labels
    return EndpointMetrics(
        n_active=n_active, n_inactive=n_inactive, auroc=auroc, auprc=auprc, log_loss=log_loss
    )


def _ranking(
    endpoint: npt.NDArray[np.integer],
    active: npt.NDArray[np.bool_],
    probability: FloatVector,
    *,
    n_active: IntVector,
    n_inactive: IntVector,
) -> tuple[FloatVector, FloatVector]:
    """AUROC and average precision of rows sorted by (endpoint, probability), from groups of equal rows."""
    n_endpoints = len(n_active)
    if not len(endpoint):
        return np.full(n_endpoints, np.nan), np.full(n_endpoints, np.nan)
    starts = np.flatnonzero(
        np.diff(endpoint, prepend=-1).astype(bool) | np.diff(probability, prepend=-1).astype(bool)
    )
    group_endpoint = endpoint[starts]
    actives = np.add.reduceat(active.astype(np.int64), starts)
    inactives = np.diff(starts, append=len(endpoint)) - actives
    # Cumulative counts run over all endpoints at once; what came before an endpoint is subtracted.
    active_before = np.cumsum(actives) - actives - (np.cumsum(n_active) - n_active)[group_endpoint]
    inactive_before = np.cumsum(inactives) - inactives - (np.cumsum(n_inactive) - n_inactive)[group_endpoint]
    doubled_u = np.bincount(
        group_endpoint, weights=actives * (2 * inactive_before + inactives), minlength=n_endpoints
    )
    true_positives = n_active[group_endpoint] - active_before
    positives = true_positives + n_inactive[group_endpoint] - inactive_before
    precision_gain = np.bincount(
        group_endpoint, weights=actives * (true_positives / positives), minlength=n_endpoints
    )
    both = (n_active > 0) & (n_inactive > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        auroc = np.where(both, doubled_u / (2.0 * n_active * n_inactive), np.nan)
        auprc = np.where(both, precision_gain / n_active, np.nan)
    return auroc, auprc
