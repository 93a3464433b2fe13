"""A partner's metrics as integers for an exact secure sum, and the coordinator's means back.

Why: the consortium wants its mean, nobody may see a partner's; integers sum without rounding in any order.
Runs: ``to_integers`` on the partner, ``to_means`` on the coordinator. Source: own; the floor of ten endpoints
is MELLODDY's rule for aggregates that may be shown (``relative_deltas.py``).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from data_contracts.errors import UpdateMismatch

FIXED_POINT = 2**20
MAX_VALUE = 64.0
"""Values are clipped to this magnitude: log-loss ends at 36.04, and only a RIPtoP near perfection is larger."""
MIN_ENDPOINTS = 10
VALUE_BITS = 48
"""Magnitude bits of a lane that holds these sums: 2**21 endpoints of the largest value fit."""


def lane_length(names: Sequence[str]) -> int:
    """Integers that the named quantities take: a sum and a count each."""
    return 2 * len(names)


def to_integers(
    values: Mapping[str, npt.NDArray[np.float64]], *, names: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Sum each quantity over the partner's endpoints in fixed point.

    Args:
        values: Per quantity one value per counted endpoint, any length; NaN where undefined, and then not counted.
        names: The quantities in the order that the round's plan fixes; one that is missing counts zero endpoints.

    Returns:
        ``[sum, count, sum, count, ...]``, shape ``(lane_length(names),)``, sums in units of ``2**-20``.

    Raises:
        UpdateMismatch: If a quantity is not among the names, or a sum would not fit.
    """
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise UpdateMismatch(f"quantities {unknown} are not among the plan's {list(names)}")
    integers = np.zeros(lane_length(names), dtype=np.int64)
    for place, name in enumerate(names):
        found = np.asarray(values.get(name, ()), dtype=np.float64)
        found = np.clip(found[~np.isnan(found)], -MAX_VALUE, MAX_VALUE)
        integers[2 * place] = np.rint(found * FIXED_POINT).astype(np.int64).sum()
        integers[2 * place + 1] = len(found)
    if (np.abs(integers) >= 2 ** (VALUE_BITS - 1)).any():
        raise UpdateMismatch(f"too many endpoints for sums of {VALUE_BITS} bits; split the evaluation")
    return integers


def to_figures(
    values: Mapping[str, npt.NDArray[np.float64]], *, names: Sequence[str]
) -> npt.NDArray[np.int64]:
    """A partner's own mean of each quantity in fixed point, without how many endpoints stand behind it.

    In every round of a run the same endpoints are measured, so their number would be the same integer each time, and
    a round in which one partner is missing would show that partner's.

    Args:
        values: Per quantity one value per counted endpoint; NaN where undefined.
        names: The quantities in order; one without a value counts as 0, the same in every round.

    Returns:
        int64 of shape ``(len(names),)`` in units of ``2**-20``.
    """
    found = [np.asarray(values.get(name, ()), dtype=np.float64) for name in names]
    means = [float(np.mean(one[~np.isnan(one)])) if (~np.isnan(one)).any() else 0.0 for one in found]
    figures: npt.NDArray[np.int64] = np.rint(np.clip(means, -MAX_VALUE, MAX_VALUE) * FIXED_POINT).astype(
        np.int64
    )
    return figures


def figures_to_means(
    sums: npt.NDArray[np.int64], *, names: Sequence[str], n_partners: int
) -> dict[str, float]:
    """Turn sums of ``to_figures`` into means over the partners, each with one vote."""
    return {name: total / FIXED_POINT / n_partners for name, total in zip(names, sums.tolist(), strict=True)}


def to_means(sums: npt.NDArray[np.int64], *, names: Sequence[str]) -> dict[str, tuple[float | None, int]]:
    """Turn the consortium's sums into means.

    Args:
        sums: Sum over the partners of ``to_integers``, shape ``(lane_length(names),)``.
        names: The same names in the same order.

    Returns:
        Mean and number of endpoints of each quantity; the mean is None, and the number 0, where fewer than ten
        endpoints stand behind it: so few would let a partner subtract its own and read another's.

    Raises:
        UpdateMismatch: If the sums have another shape, or a count is negative.
    """
    if sums.shape != (lane_length(names),) or not np.issubdtype(sums.dtype, np.integer):
        raise UpdateMismatch(
            f"metric sums have {sums.dtype} {sums.shape}, the plan needs integers ({lane_length(names)},)"
        )
    totals, counts = sums[::2], sums[1::2]
    if (counts < 0).any():
        raise UpdateMismatch("metric sums hold a negative number of endpoints; a partner's sums are wrong")
    means: dict[str, tuple[float | None, int]] = {}
    for name, total, count in zip(names, totals.tolist(), counts.tolist(), strict=True):
        shown = count >= MIN_ENDPOINTS
        means[name] = (total / FIXED_POINT / count, count) if shown else (None, 0)
    return means
