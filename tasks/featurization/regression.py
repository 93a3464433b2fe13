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
import pyarrow as pa

from data_contracts.catalogue import ASSAY_TYPES, REGRESSION_ENDPOINTS, REGRESSION_VALUES
from tasks.featurization.activity_shards import LOW_HALF, SHARDS, STRUCTURE_BITS, ShardFiles, halves
from tasks.featurization.assay_table import AssayTable
from tasks.featurization.blocks import N_FOLDS, Block
from tasks.featurization.measurements import BoolVector, FloatVector, IntVector
from tasks.featurization.preparation_rules import PreparationRules
from tasks.featurization.quorums import censored_weights, deviation_by_fold, meets_regression
from tasks.featurization.thresholds import is_censored, point_values

VALUE = np.dtype([("key", "<u8"), ("value", "<f8"), ("censoring", "i1")])


@dataclass(frozen=True)
class _Trained:
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
        self._width = max(-(-n_structures // SHARDS), 1)
        self._files = ShardFiles(scratch, "values", dtype=VALUE)
        self._trained: list[_Trained] = []

    def add(self, block: Block) -> None:
        """Decide about the assays of a block and keep the values of those that are trained."""
        type_code = self._table.type_code[block.assay]
        has_rule = np.array([rule.regression is not None for rule in self._rules.in_order])
        wanted = self._table.in_regression[block.assay] & has_rule[type_code] & ~block.is_constant
        if not wanted.any():
            return
        rows = wanted[block.measured.assay]
        measured, fold = block.measured.where(rows), block.fold[rows]
        free, value, n_assays = ~is_censored(measured), point_values(measured), len(block.assay)
        counts, uncensored = (
            np.bincount(cell, minlength=n_assays * N_FOLDS).reshape(-1, N_FOLDS)
            for cell in (measured.assay * N_FOLDS + fold, (measured.assay * N_FOLDS + fold)[free])
        )
        deviation = deviation_by_fold(
            measured.assay[free], fold[free], value[free], n_assays=n_assays, n_folds=N_FOLDS
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
        self._keep(block, trained, evaluated, counts=counts, uncensored=uncensored)
        chosen = measured.where(trained[measured.assay])
        censoring = np.isinf(chosen.upper).astype(np.int8) - np.isinf(chosen.lower).astype(np.int8)
        self._write(block.assay[chosen.assay], chosen.structure, point_values(chosen), censoring)

    def close(self) -> None:
        """Finish writing."""
        self._files.close()

    def _keep(
        self,
        block: Block,
        trained: BoolVector,
        evaluated: BoolVector,
        *,
        counts: IntVector,
        uncensored: IntVector,
    ) -> None:
        total = counts.sum(axis=1)[trained]
        censored = total - uncensored.sum(axis=1)[trained]
        self._trained.append(_Trained(block.assay[trained], total, censored, evaluated[trained]))

    def _write(self, assay: IntVector, structure: IntVector, value: FloatVector, censoring: Any) -> None:
        records = np.empty(len(assay), dtype=VALUE)
        records["key"] = halves(structure, assay)
        records["value"], records["censoring"] = value, censoring
        self._files.append((structure // self._width).astype(np.uint8), records)

    def _sorted(self) -> tuple[_Trained, IntVector]:
        """All trained assays by their id, and the endpoint index of every assay."""
        none = np.empty(0, dtype=np.int64)
        parts = [_Trained(none, none, none, none.astype(np.bool_)), *self._trained]
        assay = np.concatenate([part.assay for part in parts])
        order = np.argsort(self._table.assay_id[assay])
        trained = _Trained(
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

    def value_batches(self, structure_index: IntVector) -> Iterator[Any]:
        """Yield record batches of the contract ``regression_values``, sorted; can be done once.

        Args:
            structure_index: New number of each structure, ascending where it is used.
        """
        _, index_of = self._sorted()
        for records in self._files:
            structure = structure_index[(records["key"] >> STRUCTURE_BITS).view(np.int64)]
            endpoint = index_of[(records["key"] & LOW_HALF).view(np.int64)]
            order = np.argsort(halves(structure, endpoint))
            ordered = records.take(order)
            if len(order):
                columns = [
                    pa.array(structure[order].astype(np.int32)),
                    pa.array(endpoint[order].astype(np.int32)),
                    pa.array(ordered["value"].copy()),
                    pa.array(ordered["censoring"].copy()),
                ]
                yield pa.RecordBatch.from_arrays(columns, schema=REGRESSION_VALUES.schema)
