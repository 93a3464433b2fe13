"""The endpoint table, and the list of what is not trained with the reason why.

Why: the first is what training reads, the second what a person asks for. Runs: on the partner. Source: own; the
columns of MELLODDY's T8c file.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.catalogue import ASSAY_TYPES, DIRECTIONS, ENDPOINTS
from tasks.featurization.assay_table import BOTH, LOW, AssayTable, Catalogue
from tasks.featurization.candidates import Candidates
from tasks.featurization.measurements import BoolVector, IntVector
from tasks.featurization.preparation_rules import PreparationRules
from tasks.featurization.thresholds import METHODS

NO_MEASUREMENT, NO_VARIANCE, NO_THRESHOLD, TRAINING_QUORUM = (
    "no measurement",
    "constant values",
    "no threshold",
    "training quorum",
)
EXCLUSIONS = (NO_MEASUREMENT, NO_VARIANCE, NO_THRESHOLD, TRAINING_QUORUM)


def in_name_order(candidates: Candidates, table: AssayTable) -> IntVector:
    """Candidates by assay id, then threshold."""
    rank = np.empty(len(table), dtype=np.int64)
    rank[np.argsort(table.assay_id)] = np.arange(len(table))
    return np.lexsort((candidates.threshold, rank[candidates.assay]))


def name_of(assay_id: str, direction: int, threshold: float) -> str:
    """Endpoint id, such as ``ASSAY>=6.5``; the shortest number that is exactly this threshold."""
    if np.isnan(threshold):
        return assay_id
    number = repr(float(threshold)).removesuffix(".0")
    if direction == BOTH:
        return f"|{assay_id}|>={number}"
    return f"{assay_id}{'<=' if direction == LOW else '>='}{number}"


def name_at(candidates: Candidates, candidate: int, table: AssayTable) -> str:
    """Endpoint id of one candidate; the assay's own where it has no threshold."""
    assay = candidates.assay[candidate]
    return name_of(table.assay_id[assay], int(table.direction[assay]), float(candidates.threshold[candidate]))


def excluded(
    candidates: Candidates,
    candidate: int,
    table: AssayTable,
    rules: PreparationRules,
    *,
    has_pairs: BoolVector,
) -> dict[str, Any]:
    """Say why an endpoint is not trained."""
    type_name = ASSAY_TYPES[candidates.type_code[candidate]]
    quorum = rules.assay_types[type_name].training
    n_active, n_inactive = int(candidates.n_active[candidate]), int(candidates.n_inactive[candidate])
    if candidates.is_constant[candidate]:
        reason = NO_VARIANCE
    elif not n_active + n_inactive and not has_pairs[candidates.assay[candidate]]:
        reason = NO_MEASUREMENT
    else:
        reason = NO_THRESHOLD if np.isnan(candidates.threshold[candidate]) else TRAINING_QUORUM
    return {
        "endpoint": name_at(candidates, candidate, table),
        "assay": str(table.assay_id[candidates.assay[candidate]]),
        "assay_type": type_name,
        "reason": reason,
        "n_active": n_active,
        "n_inactive": n_inactive,
        "quorum": quorum.model_dump(),
    }


def endpoint_table(candidates: Candidates, kept: IntVector, table: AssayTable, catalogue: Catalogue) -> Any:
    """Build the table of the contract ``endpoints``; ``kept`` are the trained candidates in order."""
    assay = candidates.assay[kept]
    type_code, method = candidates.type_code[kept].tolist(), candidates.method[kept].tolist()
    row = candidates.catalogue_row[kept].tolist()
    return pa.table(
        {
            "endpoint_index": np.arange(len(kept), dtype=np.int32),
            "endpoint_id": pa.array([name_at(candidates, c, table) for c in kept.tolist()], pa.string()),
            "assay_id": pa.array(table.assay_id[assay], pa.string()),
            "assay_type": pa.array([ASSAY_TYPES[code] for code in type_code], pa.string()),
            "threshold": candidates.threshold[kept],
            "direction": pa.array([DIRECTIONS[code] for code in table.direction[assay]], pa.string()),
            "n_active": candidates.n_active[kept].astype(np.int32),
            "n_inactive": candidates.n_inactive[kept].astype(np.int32),
            "in_training": np.ones(len(kept), dtype=np.bool_),
            "in_evaluation": candidates.in_evaluation[kept],
            "weight": candidates.weight[kept],
            "threshold_method": pa.array([METHODS[code] for code in method], pa.string()),
            "is_auxiliary": candidates.is_auxiliary[kept],
            "catalogue_endpoint_id": pa.array(
                [catalogue.endpoint_id[r] if r >= 0 else None for r in row], pa.string()
            ),
        }
    ).cast(ENDPOINTS.schema)
