"""Scores of single labels as an Arrow table in a file: private to the partner.

Why: calibration, conformal sets and every further metric come from these rows, later and elsewhere than scoring.
Runs: on the partner. Source: own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.evaluation.metric_tables import read_table_of

CALIBRATION = "calibration"
"""Directory where, beside an arm's test scores, those of its validation fold lie."""
SCHEMA = pa.schema(
    {
        "structure_index": pa.int32(),
        "endpoint_index": pa.int32(),
        "label": pa.int8(),
        "probability": pa.float64(),
    }
)


@dataclass(frozen=True)
class Scores:
    """One row per observed label; all arrays have shape ``(n_labels,)``."""

    structure: npt.NDArray[np.int64]
    endpoint: npt.NDArray[np.int64]
    label: npt.NDArray[np.int8]
    probability: npt.NDArray[np.float64]


def scores_table(scores: Scores) -> Any:
    """Lay the scores out as a table: one row per observed label."""
    return pa.table(
        [scores.structure, scores.endpoint, scores.label, scores.probability],
        schema=SCHEMA,
    )


def read_scores(path: Path) -> Scores:
    """Read what ``scores_table`` laid out.

    Raises:
        ContractViolation: If the file is missing, damaged or of another layout.
    """
    table = read_table_of(path, SCHEMA, what="scores")
    structure, endpoint, label, probability = (table.column(name).to_numpy() for name in SCHEMA.names)
    return Scores(structure.astype(np.int64), endpoint.astype(np.int64), label, probability)
