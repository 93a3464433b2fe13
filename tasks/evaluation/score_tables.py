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

from data_contracts.errors import ContractViolation

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
    try:
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        raise ContractViolation(
            f"scores file '{path.name}' cannot be read ({type(error).__name__}); score the model again"
        ) from None
    if not table.schema.equals(SCHEMA):
        raise ContractViolation(
            f"scores file '{path.name}' has columns {table.column_names}; score the model again"
        )
    structure, endpoint, label, probability = (table.column(name).to_numpy() for name in SCHEMA.names)
    return Scores(structure.astype(np.int64), endpoint.astype(np.int64), label, probability)
