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


REGRESSION_SCHEMA = pa.schema(
    {
        "structure_index": pa.int32(),
        "endpoint_index": pa.int32(),
        "value": pa.float64(),
        "censoring": pa.int8(),
        "prediction": pa.float64(),
        "deviation": pa.float64(),
    }
)


@dataclass(frozen=True)
class RegressionScores:
    """One row per observed value; all arrays have shape ``(n_values,)``.

    Attributes:
        structure: Row of the fingerprints.
        endpoint: Row of the regression endpoints.
        value: Measured value or bound, on the assay's scale.
        censoring: 0 measured, 1 the truth lies above the value, -1 below.
        prediction: Predicted value.
        deviation: The model's own standard deviation of it.
    """

    structure: npt.NDArray[np.int64]
    endpoint: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    censoring: npt.NDArray[np.int8]
    prediction: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]


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


def regression_scores_table(scores: RegressionScores) -> Any:
    """Lay the scores of regression endpoints out as a table: one row per observed value."""
    columns = [scores.structure, scores.endpoint, scores.value]
    return pa.table(
        [*columns, scores.censoring, scores.prediction, scores.deviation], schema=REGRESSION_SCHEMA
    )


def read_regression_scores(path: Path) -> RegressionScores:
    """Read what ``regression_scores_table`` laid out.

    Raises:
        ContractViolation: If the file is missing, damaged or of another layout.
    """
    table = read_table_of(path, REGRESSION_SCHEMA, what="scores")
    structure, endpoint, *others = (table.column(name).to_numpy() for name in REGRESSION_SCHEMA.names)
    return RegressionScores(structure.astype(np.int64), endpoint.astype(np.int64), *others)
