"""Metrics per endpoint as an Arrow table in a file: private to the partner.

Why: scoring and comparing happen in different processes, and at different times.
Runs: on the partner. Source: own.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.errors import ContractViolation
from data_contracts.plan import Modality
from tasks.evaluation.metrics import METRICS, REGRESSION_METRICS, EndpointMetrics, selection_value
from tasks.evaluation.regression_metrics import RegressionMetrics
from tasks.exchange.durable_files import replace_whole

SCHEMA = pa.schema(
    [
        pa.field("endpoint_index", pa.int32(), nullable=False),
        pa.field("n_active", pa.int32(), nullable=False),
        pa.field("n_inactive", pa.int32(), nullable=False),
        pa.field("counted", pa.bool_(), nullable=False),
        *(pa.field(name, pa.float64()) for name in METRICS),
    ]
)

REGRESSION_SCHEMA = pa.schema(
    [
        pa.field("endpoint_index", pa.int32(), nullable=False),
        pa.field("n_values", pa.int32(), nullable=False),
        pa.field("n_uncensored", pa.int32(), nullable=False),
        pa.field("counted", pa.bool_(), nullable=False),
        *(pa.field(name, pa.float64()) for name in REGRESSION_METRICS),
    ]
)


def metrics_table(metrics: EndpointMetrics, counted: npt.NDArray[np.bool_]) -> Any:
    """Lay metrics out with one row per endpoint, in order; null where a metric is undefined.

    Args:
        metrics: The metrics.
        counted: Which endpoints enter means, shape ``(n_endpoints,)``.
    """
    columns = [
        pa.array(np.arange(len(counted)), pa.int32()),
        pa.array(metrics.n_active, pa.int32()),
        pa.array(metrics.n_inactive, pa.int32()),
        pa.array(counted),
        *(pa.array(getattr(metrics, name), pa.float64(), from_pandas=True) for name in METRICS),
    ]
    return pa.table(columns, schema=SCHEMA)


def write_table(path: Path, table: Any) -> None:
    """Write an Arrow IPC file in one step."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    replace_whole(path, [memoryview(sink.getvalue())])


def read_table_of(path: Path, schema: Any, *, what: str) -> Any:
    """Read an Arrow IPC file of exactly one layout.

    Args:
        path: The file.
        schema: Its layout.
        what: What it holds, for the message.

    Raises:
        ContractViolation: If the file is missing, damaged or of another layout.
    """
    try:
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        raise ContractViolation(
            f"{what} file '{path.name}' cannot be read ({type(error).__name__}); score the model again"
        ) from None
    if not table.schema.equals(schema):
        raise ContractViolation(
            f"{what} file '{path.name}' has columns {table.column_names}; score the model again"
        )
    return table


def read_metrics(path: Path) -> tuple[EndpointMetrics, npt.NDArray[np.bool_]]:
    """Read what ``metrics_table`` laid out.

    Returns:
        The metrics, and which endpoints count.

    Raises:
        ContractViolation: If the file is missing, damaged or of another layout.
    """
    table = read_table_of(path, SCHEMA, what="metrics")
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    metrics = EndpointMetrics(
        n_active=columns["n_active"].astype(np.int64),
        n_inactive=columns["n_inactive"].astype(np.int64),
        **{name: columns[name] for name in METRICS},
    )
    return metrics, columns["counted"]


def regression_metrics_table(metrics: RegressionMetrics, counted: npt.NDArray[np.bool_]) -> Any:
    """Lay metrics of regression endpoints out with one row per endpoint, in order; null where undefined."""
    columns = [
        pa.array(np.arange(len(counted)), pa.int32()),
        pa.array(metrics.n_values, pa.int32()),
        pa.array(metrics.n_uncensored, pa.int32()),
        pa.array(counted),
        *(pa.array(getattr(metrics, name), pa.float64(), from_pandas=True) for name in REGRESSION_METRICS),
    ]
    return pa.table(columns, schema=REGRESSION_SCHEMA)


def read_regression_metrics(path: Path) -> tuple[RegressionMetrics, npt.NDArray[np.bool_]]:
    """Read what ``regression_metrics_table`` laid out: the metrics, and which endpoints count.

    Raises:
        ContractViolation: If the file is missing, damaged or of another layout.
    """
    table = read_table_of(path, REGRESSION_SCHEMA, what="metrics")
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    metrics = RegressionMetrics(
        n_values=columns["n_values"].astype(np.int64),
        n_uncensored=columns["n_uncensored"].astype(np.int64),
        **{name: columns[name] for name in REGRESSION_METRICS},
    )
    return metrics, columns["counted"]


def counted_values(classes: Path | None, numbers: Path | None) -> dict[str, npt.NDArray[np.float64]]:
    """The values of each metric over the endpoints that count.

    Args:
        classes: Table of classification metrics; None without such endpoints.
        numbers: Table of regression metrics; None without such endpoints.

    Raises:
        ContractViolation: If a file is missing, damaged or of another layout.
    """
    values: dict[str, npt.NDArray[np.float64]] = {}
    if classes is not None:
        metrics, counted = read_metrics(classes)
        values |= {name: getattr(metrics, name)[counted] for name in METRICS}
    if numbers is not None:
        found, counted = read_regression_metrics(numbers)
        values |= {name: getattr(found, name)[counted] for name in REGRESSION_METRICS}
    return values


def selection_of(directory: Path, modality: Modality) -> float | None:
    """The figure that chooses between models, of the one whose tables lie in a directory; None if nothing counts.

    Raises:
        ContractViolation: If a file is missing, damaged or of another layout.
    """
    values = counted_values(
        None if modality == "regression" else directory / "metrics.arrow",
        None if modality == "classification" else directory / "regression_metrics.arrow",
    )
    means = {name: float(found.mean()) if len(found) else None for name, found in values.items()}
    return selection_value(means, modality)
