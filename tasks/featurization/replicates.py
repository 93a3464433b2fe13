"""Replicates: what several values of one structure in one assay say together.

Why: a rule per kind of assay, each a pure function over all pairs at once instead of Python per pair.
Runs: on the partner. Source: MELLODDY-TUNER 3 (``aggregate_values``, read in its code) for all but
``median_or_bounds``, which is our own; where equal values differ in their relation, the measured one wins, so that
the order of the rows decides nothing.

Every rule takes rows sorted by pair and where each pair starts, and answers with one value a pair.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.featurization.measurements import BoolVector, FloatVector, IntVector, Measured, order_within

Relations = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Replicates:
    """Rows sorted by pair.

    Attributes:
        first: First row of each pair, shape ``(n_pairs,)``, ascending from 0; no pair is empty.
        value: Shape ``(n_rows,)``.
        relation: -1, 0 or 1 for ``<``, ``=``, ``>``, shape ``(n_rows,)``.
    """

    first: IntVector
    value: FloatVector
    relation: Relations

    @property
    def pair(self) -> IntVector:
        """Pair of each row."""
        return np.repeat(np.arange(len(self.first)), self.count)

    @property
    def count(self) -> IntVector:
        """Rows of each pair."""
        return np.diff(np.append(self.first, len(self.value)))

    def of_pairs(self, wanted: BoolVector) -> "Replicates":
        """Keep some pairs."""
        count = self.count
        rows, counts = np.flatnonzero(np.repeat(wanted, count)), count[wanted]
        return Replicates(np.cumsum(counts) - counts, self.value.take(rows), self.relation.take(rows))

    def tally(self, relation: int) -> IntVector:
        """Rows of each pair with a given relation."""
        return np.add.reduceat((self.relation == relation).astype(np.int64), self.first)


@dataclass(frozen=True)
class Summary:
    """One row per pair; ``lower`` and ``upper`` as in ``Measured``; where not ``sound`` the pair is contradictory."""

    lower: FloatVector
    upper: FloatVector
    sound: BoolVector


def summary_of(value: FloatVector, relation: Relations, sound: BoolVector | None = None) -> Summary:
    """Say values and relations as strict bounds."""
    lower, upper = value.copy(), value.copy()
    lower[np.flatnonzero(relation < 0)] = -np.inf
    upper[np.flatnonzero(relation > 0)] = np.inf
    return Summary(lower, upper, np.ones(len(value), dtype=np.bool_) if sound is None else sound)


def median_or_bounds(rows: Replicates) -> Summary:
    """Take the median of measured values, else the tightest bounds that censored ones give."""
    # Within a pair the measured values come first, sorted: the median is the mean of the middle one or two.
    value = rows.value[order_within(2 * rows.pair + (rows.relation != 0), rows.value)]
    n_measured = rows.tally(0)
    middle = rows.first + np.maximum(n_measured - 1, 0) // 2
    other = np.minimum(rows.first + n_measured // 2, len(value) - 1)
    median = value[middle] / 2 + value[other] / 2
    lower = np.maximum.reduceat(np.where(rows.relation > 0, rows.value, -np.inf), rows.first)
    upper = np.minimum.reduceat(np.where(rows.relation < 0, rows.value, np.inf), rows.first)
    measured = n_measured > 0
    return Summary(
        np.where(measured, median, lower), np.where(measured, median, upper), measured | (lower < upper)
    )


def highest(rows: Replicates) -> Summary:
    """Take the highest value; "below" counts only where there is nothing else."""
    considered = (rows.relation >= 0) | (rows.tally(-1) == rows.count)[rows.pair]
    return _extreme(rows, np.where(considered, rows.value, -np.inf))


def lowest(rows: Replicates) -> Summary:
    """Take the lowest value, whatever its relation."""
    return _extreme(rows, -rows.value)


def largest_magnitude(rows: Replicates) -> Summary:
    """Take the value farthest from zero; of two opposite ones the positive."""
    return _extreme(rows, np.abs(rows.value))


def _extreme(rows: Replicates, score: FloatVector) -> Summary:
    """Take the row with the highest score; of equal ones a measured one, then the highest value, then "above"."""
    pair = rows.pair
    best = score == np.maximum.reduceat(score, rows.first)[pair]
    measured = np.logical_or.reduceat(best & (rows.relation == 0), rows.first)
    best &= (rows.relation == 0) | ~measured[pair]
    value = np.maximum.reduceat(np.where(best, rows.value, -np.inf), rows.first)
    best &= rows.value == value[pair]
    relation = np.maximum.reduceat(np.where(best, rows.relation, np.int8(-1)), rows.first)
    return summary_of(value, relation)


def median_with_common_relation(rows: Replicates) -> Summary:
    """Take the median of all values with the most common relation; a draw of "below" and "above" says nothing."""
    value = rows.value[order_within(rows.pair, rows.value)]
    count = rows.count
    median = value[rows.first + (count - 1) // 2] / 2 + value[rows.first + count // 2] / 2
    below, equal, above = (rows.tally(relation) for relation in (-1, 0, 1))
    censored = np.maximum(below, above)
    drawn = (below == above) & (below > equal)
    relation = np.where(equal >= censored, 0, np.where(above > below, 1, -1))
    return summary_of(median, relation.astype(np.int8), ~drawn)


def majority(rows: Replicates) -> Summary:
    """Vote on binary results, +1 or -1; a draw is active."""
    votes = np.add.reduceat(rows.value, rows.first)
    return summary_of(np.where(votes >= 0, 1.0, -1.0), np.zeros(len(votes), dtype=np.int8))


RULES: Mapping[str, Callable[[Replicates], Summary]] = {
    rule.__name__: rule
    for rule in (
        median_or_bounds,
        highest,
        lowest,
        largest_magnitude,
        median_with_common_relation,
        majority,
    )
}


def aggregate(rows: Replicates, *, rule: IntVector, rules: tuple[str, ...]) -> Summary:
    """Apply to each pair its own rule; a pair with one row is that row.

    Args:
        rows: Rows sorted by pair.
        rule: Index into ``rules`` for each pair.
        rules: Names out of ``RULES``.
    """
    found = summary_of(rows.value.take(rows.first), rows.relation.take(rows.first))
    repeated = rows.count > 1
    which, several, rule = np.flatnonzero(repeated), rows.of_pairs(repeated), rule[repeated]
    for code in np.flatnonzero(np.bincount(rule, minlength=1)).tolist():
        at = rule == code
        wanted, summary = which[at], RULES[rules[code]](several.of_pairs(at))
        for kept, new in zip(
            (found.lower, found.upper, found.sound),
            (summary.lower, summary.upper, summary.sound),
            strict=True,
        ):
            kept[wanted] = new
    return found


def measured_pairs(assay: IntVector, structure: IntVector, summary: Summary) -> Measured:
    """Join pairs with what their replicates say, leaving contradictory ones out.

    Args:
        assay: Assay of each pair.
        structure: Structure of each pair.
        summary: One row per pair.
    """
    return Measured(assay, structure, summary.lower, summary.upper).where(summary.sound)
