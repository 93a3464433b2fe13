"""From measurements to classification endpoints: thresholds, labels, quorums, weights.

Why: an endpoint is worth training only with enough of both classes, and worth counting only with enough of both in
the folds that are looked at. Runs: on the partner. Source: MELLODDY-TUNER 3 for thresholds, quorums and weights
(read in its code); its rules by assay type come later, here one fixed rule serves all.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from data_contracts.catalogue import ENDPOINTS, LABELS, THRESHOLDS
from tasks.featurization.measurements import (
    P_OF_ONE,
    RELATIONS,
    BoolVector,
    FloatVector,
    IntVector,
    Measured,
    aggregate_replicates,
    labels_at,
    on_p_scale,
)

TEST_FOLD, VALIDATION_FOLD = 0, 4
NO_MEASUREMENT, TRAINING_QUORUM = "no measurement", "training quorum"
EXCLUSIONS = (NO_MEASUREMENT, TRAINING_QUORUM)


class EndpointRules(BaseModel):
    """How endpoints are made; all partners use the same.

    Attributes:
        default_thresholds: For assays that name none, on the p-scale.
        training_quorum: Fewest actives, and fewest inactives, of an endpoint that is trained.
        evaluation_quorum: Fewest of each in the test fold, and in the validation fold, to enter means
            (MELLODDY: 10).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    default_thresholds: tuple[FiniteFloat, ...] = Field(default=(5.5, 6.5, 7.5), min_length=1)
    training_quorum: int = Field(default=25, ge=1)
    evaluation_quorum: int = Field(default=5, ge=1)


@dataclass(frozen=True)
class EndpointTables:
    """Endpoints that are trained, their labels, and what was left out.

    Attributes:
        endpoints: Contract ``endpoints``.
        labels: Contract ``labels``.
        excluded: Endpoints that are not trained: name, reason (one of ``EXCLUSIONS``) and counts.
        n_pairs: Pairs of assay and structure with a measurement.
        n_contradictory: Pairs left out because their censored replicates exclude each other.
    """

    endpoints: Any
    labels: Any
    excluded: list[dict[str, Any]]
    n_pairs: int
    n_contradictory: int


@dataclass(frozen=True)
class _Candidates:
    """Every assay at each of its thresholds; candidate c is threshold ``c % n_places`` of assay ``c // n_places``.

    Attributes:
        threshold: Shape ``(n_assays, n_places)``, ascending, NaN where there is none.
        assay_id, assay_type, direction: Shape ``(n_assays,)``.
    """

    threshold: FloatVector
    assay_id: npt.NDArray[np.object_]
    assay_type: npt.NDArray[np.object_]
    direction: npt.NDArray[np.object_]

    @property
    def n_places(self) -> int:
        return int(self.threshold.shape[1])

    def in_order(self, mask: BoolVector) -> IntVector:
        """Candidates of a mask by assay id, then threshold."""
        rank = np.empty(len(self.assay_id), dtype=np.int64)
        rank[np.argsort(self.assay_id)] = np.arange(len(rank))
        chosen = np.flatnonzero(mask & ~np.isnan(self.threshold.ravel()))
        return chosen[np.lexsort((chosen % self.n_places, rank[chosen // self.n_places]))]

    def name(self, candidate: int) -> str:
        """Endpoint id, such as ``ASSAY>=6.5``; the shortest number that is exactly this threshold."""
        assay = candidate // self.n_places
        number = repr(float(self.threshold.flat[candidate])).removesuffix(".0")
        return f"{self.assay_id[assay]}{'>=' if self.direction[assay] == 'high' else '<='}{number}"


@dataclass(frozen=True)
class _Marked:
    """Labels of all candidates; arrays of shape ``(n_labels,)``."""

    candidate: IntVector
    structure: IntVector
    label: npt.NDArray[np.int8]

    def count(self, label: int, *, n_candidates: int, where: BoolVector | None = None) -> IntVector:
        """Labels of one kind for each candidate."""
        mask = self.label == label
        return np.bincount(self.candidate[mask if where is None else mask & where], minlength=n_candidates)


def endpoint_ids(assays: Any, rules: EndpointRules) -> list[str]:
    """Name every endpoint that assays (contract ``assays``) may give, trained or not, by assay id, then threshold."""
    candidates = _candidates(assays, rules)
    return [
        candidates.name(c)
        for c in candidates.in_order(np.ones(candidates.threshold.size, dtype=np.bool_)).tolist()
    ]


def build_endpoints(
    assays: Any, activities: Any, *, structure: IntVector, fold: npt.NDArray[np.int8], rules: EndpointRules
) -> EndpointTables:
    """Make endpoints and labels.

    Args:
        assays: Contract ``assays``.
        activities: Contract ``activities``; every assay is known.
        structure: Structure index of every activity, shape ``(n_activities,)``.
        fold: Fold of every structure, shape ``(n_structures,)``.
        rules: Thresholds and quorums.

    Returns:
        The tables, and what was left out.
    """
    measured, n_contradictory = _measured(assays, activities, structure=structure)
    candidates = _candidates(assays, rules)
    marked = _mark(measured, candidates)
    n_active, n_inactive = (marked.count(label, n_candidates=candidates.threshold.size) for label in (1, 0))
    trained = np.minimum(n_active, n_inactive) >= rules.training_quorum
    kept = candidates.in_order(trained)
    endpoints = _endpoint_table(
        candidates,
        kept,
        n_active=n_active,
        n_inactive=n_inactive,
        in_evaluation=_in_evaluation(marked, fold=fold, n_candidates=candidates.threshold.size, rules=rules),
    )
    excluded = [
        {
            "endpoint": candidates.name(candidate),
            "reason": TRAINING_QUORUM if n_active[candidate] + n_inactive[candidate] else NO_MEASUREMENT,
            "n_active": int(n_active[candidate]),
            "n_inactive": int(n_inactive[candidate]),
        }
        for candidate in candidates.in_order(~trained).tolist()
    ]
    return EndpointTables(
        endpoints,
        _label_table(marked, kept, n_candidates=candidates.threshold.size),
        excluded,
        n_pairs=len(measured) + n_contradictory,
        n_contradictory=n_contradictory,
    )


def _measured(assays: Any, activities: Any, *, structure: IntVector) -> tuple[Measured, int]:
    value, relation = on_p_scale(
        activities.column("value").to_numpy(),
        _codes(activities.column("unit"), pa.array(list(P_OF_ONE))),
        _codes(activities.column("relation"), pa.array(list(RELATIONS))) - 1,
    )
    assay = _codes(activities.column("assay_id"), assays.column("assay_id").combine_chunks())
    return aggregate_replicates(assay, structure, value, relation)


def _codes(column: Any, values: Any) -> IntVector:
    codes: IntVector = pc.index_in(column, value_set=values).to_numpy().astype(np.int64)
    return codes


def _candidates(assays: Any, rules: EndpointRules) -> _Candidates:
    """Take each assay's own thresholds, or the default ones; repetitions count once."""
    n_places = max(len(THRESHOLDS), len(rules.default_thresholds))
    threshold = np.full((assays.num_rows, n_places), np.nan)
    for place, name in enumerate(THRESHOLDS):
        threshold[:, place] = pc.fill_null(assays.column(name), np.nan).to_numpy()
    none = np.isnan(threshold).all(axis=1)
    threshold[none, : len(rules.default_thresholds)] = rules.default_thresholds
    threshold.sort(axis=1)
    threshold[:, 1:][np.diff(threshold, axis=1) == 0] = np.nan
    texts = [
        np.array(assays.column(name).to_pylist(), dtype=object)
        for name in ("assay_id", "assay_type", "direction")
    ]
    return _Candidates(threshold, *texts)


def _mark(measured: Measured, candidates: _Candidates) -> _Marked:
    high = (candidates.direction == "high")[measured.assay]
    found: list[_Marked] = []
    for place in range(candidates.n_places):
        masks = labels_at(measured, candidates.threshold[measured.assay, place], high=high)
        for mask, label in zip(masks, (1, 0), strict=True):
            found.append(
                _Marked(
                    measured.assay[mask] * candidates.n_places + place,
                    measured.structure[mask],
                    np.full(int(mask.sum()), label, dtype=np.int8),
                )
            )
    return _Marked(
        np.concatenate([part.candidate for part in found]),
        np.concatenate([part.structure for part in found]),
        np.concatenate([part.label for part in found]),
    )


def _in_evaluation(
    marked: _Marked, *, fold: npt.NDArray[np.int8], n_candidates: int, rules: EndpointRules
) -> BoolVector:
    enough = np.ones(n_candidates, dtype=np.bool_)
    fold_of_label = fold[marked.structure]
    for split in (TEST_FOLD, VALIDATION_FOLD):
        for label in (0, 1):
            count = marked.count(label, n_candidates=n_candidates, where=fold_of_label == split)
            enough &= count >= rules.evaluation_quorum
    return enough


def _endpoint_table(
    candidates: _Candidates,
    kept: IntVector,
    *,
    n_active: IntVector,
    n_inactive: IntVector,
    in_evaluation: BoolVector,
) -> Any:
    assay = kept // candidates.n_places
    n_of_assay = np.bincount(assay, minlength=len(candidates.assay_id))
    return pa.table(
        {
            "endpoint_index": np.arange(len(kept), dtype=np.int32),
            "endpoint_id": pa.array([candidates.name(c) for c in kept.tolist()], pa.string()),
            "assay_id": pa.array(candidates.assay_id[assay], pa.string()),
            "assay_type": pa.array(candidates.assay_type[assay], pa.string()),
            "threshold": candidates.threshold.ravel()[kept],
            "direction": pa.array(candidates.direction[assay], pa.string()),
            "n_active": n_active[kept].astype(np.int32),
            "n_inactive": n_inactive[kept].astype(np.int32),
            "in_training": np.ones(len(kept), dtype=np.bool_),
            "in_evaluation": in_evaluation[kept],
            "weight": 1.0 / n_of_assay[assay],
        }
    ).cast(ENDPOINTS.schema)


def _label_table(marked: _Marked, kept: IntVector, *, n_candidates: int) -> Any:
    endpoint_of = np.full(n_candidates, -1, dtype=np.int64)
    endpoint_of[kept] = np.arange(len(kept))
    wanted = endpoint_of[marked.candidate] >= 0
    structure, endpoint = marked.structure[wanted], endpoint_of[marked.candidate[wanted]]
    order = np.lexsort((endpoint, structure))
    return pa.table(
        {
            "structure_index": structure[order].astype(np.int32),
            "endpoint_index": endpoint[order].astype(np.int32),
            "label": marked.label[wanted][order],
        }
    ).cast(LABELS.schema)
