"""Metrics survive their file, and a damaged file is refused."""

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.errors import ContractViolation
from tasks.evaluation.metric_tables import metrics_table, read_metrics, write_table
from tasks.evaluation.metrics import METRICS, endpoint_metrics


def _metrics():
    rng = np.random.default_rng(3)
    return endpoint_metrics(rng.integers(0, 4, 50), rng.integers(0, 2, 50), rng.random(50), n_endpoints=6)


def test_metrics_come_back_from_their_file_with_nulls_as_nan(tmp_path):
    metrics, counted = _metrics(), np.array([True, True, False, True, False, False])
    write_table(tmp_path / "metrics.arrow", metrics_table(metrics, counted))
    found, found_counted = read_metrics(tmp_path / "metrics.arrow")
    np.testing.assert_array_equal(found_counted, counted)
    for name in ("n_active", "n_inactive", *METRICS):
        np.testing.assert_array_equal(getattr(found, name), getattr(metrics, name))
    assert np.isnan(found.auroc[5])


@pytest.mark.parametrize("content", [None, b"", b"ARROW1\0\0 not really"])
def test_missing_or_damaged_metrics_are_refused_by_name(tmp_path, content):
    path = tmp_path / "metrics.arrow"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ContractViolation, match=r"metrics\.arrow.*score the model again"):
        read_metrics(path)


def test_a_table_of_another_layout_is_refused(tmp_path):
    write_table(tmp_path / "metrics.arrow", pa.table({"auroc": [0.5]}))
    with pytest.raises(ContractViolation, match="has columns"):
        read_metrics(tmp_path / "metrics.arrow")
