"""Small prepared data sets, written as featurization writes them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.catalogue import (
    ENDPOINTS,
    HASHED_FINGERPRINTS,
    LABELS,
    REGRESSION_ENDPOINTS,
    REGRESSION_VALUES,
)
from data_contracts.writing import write_table

CONTRACT_OF = {
    "fingerprints": HASHED_FINGERPRINTS,
    "endpoints": ENDPOINTS,
    "labels": LABELS,
    "regression_endpoints": REGRESSION_ENDPOINTS,
    "regression_values": REGRESSION_VALUES,
}
HIDDEN = 8


def write_prepared(
    directory: Path,
    *,
    seed: int,
    n_structures: int = 120,
    n_endpoints: int = 5,
    n_bits: int = 400,
    density: float = 0.5,
) -> Path:
    """Write fingerprints, endpoints and labels in which a few bits decide each endpoint, as a class and as a number.

    Numbers are those of endpoints 0 to 2 around 6.5, some of them censored.
    """
    rng = np.random.default_rng(seed)
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = np.sort(rng.choice(32_768, n_bits, replace=False))
    bits = [np.sort(rng.choice(vocabulary, rng.integers(5, 30), replace=False)) for _ in range(n_structures)]
    dense = np.stack([np.isin(vocabulary, row) for row in bits])
    score = dense @ rng.normal(size=(n_bits, n_endpoints))
    observed = rng.random((n_structures, n_endpoints)) < density
    structure, endpoint = np.nonzero(observed)
    label = (score > np.median(score, axis=0))[structure, endpoint]
    tables = {
        "fingerprints": pa.table(
            {
                "structure_index": pa.array(np.arange(n_structures), pa.int32()),
                "structure_key": pa.array([f"{number:032x}" for number in range(n_structures)]),
                "fold": pa.array(np.arange(n_structures) % 5, pa.int8()),
                "bits": pa.array(bits, pa.list_(pa.uint16())),
            }
        ),
        "endpoints": pa.table(
            {
                "endpoint_index": pa.array(np.arange(n_endpoints), pa.int32()),
                "endpoint_id": pa.array([f"A{number}>=6.5" for number in range(n_endpoints)]),
                "assay_id": pa.array([f"A{number}" for number in range(n_endpoints)]),
                "assay_type": pa.array(["OTHER"] * n_endpoints),
                "threshold": pa.array([6.5] * n_endpoints),
                "direction": pa.array(["high"] * n_endpoints),
                "n_active": pa.array(np.bincount(endpoint[label], minlength=n_endpoints), pa.int32()),
                "n_inactive": pa.array(np.bincount(endpoint[~label], minlength=n_endpoints), pa.int32()),
                "in_training": pa.array([True] * (n_endpoints - 1) + [False]),
                "in_evaluation": pa.array([True] * (n_endpoints - 1) + [False]),
                "weight": pa.array([1.0, 0.5] * n_endpoints, pa.float64()).slice(0, n_endpoints),
            }
        ),
        "labels": pa.table(
            {
                "structure_index": pa.array(structure, pa.int32()),
                "endpoint_index": pa.array(endpoint, pa.int32()),
                "label": pa.array(label, pa.int8()),
            }
        ),
    }
    tables |= _numbers(score, observed, rng=rng)
    for name, table in tables.items():
        write_table(directory / f"{name}.arrow", CONTRACT_OF[name], table)
    return directory


def _numbers(score, observed, *, rng):
    """The first three assays as numbers, a fifth of them bounds."""
    value = 6.5 + score[:, :3] / score[:, :3].std(axis=0)
    structure, endpoint = np.nonzero(observed[:, :3])
    censoring = rng.choice([-1, 0, 0, 0, 0, 0, 0, 0, 0, 1], len(structure))
    shifted = value[structure, endpoint] - censoring * rng.random(len(structure))
    return {
        "regression_endpoints": pa.table(
            {
                "endpoint_index": pa.array(range(3), pa.int32()),
                "endpoint_id": pa.array([f"A{number}" for number in range(3)]),
                "assay_id": pa.array([f"A{number}" for number in range(3)]),
                "assay_type": pa.array(["OTHER", "OTHER", "ADME"]),
                "n_values": pa.array(np.bincount(endpoint, minlength=3), pa.int32()),
                "n_censored": pa.array(np.bincount(endpoint[censoring != 0], minlength=3), pa.int32()),
                "in_evaluation": pa.array([True, True, True]),
                "weight": pa.array([1.0, 0.5, 1.0]),
                "censored_weight": pa.array([1.0, 0.25, 1.0]),
            }
        ),
        "regression_values": pa.table(
            {
                "structure_index": pa.array(structure, pa.int32()),
                "endpoint_index": pa.array(endpoint, pa.int32()),
                "value": pa.array(shifted, pa.float64()),
                "censoring": pa.array(censoring, pa.int8()),
            }
        ),
    }


def rewrite(path: Path, **columns: pa.Array) -> None:
    """Replace columns of a prepared file; the file still satisfies its contract."""
    with pa.OSFile(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    write_table(path, CONTRACT_OF[path.stem], table)


@pytest.fixture
def prepared(tmp_path):
    """One partner's prepared directory."""
    return write_prepared(tmp_path / "prepared", seed=1)
