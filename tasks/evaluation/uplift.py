"""Uplift: what federation gives a partner over training alone, and how much of the possible gain that is.

Why: a partner stays if its own endpoints improve; a mean without an interval persuades nobody.
Runs: on the partner (its own endpoints), or over all partners in a simulation on one machine.
Source: MELLODDY's performance evaluation: RIPtoP = (MP - SP) / (perfect - SP), 0 if both are perfect, the plain
difference if only SP is; percentile bootstrap (Efron 1979) over assays, and over seeds crossed with them (Owen 2007).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_contracts.errors import ContractViolation
from tasks.evaluation.metrics import METRICS, PERFECT, REGRESSION_METRICS, EndpointMetrics
from tasks.evaluation.regression_metrics import RegressionMetrics

Arm = Literal["single", "federated", "adapted", "pooled", "logistic", "boosted"]
FloatVector = npt.NDArray[np.float64]
BoolVector = npt.NDArray[np.bool_]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with the bounds of its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MetricUplift:
    """One metric over the endpoints that all arms share.

    Args:
        metric: Name of the metric.
        arms: Mean of each arm.
        uplift: Federated minus single, turned so that positive is better.
        riptop: Mean over endpoints of the relative improvement of proximity to perfection.
        gap_closed: Uplift as a share of pooled minus single; None without a pooled arm or where pooling gains
            nothing, because the share then means nothing.
        endpoints_improved: Share of endpoints where federated beats single, ties counted half.
    """

    metric: str
    arms: Mapping[str, Interval]
    uplift: Interval
    riptop: Interval
    gap_closed: Interval | None
    endpoints_improved: float


@dataclass(frozen=True)
class Uplift:
    """All metrics of one partner, or of a simulated consortium."""

    n_endpoints: int
    metrics: Mapping[str, MetricUplift]


def riptop(multi: FloatVector, single: FloatVector, *, perfect: float) -> FloatVector:
    """Relative improvement of proximity to perfection, per endpoint; positive is better.

    Args:
        multi: Metric of the federated model, shape ``(n_endpoints,)``.
        single: Metric of the partner's own model, the same shape.
        perfect: The value that cannot be improved: 1 for AUROC and AUPRC, 0 for log-loss.

    Returns:
        ``(multi - single) / (perfect - single)``; 0 if both are perfect; if only ``single`` is, the plain
        difference (negated where smaller is better), as MELLODDY has it.
    """
    distance = perfect - single
    plain = (multi - single) if perfect else (single - multi)
    return np.divide(multi - single, distance, out=plain, where=distance != 0)


def compare(
    arms: Mapping[Arm, EndpointMetrics],
    counted: BoolVector,
    *,
    rng: np.random.Generator,
    groups: Sequence[npt.NDArray[Any]] = (),
    n_bootstrap: int = 2000,
) -> Uplift:
    """Compare the arms of one partner.

    Args:
        arms: Metrics of ``single``, ``federated`` and perhaps ``pooled``, on the same labels.
        counted: Which endpoints enter, shape ``(n_endpoints,)``.
        rng: Source of the bootstrap.
        groups: What is drawn in place of single endpoints, as one name per endpoint: its assay, whose thresholds
            share compounds and so rise and fall together; a second one is crossed with it.
        n_bootstrap: Number of resamples.

    Returns:
        The uplift over the counted endpoints.

    Raises:
        ContractViolation: If an arm is missing or was measured on other labels, or no endpoint counts.
    """
    _check_arms(arms, counted)
    columns = {
        metric: {arm: getattr(found, metric)[counted] for arm, found in arms.items()} for metric in METRICS
    }
    drawn = resampled_weights([names[counted] for names in groups], int(counted.sum()), rng, n_bootstrap)
    return _uplift(columns, drawn)


def compare_regression(
    arms: Mapping[Arm, RegressionMetrics],
    counted: BoolVector,
    *,
    rng: np.random.Generator,
    n_bootstrap: int = 2000,
) -> Uplift:
    """Compare the arms of one partner on its regression endpoints; arguments, result and errors as of ``compare``."""
    _check_arms(arms, counted)
    columns = {
        metric: {arm: getattr(found, metric)[counted] for arm, found in arms.items()}
        for metric in REGRESSION_METRICS
    }
    return _uplift(columns, resampled_weights((), int(counted.sum()), rng, n_bootstrap))


def compare_consortium(
    partners: Sequence[tuple[Mapping[Arm, EndpointMetrics], BoolVector]],
    *,
    rng: np.random.Generator,
    n_bootstrap: int = 2000,
) -> Uplift:
    """Compare the arms over the (partner, endpoint) pairs of all partners; for simulations on one machine.

    Across sites the coordinator has sums only: see ``tasks.evaluation.sums``.

    Raises:
        ContractViolation: As ``compare``, or if the partners have different arms.
    """
    if not partners:
        raise ContractViolation("no partner to compare; give at least one partner's metrics")
    for arms, counted in partners:
        _check_arms(arms, counted)
    names = set(partners[0][0])
    if any(set(arms) != names for arms, _ in partners):
        raise ContractViolation(f"all partners need the arms {sorted(names)}; measure the missing ones")
    columns = {
        metric: {
            arm: np.concatenate([getattr(arms[arm], metric)[counted] for arms, counted in partners])
            for arm in partners[0][0]
        }
        for metric in METRICS
    }
    drawn = resampled_weights((), sum(int(counted.sum()) for _, counted in partners), rng, n_bootstrap)
    return _uplift(columns, drawn)


def resampled_weights(
    groups: Sequence[npt.NDArray[Any]], n: int, rng: np.random.Generator, n_bootstrap: int
) -> FloatVector:
    """Draw resamples as weights: one matrix product then averages every column.

    Args:
        groups: Labelings of the ``n`` values; those of equal name are drawn together, and the draws of several labelings
            multiply (Owen's pigeonhole bootstrap). Without any, every value is drawn by itself.
        n: Number of values.
        rng: Source of the draws.
        n_bootstrap: Number of resamples.

    Returns:
        Shape ``(at most n_bootstrap, n)``, each row summing to 1; a resample that drew nothing is left out.
    """
    weights = np.ones((n_bootstrap, n))
    for names in groups or (np.arange(n),):
        _, member = np.unique(names, return_inverse=True)
        size = int(member.max()) + 1
        weights *= rng.multinomial(size, np.full(size, 1 / size), size=n_bootstrap)[:, member]
    total = weights.sum(axis=1, keepdims=True)
    found: FloatVector = weights[total[:, 0] > 0] / total[total > 0][:, None]
    return found


def _uplift(columns: Mapping[str, Mapping[Arm, FloatVector]], draws: FloatVector) -> Uplift:
    return Uplift(
        n_endpoints=draws.shape[1],
        metrics={metric: _metric_uplift(metric, arms, draws) for metric, arms in columns.items()},
    )


def _metric_uplift(metric: str, arms: Mapping[Arm, FloatVector], draws: FloatVector) -> MetricUplift:
    sign = 1.0 if PERFECT[metric] else -1.0
    single, federated = arms["single"], arms["federated"]
    gain = sign * (federated - single)
    gap_closed = None
    if "pooled" in arms:
        gap_closed = _share(gain, sign * (arms["pooled"] - single), draws)
    return MetricUplift(
        metric=metric,
        arms={name: _interval(values, draws) for name, values in arms.items()},
        uplift=_interval(gain, draws),
        riptop=_interval(riptop(federated, single, perfect=PERFECT[metric]), draws),
        gap_closed=gap_closed,
        endpoints_improved=float(np.mean(np.where(gain == 0, 0.5, gain > 0))),
    )


def _interval(values: FloatVector, draws: FloatVector) -> Interval:
    return _bounds(float(values.mean()), draws @ values)


def _share(gain: FloatVector, possible: FloatVector, draws: FloatVector) -> Interval | None:
    """Ratio of means; None where pooling gains nothing on the mean."""
    if possible.mean() <= 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = (draws @ gain) / (draws @ possible)
    return _bounds(float(gain.mean() / possible.mean()), resampled[np.isfinite(resampled)])


def _bounds(value: float, resampled: FloatVector) -> Interval:
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value=value, low=float(low), high=float(high))


def _check_arms(
    arms: Mapping[Arm, EndpointMetrics] | Mapping[Arm, RegressionMetrics], counted: BoolVector
) -> None:
    missing = {"single", "federated"} - set(arms)
    if missing:
        raise ContractViolation(
            f"a comparison needs the arms 'single' and 'federated', missing {sorted(missing)}"
        )
    if not counted.any():
        raise ContractViolation(
            "no endpoint has enough labels of both classes to be compared; bring more activities or lower min_per_class"
        )
    single = _counts(arms["single"])
    for name, other in arms.items():
        if not np.array_equal(single, _counts(other)) or counted.shape != single.shape[1:]:
            raise ContractViolation(
                f"arm '{name}' was measured on other labels than 'single'; score both on the same folds"
            )


def _counts(found: EndpointMetrics | RegressionMetrics) -> npt.NDArray[np.int64]:
    """What an arm was measured on, shape ``(2, n_endpoints)``."""
    if isinstance(found, RegressionMetrics):
        return np.stack([found.n_values, found.n_uncensored])
    return np.stack([found.n_active, found.n_inactive])
