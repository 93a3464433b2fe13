"""From measurements to classification endpoints: units, replicates, thresholds, quorums.

Why: partners agree on rules, not on data; a rule is a vectorised function over all rows at once.
Runs: on the partner. Source: MELLODDY-TUNER 3 for thresholds, quorums and ambiguous censored values (read in
its code); its p-scale input is extended by units, whose relation flips: an IC50 above 10 uM is a pIC50 below 5.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from data_contracts.catalogue import ENDPOINTS, LABELS

IntVector = npt.NDArray[np.int64]
FloatVector = npt.NDArray[np.float64]
BoolVector = npt.NDArray[np.bool_]

P_OF_ONE = {"p": np.nan, "M": 0.0, "mM": 3.0, "uM": 6.0, "nM": 9.0, "pM": 12.0}
"""-log10 of one unit in mol/l; a value in unit u has p = P_OF_ONE[u] - log10(value)."""
RELATIONS = {"<": -1, "=": 0, ">": 1}
THRESHOLD_COLUMNS = tuple(f"threshold_{number}" for number in range(1, 6))
TEST_FOLD, VALIDATION_FOLD = 0, 4


class EndpointRules(BaseModel):
    """How endpoints are made; all partners use the same.

    Attributes:
        default_thresholds: For assays that name none, on the p-scale.
        training_quorum: Fewest actives, and fewest inactives, of an endpoint that is trained.
        evaluation_quorum: Fewest of each in the test fold, and in the validation fold, to enter means.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    default_thresholds: tuple[float, ...] = (5.5, 6.5, 7.5)
    training_quorum: int = Field(default=25, ge=1)
    evaluation_quorum: int = Field(default=5, ge=1)


@dataclass(frozen=True)
class Measured:
    """One row per (assay, structure): what all its replicates say together, on the p-scale.

    ``lower`` and ``upper`` are equal for a measured value, and infinite on the side that a censored one leaves open.
    All arrays have shape ``(n_pairs,)``.
    """

    assay: IntVector
    structure: IntVector
    lower: FloatVector
    upper: FloatVector


@dataclass(frozen=True)
class EndpointTables:
    """Endpoints that are trained, their labels, and what was left out.

    Attributes:
        endpoints: Contract ``endpoints``.
        labels: Contract ``labels``.
        excluded: Endpoints below the training quorum: name, reason and counts.
        n_contradictory: Pairs whose censored replicates exclude each other.
    """

    endpoints: Any
    labels: Any
    excluded: list[dict[str, Any]]
    n_contradictory: int


def on_p_scale(
    value: FloatVector, unit: npt.NDArray[np.int64], relation: IntVector
) -> tuple[FloatVector, IntVector]:
    """Convert concentrations to ``-log10(mol/l)``; the relation of a converted value flips.

    Args:
        value: Measurements, shape ``(n,)``.
        unit: Index into ``P_OF_ONE``.
        relation: -1, 0 or 1 for ``<``, ``=``, ``>``.
    """
    p_of_one = np.array(list(P_OF_ONE.values()))[unit]
    molar = ~np.isnan(p_of_one)
    converted = value.copy()
    np.log10(value, out=converted, where=molar)
    converted = np.where(molar, p_of_one - converted, value)
    return converted, np.where(molar, -relation, relation)


def aggregate_replicates(
    assay: IntVector, structure: IntVector, value: FloatVector, relation: IntVector
) -> tuple[Measured, int]:
    """Reduce replicates: the median of measured values, else the tightest consistent bounds.

    Returns:
        One row per (assay, structure) in that order, and how many pairs were dropped as contradictory.
    """
    if not len(assay):
        none = np.empty(0)
        return Measured(assay.copy(), structure.copy(), none, none.copy()), 0
    order = np.lexsort((value, relation != 0, structure, assay))
    assay, structure, value, relation = assay[order], structure[order], value[order], relation[order]
    first = np.flatnonzero(np.r_[True, (np.diff(assay) != 0) | (np.diff(structure) != 0)])
    n_measured = np.add.reduceat((relation == 0).astype(np.int64), first)
    # Within a pair the measured values come first, sorted: the median is the mean of the middle one or two.
    middle = first + np.maximum(n_measured - 1, 0) // 2
    other = first + np.maximum(n_measured, 1) // 2
    median = (value[middle] + value[np.minimum(other, len(value) - 1)]) / 2
    lower = np.maximum.reduceat(np.where(relation > 0, value, -np.inf), first)
    upper = np.minimum.reduceat(np.where(relation < 0, value, np.inf), first)
    lower, upper = np.where(n_measured, median, lower), np.where(n_measured, median, upper)
    sound = np.where(n_measured, True, lower < upper)
    pairs = first[sound]
    return Measured(assay[pairs], structure[pairs], lower[sound], upper[sound]), int((~sound).sum())


def labels_at(
    measured: Measured, threshold: FloatVector, *, high: BoolVector
) -> tuple[BoolVector, BoolVector]:
    """Tell which pairs are active, and which inactive, at one threshold each; ambiguous ones are neither.

    Args:
        measured: The pairs.
        threshold: One per pair, NaN for none.
        high: Whether active means value >= threshold (else value <= threshold).
    """
    # A censored bound is strict: from v > L and L >= t follows v > t.
    exact = measured.lower == measured.upper
    at_least = measured.lower >= threshold
    more = at_least & ~(exact & (measured.lower == threshold))
    at_most = measured.upper <= threshold
    less = at_most & ~(exact & (measured.upper == threshold))
    return np.where(high, at_least, at_most), np.where(high, less, more)


def build_endpoints(
    assays: Any, activities: Any, *, structure: IntVector, fold: npt.NDArray[np.int8], rules: EndpointRules
) -> EndpointTables:
    """Make endpoints and labels.

    Args:
        assays: Contract ``assays``.
        activities: Contract ``activities``; every assay is known.
        structure: Structure index of every activity, shape ``(n_activities,)``.
        fold: Fold of every structure.
        rules: Thresholds and quorums.

    Returns:
        The tables, and what was left out.
    """
    value, relation = on_p_scale(
        activities.column("value").to_numpy(),
        _codes(activities.column("unit"), list(P_OF_ONE)),
        _codes(activities.column("relation"), list(RELATIONS)) - 1,
    )
    assay_ids = assays.column("assay_id").combine_chunks()
    assay = pc.index_in(activities.column("assay_id"), value_set=assay_ids).to_numpy().astype(np.int64)
    measured, n_contradictory = aggregate_replicates(assay, structure, value, relation)
    thresholds = _thresholds(assays, rules)
    high = pc.equal(assays.column("direction"), "high").to_numpy(zero_copy_only=False)
    candidate, at, active = [], [], []
    for place in range(thresholds.shape[1]):
        is_active, is_inactive = labels_at(
            measured, thresholds[measured.assay, place], high=high[measured.assay]
        )
        for mask, label in ((is_active, 1), (is_inactive, 0)):
            candidate.append(measured.assay[mask] * thresholds.shape[1] + place)
            at.append(measured.structure[mask])
            active.append(np.full(int(mask.sum()), label, dtype=np.int8))
    return _tables(
        assays,
        thresholds,
        candidate=np.concatenate(candidate),
        structure=np.concatenate(at),
        label=np.concatenate(active),
        fold=fold,
        rules=rules,
        n_contradictory=n_contradictory,
    )


def _codes(column: Any, values: list[str]) -> IntVector:
    codes: IntVector = pc.index_in(column, value_set=pa.array(values)).to_numpy().astype(np.int64)
    return codes


def _thresholds(assays: Any, rules: EndpointRules) -> FloatVector:
    """One row per assay, sorted, without repetition, NaN where there is none."""
    n_places = max(len(THRESHOLD_COLUMNS), len(rules.default_thresholds))
    given = np.full((assays.num_rows, n_places), np.nan)
    for place, name in enumerate(THRESHOLD_COLUMNS):
        given[:, place] = pc.fill_null(assays.column(name).cast(pa.float64()), np.nan).to_numpy()
    none = np.isnan(given).all(axis=1)
    given[none, : len(rules.default_thresholds)] = rules.default_thresholds
    given.sort(axis=1)
    given[:, 1:][np.diff(given, axis=1) == 0] = np.nan
    return given


def _tables(
    assays: Any,
    thresholds: FloatVector,
    *,
    candidate: IntVector,
    structure: IntVector,
    label: npt.NDArray[np.int8],
    fold: npt.NDArray[np.int8],
    rules: EndpointRules,
    n_contradictory: int,
) -> EndpointTables:
    n_places, n_candidates = thresholds.shape[1], thresholds.size

    def count(of: int, in_fold: int | None = None) -> IntVector:
        mask = (label == of) if in_fold is None else (label == of) & (fold[structure] == in_fold)
        return np.bincount(candidate[mask], minlength=n_candidates)

    n_active, n_inactive = count(1), count(0)
    in_training = np.minimum(n_active, n_inactive) >= rules.training_quorum
    in_evaluation = in_training.copy()
    for split in (TEST_FOLD, VALIDATION_FOLD):
        in_evaluation &= np.minimum(count(1, split), count(0, split)) >= rules.evaluation_quorum
    ids = assays.column("assay_id").to_pylist()
    directions = assays.column("direction").to_pylist()
    types = assays.column("assay_type").to_pylist()
    names = {
        int(
            c
        ): f"{ids[c // n_places]}{'>=' if directions[c // n_places] == 'high' else '<='}{thresholds.flat[c]:g}"
        for c in np.flatnonzero(~np.isnan(thresholds.ravel()))
    }
    kept = sorted(
        (c for c in names if in_training[c]), key=lambda c: (ids[c // n_places], thresholds.flat[c])
    )
    n_of_assay = np.bincount([c // n_places for c in kept], minlength=len(ids)) if kept else np.zeros(1, int)
    place_of = np.full(n_candidates, -1, dtype=np.int64)
    place_of[kept] = np.arange(len(kept))
    endpoints = pa.table(
        {
            "endpoint_index": np.arange(len(kept), dtype=np.int32),
            "endpoint_id": pa.array([names[c] for c in kept], pa.string()),
            "assay_id": pa.array([ids[c // n_places] for c in kept], pa.string()),
            "assay_type": pa.array([types[c // n_places] for c in kept], pa.string()),
            "threshold": thresholds.ravel()[kept],
            "direction": pa.array([directions[c // n_places] for c in kept], pa.string()),
            "n_active": n_active[kept].astype(np.int32),
            "n_inactive": n_inactive[kept].astype(np.int32),
            "in_training": np.ones(len(kept), dtype=bool),
            "in_evaluation": in_evaluation[kept],
            "weight": np.array([1.0 / n_of_assay[c // n_places] for c in kept], dtype=np.float64),
        }
    ).cast(ENDPOINTS.schema)
    wanted = place_of[candidate] >= 0
    structure, column, label = structure[wanted], place_of[candidate[wanted]], label[wanted]
    order = np.lexsort((column, structure))
    labels = pa.table(
        {
            "structure_index": structure[order].astype(np.int32),
            "endpoint_index": column[order].astype(np.int32),
            "label": label[order],
        }
    ).cast(LABELS.schema)
    excluded = [
        {
            "endpoint": names[c],
            "reason": "training quorum",
            "n_active": int(n_active[c]),
            "n_inactive": int(n_inactive[c]),
        }
        for c in sorted(names)
        if not in_training[c]
    ]
    return EndpointTables(endpoints, labels, excluded, n_contradictory)
