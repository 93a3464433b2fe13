"""Gains by assay type, endpoints lifted over a bar, the difference of distributions: a partner's, and the consortium's.

Why: one mean hides whether the safety panel gained or the kinase assays did. Runs: on the partner; the consortium's are
sums of ``shares``, read on the coordinator.
Source: the tables of MELLODDY's ``performance_evaluation`` (per assay type, flips over .5 to .9, CDF(MP) - CDF(SP)).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.evaluation.metrics import PERFECT
from tasks.evaluation.uplift import riptop

FloatVector = npt.NDArray[np.float64]

BARS = (0.5, 0.6, 0.7, 0.8, 0.9)
GRID = np.linspace(0, 1, 101)
SHARED_METRICS = ("auroc", "auprc")
SHARED_GRID = tuple(tenth / 10 for tenth in range(1, 10))
"""Where the consortium's distribution functions are summed."""
SHARES = tuple(
    f"{metric}_{quantity}"
    for metric in SHARED_METRICS
    for quantity in (
        *(f"{change}_{bar}" for bar in BARS for change in ("lifted", "fallen")),
        *(f"cdf_{arm}_{place}" for place in SHARED_GRID for arm in ("single", "federated")),
    )
)
"""Shares of endpoints that the consortium may know, by name; each is the mean of zeros and ones."""


@dataclass(frozen=True)
class TypeRow:
    """Means over the counted endpoints of one assay type."""

    assay_type: str
    n_endpoints: int
    arms: Mapping[str, float]
    uplift: float
    riptop: float
    improved: float


@dataclass(frozen=True)
class FlipRow:
    """How many endpoints federation lifted over a bar, and how many fell below it."""

    bar: float
    lifted: int
    fallen: int


def by_assay_type(
    values: Mapping[str, FloatVector], assay_types: Sequence[str], *, metric: str
) -> tuple[TypeRow, ...]:
    """Compare the arms within each assay type.

    Args:
        values: Per arm the metric of each counted endpoint, shape ``(n_counted,)``.
        assay_types: Type of each counted endpoint.
        metric: Its name.

    Returns:
        One row per type in the order of their size.
    """
    sign = 1.0 if PERFECT[metric] else -1.0
    types = np.array(assay_types, dtype=object)
    rows = []
    for name in sorted(set(assay_types)):
        chosen = types == name
        single, federated = values["single"][chosen], values["federated"][chosen]
        gain = sign * (federated - single)
        rows.append(
            TypeRow(
                assay_type=name,
                n_endpoints=int(chosen.sum()),
                arms={arm: float(column[chosen].mean()) for arm, column in values.items()},
                uplift=float(gain.mean()),
                riptop=float(riptop(federated, single, perfect=PERFECT[metric]).mean()),
                improved=float(np.mean(np.where(gain == 0, 0.5, gain > 0))),
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.n_endpoints, row.assay_type)))


def flips(single: FloatVector, federated: FloatVector) -> tuple[FlipRow, ...]:
    """Count the endpoints that cross each bar, in both directions."""
    return tuple(
        FlipRow(
            bar=bar,
            lifted=int(np.sum((single < bar) & (federated >= bar))),
            fallen=int(np.sum((single >= bar) & (federated < bar))),
        )
        for bar in BARS
    )


def distribution_difference(single: FloatVector, federated: FloatVector) -> FloatVector:
    """CDF of the federated metric minus that of the single partner's on ``GRID``; below zero is better."""
    return _cdf(federated) - _cdf(single)


def shares(single: Mapping[str, FloatVector], federated: Mapping[str, FloatVector]) -> dict[str, FloatVector]:
    """Mark for each of ``SHARES`` the endpoints that it counts; integers, so that partners' sums are exact.

    Args:
        single: Per metric one value per counted endpoint, shape ``(n_counted,)``.
        federated: The same of the federated model.

    Returns:
        Zeros and ones by name, each of shape ``(n_counted,)``.
    """
    found: dict[str, FloatVector] = {}
    for metric in SHARED_METRICS:
        before, after = single[metric], federated[metric]
        for bar in BARS:
            found[f"{metric}_lifted_{bar}"] = ((before < bar) & (after >= bar)).astype(np.float64)
            found[f"{metric}_fallen_{bar}"] = ((before >= bar) & (after < bar)).astype(np.float64)
        for place in SHARED_GRID:
            found[f"{metric}_cdf_single_{place}"] = (before <= place).astype(np.float64)
            found[f"{metric}_cdf_federated_{place}"] = (after <= place).astype(np.float64)
    return found


def _cdf(values: FloatVector) -> FloatVector:
    return np.asarray(np.searchsorted(np.sort(values), GRID, side="right") / len(values), dtype=np.float64)
