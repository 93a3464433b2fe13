"""Endpoints from a handful of values, for the tests of the rules."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.catalogue import LABELS, REGRESSION_VALUES
from tasks.featurization.activity_shards import ActivityShards, CodedRows
from tasks.featurization.assay_table import EMPTY_CATALOGUE, Catalogue, assay_table
from tasks.featurization.endpoints import EndpointTables, build_endpoints
from tasks.featurization.preparation_rules import PreparationRules

Row = tuple[int, str, float, str]


@dataclass
class Built:
    """Tables; structures have the numbers that the rows gave them."""

    endpoints: pa.Table
    labels: pa.Table
    regression: pa.Table
    values: pa.Table
    tables: EndpointTables


def built_from(
    assays: pa.Table,
    rows: list[Row],
    *,
    fold: Any,
    rules: PreparationRules,
    catalogue: Catalogue = EMPTY_CATALOGUE,
    threads: int = 2,
) -> Built:
    """Build endpoints from rows of (structure, assay_id, value, relation)."""
    table = assay_table(assays, rules)
    names = {name: place for place, name in enumerate(table.assay_id)}
    fold = np.array(fold, dtype=np.int8)
    with tempfile.TemporaryDirectory() as home:
        scratch = Path(home)
        shards = ActivityShards(scratch)
        for part in (rows[:7], rows[7:]):
            coded = CodedRows(
                np.array([names[row[1]] for row in part], dtype=np.int64),
                np.array([row[0] for row in part], dtype=np.int64),
                np.array([row[2] for row in part], dtype=np.float64),
                np.array(["<=>".index(row[3]) - 1 for row in part], dtype=np.int8),
            )
            shards.add(shards.spread(coded, good=np.ones(len(part), dtype=np.bool_)))
        tables = build_endpoints(
            shards,
            table,
            parent=np.arange(len(fold)),
            fold=fold,
            rules=rules,
            scratch=scratch,
            catalogue=catalogue,
            threads=threads,
        )
        labels = pa.Table.from_batches(list(tables.label_batches()), schema=LABELS.schema)
        values = pa.Table.from_batches(
            list(tables.regression.value_batches(tables.structure_index)), schema=REGRESSION_VALUES.schema
        )
    used = pa.array(np.flatnonzero(tables.used).astype(np.int32))
    return Built(
        tables.endpoints,
        _renumbered(labels, used),
        tables.regression.endpoints(),
        _renumbered(values, used),
        tables,
    )


def _renumbered(table: pa.Table, used: Any) -> pa.Table:
    """Give structures back the numbers of the rows."""
    return table.set_column(0, "structure_index", used.take(table.column("structure_index").combine_chunks()))
