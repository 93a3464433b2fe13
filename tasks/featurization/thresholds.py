"""Thresholds of an assay: given, tried, quantiles, and the auxiliary sandwich around them.

Why: a partner names thresholds for few assays; for the others the data must say where active begins, the same way
at every partner. Runs: on the partner. Source: MELLODDY-TUNER 3 (``apply_thresholding``, read in its code).

Every function works on all assays of a block at once; assays are numbered 0 .. n_assays - 1 within the block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_contracts.vocabulary import THRESHOLD_METHODS
from tasks.featurization.measurements import BoolVector, FloatVector, IntVector, Measured, order_within
from tasks.featurization.preparation_rules import ClassQuorum, ThresholdRule

METHODS = THRESHOLD_METHODS
"""How a threshold was found; the published names where there is one."""
EXPERT, DEFAULT, ADAPTIVE, MEDIAN, QUARTILE, FIXED, AUX_LOW, AUX_HIGH, BINARY = range(len(METHODS))
CENSORED_SHIFT = np.log10(2.0)  # a censored value is taken for one twice as far, for the median only
UPPER_QUARTILE, LOWER_QUARTILE = 0.75, 0.25


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of some assays, ascending, each once.

    Attributes:
        value: Shape ``(n_assays, n_places)``, NaN where there is none.
        method: Index into ``METHODS``, same shape.
    """

    value: FloatVector
    method: npt.NDArray[np.int8]


def joined(columns: Sequence[tuple[FloatVector, int]], *, n_assays: int) -> Thresholds:
    """Sort candidate columns into thresholds; of equal ones the first named stays.

    Args:
        columns: One value an assay (NaN for none) and its method, n_places of them.
        n_assays: Number of assays.
    """
    value = np.full((n_assays, max(len(columns), 1)), np.nan)
    method = np.zeros(value.shape, dtype=np.int8)
    for place, (column, how) in enumerate(columns):
        value[:, place], method[:, place] = column, how
    order = np.argsort(value, axis=1, kind="stable")
    value, method = np.take_along_axis(value, order, axis=1), np.take_along_axis(method, order, axis=1)
    value[:, 1:][np.diff(value, axis=1) == 0] = np.nan
    return Thresholds(value, method)


def given_columns(given: FloatVector) -> list[tuple[FloatVector, int]]:
    """Columns of the thresholds that the assays name; ``given`` has shape ``(n_assays, n_given)``."""
    return [(given[:, place], EXPERT) for place in range(given.shape[1])]


def constant_columns(
    values: Sequence[float], where: BoolVector, method: int
) -> list[tuple[FloatVector, int]]:
    """Columns of the same thresholds for some assays."""
    return [(np.where(where, value, np.nan), method) for value in values]


def adaptive_threshold(
    measured: Measured, *, n_assays: int, trial: Sequence[float], smallest_share: float, quorum: ClassQuorum
) -> FloatVector:
    """Find the first trial threshold with enough actives, for each assay; NaN if none has.

    Args:
        measured: Pairs.
        n_assays: Number of assays.
        trial: Thresholds in the order of trial.
        smallest_share: Of actives among the labels.
        quorum: Fewest actives and inactives.
    """
    # As published, active means at or above whatever the direction of the assay. One histogram over the intervals
    # between the thresholds answers for all of them.
    edges = np.sort(np.array(trial))
    n_bins = len(edges) + 1
    at_or_below = np.searchsorted(edges, measured.lower, side="right")
    first_above = at_or_below.copy()
    censored = np.flatnonzero(is_censored(measured))
    first_above[censored] = np.searchsorted(edges, measured.upper.take(censored), side="left")
    active, inactive = (
        np.bincount(measured.assay * n_bins + place, minlength=n_assays * n_bins).reshape(n_assays, n_bins)
        for place in (at_or_below, first_above)
    )
    active = active[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    inactive = inactive.cumsum(axis=1)[:, :-1]
    enough = (active >= quorum.active) & (inactive >= quorum.inactive)
    enough &= active >= smallest_share * (active + inactive)
    found = np.full(n_assays, np.nan)
    for threshold in reversed(trial):  # the first that is enough has the last word
        found = np.where(enough[:, np.searchsorted(edges, threshold)], threshold, found)
    return found


def quantile(assay: IntVector, value: FloatVector, *, n_assays: int, share: FloatVector) -> FloatVector:
    """Find quantiles of each assay's values with linear interpolation; NaN for an assay without values.

    Args:
        assay: Assay of each value.
        value: Values.
        n_assays: Number of assays.
        share: Between 0 and 1 for each assay, shape ``(n_assays,)`` or ``(n_shares, n_assays)``.

    Returns:
        Quantiles in the shape of ``share``.
    """
    count = np.bincount(assay, minlength=n_assays)
    start = np.cumsum(count) - count
    ordered = np.append(value.take(order_within(assay, value)), np.nan)
    position = share * np.maximum(count - 1, 0)
    below = np.floor(position).astype(np.int64)
    low = ordered[np.where(count, start + below, -1)]
    high = ordered[np.where(count, start + np.minimum(below + 1, np.maximum(count - 1, 0)), -1)]
    found: FloatVector = low + (high - low) * (position - below)
    return found + 0.0  # -0.0 and 0.0 are one threshold


def point_values(measured: Measured) -> FloatVector:
    """The number that stands in each pair: the measured one, or the bound of a censored one."""
    point, open_below = measured.lower.copy(), np.flatnonzero(np.isinf(measured.lower))
    point[open_below] = measured.upper.take(open_below)
    return point


def is_censored(measured: Measured) -> BoolVector:
    """Which pairs are bounds instead of values."""
    return np.asarray(measured.lower != measured.upper, dtype=np.bool_)


def shifted_median(measured: Measured, *, n_assays: int) -> FloatVector:
    """Median of all values of each assay, censored ones moved by log10(2) to where they point."""
    shift = np.where(np.isinf(measured.upper), CENSORED_SHIFT, 0.0)
    shift -= np.where(np.isinf(measured.lower), CENSORED_SHIFT, 0.0)
    half = np.full(n_assays, 0.5)
    return quantile(measured.assay, point_values(measured) + shift, n_assays=n_assays, share=half)


def given_or_adaptive(measured: Measured, given: FloatVector, rule: ThresholdRule) -> Thresholds:
    """Thresholds of dose-response assays: given, else tried, else the median; with the sandwich."""
    n_assays = len(given)
    n_given = (~np.isnan(given)).sum(axis=1)
    none = n_given == 0
    without = measured.where(none[measured.assay])
    tried = adaptive_threshold(
        without,
        n_assays=n_assays,
        trial=rule.trial,
        smallest_share=rule.smallest_active_share,
        quorum=rule.trial_quorum,
    )
    fallback = none & np.isnan(tried)
    median = shifted_median(without.where(fallback[without.assay]), n_assays=n_assays)
    columns = [*given_columns(given), (tried, ADAPTIVE), (median, MEDIAN)]
    if rule.sandwich:
        everything = np.column_stack([column for column, _ in columns])
        known = ~np.isnan(everything)
        some = (n_given <= rule.sandwich_up_to) & known.any(axis=1)
        lowest = np.where(known, everything, np.inf).min(axis=1) - rule.sandwich
        highest = np.where(known, everything, -np.inf).max(axis=1) + rule.sandwich
        columns += [(np.where(some, lowest, np.nan), AUX_LOW), (np.where(some, highest, np.nan), AUX_HIGH)]
    return joined(columns, n_assays=n_assays)


def given_or_quantiles(measured: Measured, given: FloatVector, *, low: BoolVector) -> Thresholds:
    """Thresholds of ADME assays: given, else median and quartile of the uncensored values, if there are two.

    Args:
        measured: Pairs.
        given: Shape ``(n_assays, n_given)``.
        low: Whether low values are active: then the lower quartile is taken.
    """
    n_assays = len(given)
    none = np.asarray(np.isnan(given).all(axis=1))
    uncensored = np.flatnonzero(none.take(measured.assay) & ~is_censored(measured))
    assay, value = measured.assay.take(uncensored), measured.lower.take(uncensored)
    usable = none & (np.bincount(assay, minlength=n_assays) > 1)
    share = np.stack([np.full(n_assays, 0.5), np.where(low, LOWER_QUARTILE, UPPER_QUARTILE)])
    found = quantile(assay, value, n_assays=n_assays, share=share)
    median, quartile = (np.where(usable, column, np.nan) for column in found)
    return joined([*given_columns(given), (median, MEDIAN), (quartile, QUARTILE)], n_assays=n_assays)
