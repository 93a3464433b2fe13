"""RMSE, R2, Spearman's rank correlation and concordance of all regression endpoints in one pass.

Why: numbers are judged by other measures than classes, and a censored value still says on which side the truth lies.
Runs: on the partner. Source: R2 as scikit-learn, rank correlation with average ranks as SciPy, the oracles in the
tests; Harrell et al. 1982 for concordance, here with bounds on either side; one-sided errors as SparseChem.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.evaluation.metrics import REGRESSION_METRICS

IntVector = npt.NDArray[np.int64]
FloatVector = npt.NDArray[np.float64]
BoolVector = npt.NDArray[np.bool_]

ABOVE, BELOW = 1, -1
"""Censoring: the truth lies above the value, or below it; 0 is measured."""


@dataclass(frozen=True)
class RegressionMetrics:
    """Metrics of every regression endpoint; each array has shape ``(n_endpoints,)``, NaN where undefined.

    Attributes:
        n_values: Values, bounds included.
        n_uncensored: Measured ones among them; ``rmse``, ``r2`` and ``spearman`` look at these alone.
        rmse: Root of the mean squared error, on the assay's scale.
        rmse_censored: The same over all values, where a bound counts only if the prediction breaks it.
        r2: Coefficient of determination.
        spearman: Rank correlation; 0 where the predictions do not vary.
        concordance: Share of the pairs whose order is known, bounds included, that are predicted in this order.
    """

    n_values: IntVector
    n_uncensored: IntVector
    rmse: FloatVector
    rmse_censored: FloatVector
    r2: FloatVector
    spearman: FloatVector
    concordance: FloatVector

    def counted(self, in_evaluation: BoolVector, *, min_values: int) -> BoolVector:
        """Tell which endpoints enter a mean: those meant for evaluation, with enough measured values that vary.

        Args:
            in_evaluation: Shape ``(n_endpoints,)``.
            min_values: Fewest measured values; at least 2.
        """
        return in_evaluation & (self.n_uncensored >= max(min_values, 2)) & np.isfinite(self.r2)

    def means(self, counted: BoolVector) -> dict[str, float | None]:
        """Average each metric over the counted endpoints; None where there are none."""
        if not counted.any():
            return dict.fromkeys(REGRESSION_METRICS)
        return {name: float(getattr(self, name)[counted].mean()) for name in REGRESSION_METRICS}


def regression_metrics(
    endpoint: npt.NDArray[np.integer],
    value: npt.NDArray[np.floating],
    censoring: npt.NDArray[np.integer],
    prediction: npt.NDArray[np.floating],
    *,
    n_endpoints: int,
) -> RegressionMetrics:
    """Compute the metrics of all endpoints from one row per value, in any order.

    Args:
        endpoint: Endpoint of each value, shape ``(n_values,)``, in ``[0, n_endpoints)``.
        value: Measured value or bound, on the assay's scale.
        censoring: 0 measured, 1 the truth lies above, -1 below.
        prediction: Predicted value, on the assay's scale, finite.
        n_endpoints: Length of the result.
    """
    value, prediction = np.asarray(value, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    whole: IntVector = np.asarray(endpoint, dtype=np.int64)
    free = np.asarray(censoring) == 0
    error = prediction - value
    broken = np.where(free, error, np.where(censoring == ABOVE, np.minimum(error, 0), np.maximum(error, 0)))
    n_values = np.bincount(whole, minlength=n_endpoints)
    of = whole[free]
    truth, predicted = value[free], prediction[free]
    n_free = np.bincount(of, minlength=n_endpoints)
    squares = _sums(of, np.square(error[free]), n_endpoints)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = _sums(of, np.square(truth - (_sums(of, truth, n_endpoints) / n_free)[of]), n_endpoints)
        return RegressionMetrics(
            n_values=n_values,
            n_uncensored=n_free,
            rmse=np.sqrt(squares / n_free),
            rmse_censored=np.sqrt(_sums(whole, np.square(broken), n_endpoints) / n_values),
            r2=np.where(spread > 0, 1 - squares / np.where(spread > 0, spread, 1), np.nan),
            spearman=_correlation(
                of, _ranks(of, truth, n_endpoints), _ranks(of, predicted, n_endpoints), n_endpoints
            ),
            concordance=concordance(endpoint, value, censoring, prediction, n_endpoints=n_endpoints),
        )


def _sums(endpoint: IntVector, values: FloatVector, n_endpoints: int) -> FloatVector:
    return np.asarray(np.bincount(endpoint, weights=values, minlength=n_endpoints), dtype=np.float64)


def _ranks(endpoint: IntVector, values: FloatVector, n_endpoints: int) -> FloatVector:
    """Rank of each value within its endpoint, the mean one among equals."""
    order = np.lexsort((values, endpoint))
    sorted_of, ordered = endpoint[order], values[order]
    starts = np.flatnonzero(
        np.diff(sorted_of, prepend=-1).astype(bool) | np.diff(ordered, prepend=np.nan).astype(bool)
    )
    sizes = np.diff(starts, append=len(order))
    counts = np.bincount(endpoint, minlength=n_endpoints)
    first = starts - (np.cumsum(counts) - counts)[sorted_of[starts]]
    ranks = np.empty(len(order))
    ranks[order] = np.repeat(first + (sizes - 1) / 2, sizes)
    return ranks


def _correlation(endpoint: IntVector, x: FloatVector, y: FloatVector, n_endpoints: int) -> FloatVector:
    """Pearson's correlation within each endpoint; NaN where ``x`` does not vary, 0 where only ``y`` does not."""
    count = np.bincount(endpoint, minlength=n_endpoints)
    x, y = (part - (_sums(endpoint, part, n_endpoints) / count)[endpoint] for part in (x, y))
    of_x, of_y, both = (_sums(endpoint, part, n_endpoints) for part in (x * x, y * y, x * y))
    return np.where(of_x > 0, np.where(of_y > 0, both / np.sqrt(of_x * of_y), 0.0), np.nan)


def concordance(
    endpoint: npt.NDArray[np.integer],
    value: npt.NDArray[np.floating],
    censoring: npt.NDArray[np.integer],
    prediction: npt.NDArray[np.floating],
    *,
    n_endpoints: int,
) -> FloatVector:
    """Share of the pairs of known order that are predicted in this order, equal predictions counting half.

    The order of two values is known if the lowest that one may be lies above the highest that the other may be. Pairs
    are counted by halves of ever larger blocks, for all endpoints together in O(n log^2 n).

    Args:
        endpoint: Endpoint of each value, shape ``(n_values,)``.
        value: Measured value or bound.
        censoring: 0 measured, 1 the truth lies above, -1 below.
        prediction: Predicted value.
        n_endpoints: Length of the result; NaN where no order is known.
    """
    n = len(endpoint)
    lowest = np.where(censoring == BELOW, -np.inf, value)
    highest = np.where(censoring == ABOVE, np.inf, value)
    # Each value asks with its lowest, and is counted with its highest; asking comes first among equals: strictly above.
    asks = np.repeat([True, False], n)
    of = np.tile(np.asarray(endpoint, dtype=np.int64), 2)
    order = np.lexsort((~asks, np.concatenate([lowest, highest]), of))
    asks, of = asks[order], of[order]
    # Predictions of earlier endpoints are made the larger ones, so that no pair across endpoints looks concordant.
    rank = _dense_ranks(np.tile(np.asarray(prediction, dtype=np.float64), 2)[order], of)
    below, not_above = _smaller_before(rank, asks)
    counted = (~asks).astype(np.int64)
    of_endpoint = np.bincount(of, weights=counted, minlength=n_endpoints).astype(np.int64)
    before = np.cumsum(counted) - counted - (np.cumsum(of_endpoint) - of_endpoint)[of]
    pairs = np.bincount(of, weights=before * asks, minlength=n_endpoints)
    agreeing = np.bincount(of, weights=(below + not_above) / 2, minlength=n_endpoints)
    return np.where(pairs > 0, agreeing / np.maximum(pairs, 1), np.nan)


def _dense_ranks(prediction: FloatVector, endpoint: IntVector) -> IntVector:
    order = np.lexsort((prediction, -endpoint))
    changes = np.diff(prediction[order], prepend=np.nan).astype(bool) | np.diff(
        endpoint[order], prepend=-1
    ).astype(bool)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.cumsum(changes)
    return ranks


def _smaller_before(rank: IntVector, asks: BoolVector) -> tuple[IntVector, IntVector]:
    """For each row that asks, how many of the others before it have a smaller rank, and how many no larger one."""
    n = len(rank)
    place, n_ranks = np.arange(n), int(rank.max(initial=0)) + 1
    smaller, not_larger = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    half = 1
    while half < n:
        key = place // (2 * half) * n_ranks + rank
        right = (place // half) % 2 == 1
        left = np.sort(key[~right & ~asks])
        asking = right & asks
        base = np.searchsorted(left, key[asking] - rank[asking])
        smaller[asking] += np.searchsorted(left, key[asking]) - base
        not_larger[asking] += np.searchsorted(left, key[asking], side="right") - base
        half *= 2
    return smaller, not_larger
