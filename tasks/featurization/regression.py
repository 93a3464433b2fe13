"""Regression endpoints: one for each assay with enough values, with a mask that says which are bounds.

Why: potency is more than active or not; a censored value bounds it from one side, so its sign travels along.
Runs: on the partner. Source: MELLODDY-TUNER 3 (``filter_regression``, read in its code); here an assay is auxiliary
by its own type, where the tool looks at the first row of the table.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.catalogue import ASSAY_TYPES, REGRESSION_ENDPOINTS, REGRESSION_VALUES
from tasks.featurization.activity_shards import (
    RECORD,
    ShardFiles,
    Spread,
    code_of,
    high_of,
    low_of,
    packed,
    spread,
    width_of_shards,
)
from tasks.featurization.assay_table import AssayTable
from tasks.featurization.blocks import N_FOLDS, Block, in_order
from tasks.featurization.measurements import BoolVector, FloatVector, IntVector, Measured
from tasks.featurization.preparation_rules import PreparationRules
from tasks.featurization.quorums import censored_weights, deviation_by_fold, meets_regression
from tasks.featurization.thresholds import is_censored, point_values


@dataclass(frozen=True)
class TrainedAssays:
    """Assays learned as numbers; arrays of shape ``(n_assays,)``."""

    assay: IntVector
    n_values: IntVector
    n_censored: IntVector
    in_evaluation: BoolVector


class RegressionCollector:
    """Collects the regression endpoints of blocks of assays, and their values sorted through files."""

    def __init__(
        self, scratch: Path, table: AssayTable, *, rules: PreparationRules, n_structures: int
    ) -> None:
        """Start with none."""
        self._table, self._rules = table, rules
        self._width = width_of_shards(n_structures)
        self._files = ShardFiles(scratch, "values", dtype=RECORD)
        self._trained: list[TrainedAssays] = []

    def decide(self, block: Block) -> tuple[TrainedAssays, Spread] | None:
        """Decide about the assays of a block, for ``add``; several threads may do so."""
        type_code = self._table.type_code[block.assay]
        has_rule = np.array([rule.regression is not None for rule in self._rules.in_order])
        wanted = self._table.in_regression[block.assay] & has_rule[type_code] & ~block.is_constant
        if not wanted.any():
            return None
        rows = np.flatnonzero(wanted.take(block.measured.assay))
        measured, fold = block.measured.at(rows), block.fold.take(rows)
        free, value, n_assays = (
            np.flatnonzero(~is_censored(measured)),
            point_values(measured),
            len(block.assay),
        )
        cell = measured.assay * N_FOLDS + fold
        counts, uncensored = (
            np.bincount(cells, minlength=n_assays * N_FOLDS).reshape(-1, N_FOLDS)
            for cells in (cell, cell.take(free))
        )
        deviation = deviation_by_fold(
            measured.assay.take(free), fold.take(free), value.take(free), n_assays=n_assays, n_folds=N_FOLDS
        )
        trained, evaluated = np.zeros(n_assays, dtype=np.bool_), np.zeros(n_assays, dtype=np.bool_)
        for code in np.unique(type_code[wanted]).tolist():
            rule, at = self._rules.in_order[code].regression, wanted & (type_code == code)
            assert rule is not None  # noqa: S101 - only such assays are wanted
            trained[at], evaluated[at] = meets_regression(
                counts[at],
                uncensored[at],
                deviation[at],
                rule,
                evaluation_folds=self._rules.evaluation_folds,
            )
        total = counts.sum(axis=1)[trained]
        censored = total - uncensored.sum(axis=1)[trained]
        kept = np.flatnonzero(trained.take(measured.assay))
        return (
            TrainedAssays(block.assay[trained], total, censored, evaluated[trained]),
            self._spread(block, measured.at(kept), value.take(kept)),
        )

    def add(self, decided: tuple[TrainedAssays, Spread] | None) -> None:
        """Keep what was decided about a block."""
        if decided is not None:
            self._trained.append(decided[0])
            self._files.append(decided[1])

    def close(self) -> None:
        """Finish writing."""
        self._files.close()

    def _spread(self, block: Block, chosen: Measured, value: FloatVector) -> Spread:
        censoring = np.isinf(chosen.upper).astype(np.int8) - np.isinf(chosen.lower).astype(np.int8)
        records = np.empty(len(chosen), dtype=RECORD)
        assay = block.assay.take(chosen.assay)
        records["key"], records["value"] = packed(chosen.structure, assay, censoring + np.int8(1)), value
        return spread(chosen.structure // self._width, records)

    def _sorted(self) -> tuple[TrainedAssays, IntVector]:
        """All trained assays by their id, and the endpoint index of every assay."""
        none = np.empty(0, dtype=np.int64)
        parts = [TrainedAssays(none, none, none, none.astype(np.bool_)), *self._trained]
        assay = np.concatenate([part.assay for part in parts])
        order = np.argsort(self._table.assay_id[assay])
        trained = TrainedAssays(
            assay[order],
            np.concatenate([part.n_values for part in parts])[order],
            np.concatenate([part.n_censored for part in parts])[order],
            np.concatenate([part.in_evaluation for part in parts])[order],
        )
        index_of = np.full(len(self._table), -1, dtype=np.int64)
        index_of[trained.assay] = np.arange(len(trained.assay))
        return trained, index_of

    def endpoints(self) -> Any:
        """Return the table of the contract ``regression_endpoints``."""
        trained, _ = self._sorted()
        names = [ASSAY_TYPES[code] for code in self._table.type_code[trained.assay]]
        rules = [self._rules.assay_types[name] for name in names]
        auxiliary = np.array([rule.auxiliary for rule in rules], dtype=np.bool_)
        share = trained.n_censored / np.maximum(trained.n_values, 1)
        knock_in = self._rules.censored_knock_in
        ids = pa.array(self._table.assay_id[trained.assay], pa.string())
        return pa.table(
            {
                "endpoint_index": np.arange(len(names), dtype=np.int32),
                "endpoint_id": ids,
                "assay_id": ids,
                "assay_type": pa.array(names, pa.string()),
                "n_values": trained.n_values.astype(np.int32),
                "n_censored": trained.n_censored.astype(np.int32),
                "in_evaluation": trained.in_evaluation & ~auxiliary,
                "weight": np.array([rule.weight for rule in rules], dtype=np.float64),
                "censored_weight": np.ones(len(names))
                if knock_in is None
                else censored_weights(share, knock_in=knock_in),
            }
        ).cast(REGRESSION_ENDPOINTS.schema)

    def value_batches(self, structure_index: IntVector, *, threads: int = 1) -> Iterator[Any]:
        """Yield record batches of the contract ``regression_values``, sorted; can be done once.

        Args:
            structure_index: New number of each structure, ascending where it is used.
            threads: Files worked on at once.
        """
        _, index_of = self._sorted()

        def work(records: npt.NDArray[np.void]) -> Any:
            key = records["key"]
            renamed = packed(structure_index.take(high_of(key)), index_of.take(low_of(key)), code_of(key))
            order = np.argsort(renamed)
            renamed = renamed.take(order)
            columns = [
                pa.array(high_of(renamed).astype(np.int32)),
                pa.array(low_of(renamed).astype(np.int32)),
                pa.array(records["value"].take(order)),
                pa.array(code_of(renamed) - np.int8(1)),
            ]
            return pa.RecordBatch.from_arrays(columns, schema=REGRESSION_VALUES.schema)

        return (batch for batch in in_order(self._files, work, threads=threads) if batch.num_rows)
