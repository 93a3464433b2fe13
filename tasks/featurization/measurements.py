"""Measurements on one scale: units, replicates, and what a value says about a threshold.

Why: partners agree on rules, not on data; a rule is a vectorised function over all rows at once.
Runs: on the partner. Source: MELLODDY-TUNER 3 for ambiguous censored values (read in its code); its p-scale input
is extended by units, whose relation flips: an IC50 above 10 uM is a pIC50 below 5.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntVector = npt.NDArray[np.int64]
FloatVector = npt.NDArray[np.float64]
BoolVector = npt.NDArray[np.bool_]

P_OF_ONE = {"p": np.nan, "own": np.nan, "M": 0.0, "mM": 3.0, "uM": 6.0, "nM": 9.0, "pM": 12.0}
"""-log10 of one unit in mol/l; a value in unit u has p = P_OF_ONE[u] - log10(value). NaN: used as it is."""
RELATIONS = {"<": -1, "=": 0, ">": 1}
P_DECIMALS = 9  # one concentration in two units must be one value: logarithms differ in the sixteenth digit


@dataclass(frozen=True)
class Measured:
    """One row per (assay, structure): what all its replicates say together, on the assay's scale.

    ``lower`` and ``upper`` are equal for a measured value, and infinite on the side that a censored one leaves open;
    such bounds are strict. All arrays have shape ``(n_pairs,)``.
    """

    assay: IntVector
    structure: IntVector
    lower: FloatVector
    upper: FloatVector

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.assay)

    def where(self, wanted: BoolVector) -> "Measured":
        """Keep some pairs."""
        if wanted.all():
            return self
        return self.at(np.flatnonzero(wanted))

    def run(self, rows: slice) -> "Measured":
        """Look at pairs that follow one another."""
        return Measured(self.assay[rows], self.structure[rows], self.lower[rows], self.upper[rows])

    def at(self, rows: IntVector) -> "Measured":
        """Take some pairs."""
        # Several times faster than with a mask.
        assay, structure = self.assay.take(rows), self.structure.take(rows)
        return Measured(assay, structure, self.lower.take(rows), self.upper.take(rows))

    def rounded(self, decimals: IntVector) -> "Measured":
        """Round the pairs of each assay to its own number of decimals; negative leaves them as they are."""
        lower, upper = self.lower.copy(), self.upper.copy()
        for digits in np.unique(decimals[decimals >= 0]).tolist():
            at = np.flatnonzero((decimals == digits).take(self.assay))
            lower[at], upper[at] = np.round(lower.take(at), digits), np.round(upper.take(at), digits)
        return Measured(self.assay, self.structure, lower, upper)


def order_within(group: IntVector, value: FloatVector) -> IntVector:
    """Return the rows by group, then value; rows that are equal in both stand in any order.

    Two sorts of 64-bit numbers: several times faster than ``np.lexsort``.

    Args:
        group: Numbers from 0 to below 2^31, shape ``(n,)``.
        value: No NaN, shape ``(n,)``.
    """
    by_value = np.argsort(value)
    key = group.take(by_value) << 32
    key |= np.arange(len(key))
    key.sort()
    key &= 0xFFFFFFFF
    order: IntVector = by_value.take(key)
    return order


def on_p_scale(
    value: FloatVector, unit: npt.NDArray[Any], relation: npt.NDArray[np.int8]
) -> tuple[FloatVector, npt.NDArray[np.int8]]:
    """Convert concentrations to ``-log10(mol/l)``; the relation of a converted value flips.

    Args:
        value: Measurements, positive where the unit is molar, shape ``(n,)``.
        unit: Index into ``P_OF_ONE``.
        relation: -1, 0 or 1 for ``<``, ``=``, ``>``.

    Returns:
        Values on the p-scale and their relations.
    """
    p_of_one = np.array(list(P_OF_ONE.values()))
    at = np.flatnonzero((~np.isnan(p_of_one)).take(unit))
    if len(at) == 0:
        return value, relation
    converted, flipped = value.copy(), relation.copy()
    converted[at] = np.round(p_of_one.take(unit.take(at)) - np.log10(value.take(at)), P_DECIMALS)
    flipped[at] = -relation.take(at)
    return converted, flipped


def labels_at(
    measured: Measured, threshold: FloatVector, *, high: BoolVector
) -> tuple[BoolVector, BoolVector]:
    """Tell which pairs are active, and which inactive, at one threshold each; ambiguous ones are neither.

    Args:
        measured: The pairs.
        threshold: One per pair, NaN for none.
        high: Whether active means value >= threshold (else value <= threshold).

    Returns:
        Masks of the active and of the inactive pairs, shape ``(n_pairs,)`` each.
    """
    # A censored bound is strict: from v > L and L >= t follows v > t.
    at_least = measured.lower >= threshold
    at_most = measured.upper <= threshold
    exact = at_least & at_most
    if high.all():
        return at_least, at_most & ~exact
    low = ~high
    active = (high & at_least) | (low & at_most)
    return active, ((high & at_most) | (low & at_least)) & ~exact
