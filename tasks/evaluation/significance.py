"""Is an endpoint's gain more than chance: DeLong's test of paired AUROCs, corrected for many endpoints.

Why: of a thousand endpoints some gain by luck; a partner counts those that survive a correction that holds whatever
the endpoints share. Runs: on the partner. Source: DeLong et al. 1988 (structural components, midranks as Sun & Xu
2014); Benjamini & Yekutieli 2001, as in MELLODDY's evaluation.
"""

import math

import numpy as np
import numpy.typing as npt

FloatVector = npt.NDArray[np.float64]

SIGNIFICANCE = 0.05


def delong_p_values(
    endpoint: npt.NDArray[np.integer],
    label: npt.NDArray[np.integer],
    *,
    better: FloatVector,
    worse: FloatVector,
    n_endpoints: int,
) -> FloatVector:
    """One-sided p-value of each endpoint that the AUROC of ``better`` is larger.

    Args:
        endpoint: Endpoint of each label, shape ``(n_labels,)``.
        label: 1 for active, 0 for inactive.
        better: Score of each label by the model that is claimed to be better.
        worse: Score of the same label by the other.
        n_endpoints: Length of the result.

    Returns:
        NaN where an endpoint has fewer than two labels of a class; 1/2 where both models rank alike.
    """
    order = np.argsort(endpoint, kind="stable")
    bounds = np.searchsorted(endpoint[order], np.arange(n_endpoints + 1))
    found = np.full(n_endpoints, np.nan)
    for number in range(n_endpoints):
        rows = order[bounds[number] : bounds[number + 1]]
        active = label[rows] == 1
        if min(active.sum(), (~active).sum()) > 1:
            found[number] = _one_sided(active, better[rows], worse[rows])
    return found


def _one_sided(active: npt.NDArray[np.bool_], better: FloatVector, worse: FloatVector) -> float:
    of_actives, of_inactives = zip(*(_components(active, scores) for scores in (better, worse)), strict=True)
    gain = float(of_actives[0].mean() - of_actives[1].mean())
    by_active, by_inactive = of_actives[0] - of_actives[1], of_inactives[0] - of_inactives[1]
    variance = float(by_active.var(ddof=1) / len(by_active) + by_inactive.var(ddof=1) / len(by_inactive))
    if variance <= 0:
        return 0.5 if gain == 0 else float(gain < 0)
    return 0.5 * math.erfc(gain / math.sqrt(2 * variance))


def _components(active: npt.NDArray[np.bool_], scores: FloatVector) -> tuple[FloatVector, FloatVector]:
    """For each active the share of inactives below it, for each inactive that of actives above; ties half."""
    ranks = _midranks(scores)
    of_actives = (ranks[active] - _midranks(scores[active])) / int((~active).sum())
    of_inactives = 1 - (ranks[~active] - _midranks(scores[~active])) / int(active.sum())
    return of_actives, of_inactives


def _midranks(scores: FloatVector) -> FloatVector:
    """Ranks from 1; equal scores share the mean of theirs."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks: FloatVector = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def benjamini_yekutieli(p_values: FloatVector) -> FloatVector:
    """Adjusted p-values that control the false discovery rate under any dependence; NaN stays NaN and counts not."""
    adjusted = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    n = len(tested)
    if n:
        order = tested[np.argsort(p_values[tested], kind="stable")]
        harmonic = float(np.sum(1 / np.arange(1, n + 1)))
        raised = p_values[order] * n * harmonic / np.arange(1, n + 1)
        adjusted[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1)
    return adjusted
