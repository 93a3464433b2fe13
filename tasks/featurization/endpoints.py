"""From activities to endpoints: replicates, thresholds, labels, quorums and weights, in one pass over small files.

Why: the number of activities must not matter; all of one assay is decided in a block of its own, labels are sorted
through files. Runs: on the partner. Source: the rules of a profile (``profiles/*.yaml``); MELLODDY-TUNER 3 for what
they mean.
"""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.catalogue import LABELS
from tasks.featurization.activity_shards import (
    ActivityShards,
    Keys,
    LabelShards,
    Spread,
    renamed_labels,
    sorted_rows,
)
from tasks.featurization.assay_table import EMPTY_CATALOGUE, AssayTable, Catalogue, assay_table
from tasks.featurization.blocks import Block, block_of, block_without_pairs, in_order
from tasks.featurization.candidates import Candidates, Judged, SomeLabels, judge
from tasks.featurization.endpoint_tables import endpoint_table, excluded, in_name_order, name_at
from tasks.featurization.measurements import BoolVector, IntVector
from tasks.featurization.preparation_rules import PreparationRules
from tasks.featurization.regression import RegressionCollector, TrainedAssays

LABELS_A_BATCH = 1 << 20
ROWS_AT_ONCE = 1 << 16  # so that the arrays of a block stay in the processor's cache
Triple = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int8]]


@dataclass
class Tally:
    """Counts of what happened to pairs and labels.

    Attributes:
        pairs: Pairs of assay and structure with a value.
        contradictory: Of them, those whose replicates exclude each other.
        constant: Of them, those of assays whose values do not vary in every fold.
        ambiguous_labels: Pairs that a censored value leaves without a label at a threshold, summed over thresholds.
    """

    pairs: int = 0
    contradictory: int = 0
    constant: int = 0
    ambiguous_labels: int = 0

    def add(self, block: Block, judged: Judged) -> None:
        """Count one block."""
        self.pairs += len(block.measured) + block.n_contradictory
        self.contradictory += block.n_contradictory
        self.constant += int(np.count_nonzero(block.is_constant[block.measured.assay]))
        self.ambiguous_labels += judged.n_ambiguous


@dataclass(frozen=True)
class EndpointTables:
    """Endpoints that are trained, their labels, and what was left out.

    Attributes:
        endpoints: Contract ``endpoints``.
        excluded: Endpoints that are not trained: name, assay, reason, counts and quorum.
        tally: What happened on the way.
        used: Which structures have a pair, shape ``(n_structures,)``.
        lost_rows: Activities whose structure has no parent: ordinals among those that the contract accepted.
        regression: Assays that are learned as numbers too.
    """

    endpoints: Any
    excluded: list[dict[str, Any]]
    tally: Tally
    used: BoolVector
    lost_rows: IntVector
    regression: RegressionCollector
    _labels: LabelShards = field(repr=False)
    _index_of: IntVector = field(repr=False)
    _threads: int = field(repr=False)

    @property
    def structure_index(self) -> IntVector:
        """New number of each structure, counting those that are used."""
        return np.cumsum(self.used) - 1

    def label_batches(self) -> Iterator[Any]:
        """Yield record batches of the contract ``labels``, sorted; can be done once."""
        structure_index = self.structure_index

        def work(key: Keys) -> Triple:
            structure, endpoint, label = renamed_labels(
                key, structure_index=structure_index, endpoint_index=self._index_of
            )
            return structure.astype(np.int32), endpoint.astype(np.int32), label

        for structure, endpoint, label in _joined(in_order(self._labels, work, threads=self._threads)):
            columns = [pa.array(structure), pa.array(endpoint), pa.array(label)]
            yield pa.RecordBatch.from_arrays(columns, schema=LABELS.schema)


def _joined(parts: Iterator[Triple]) -> Iterator[Triple]:
    """Join small parts, so that few batches are written."""
    waiting: list[Triple] = []
    for part in parts:
        waiting.append(part)
        if sum(len(p[0]) for p in waiting) >= LABELS_A_BATCH:
            yield _one(waiting)
            waiting = []
    if waiting:
        yield _one(waiting)


def _one(parts: list[Triple]) -> Triple:
    structure, endpoint, label = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return structure, endpoint, label


@dataclass(frozen=True)
class _Decided:
    """All about one block."""

    block: Block
    judged: Judged
    labels: Spread | None
    regression: tuple[TrainedAssays, Spread] | None


@dataclass(frozen=True)
class _Decider:
    """Decides about the assays of one file of activities; several threads may call it."""

    table: AssayTable
    parent: IntVector
    fold: npt.NDArray[np.int8]
    rules: PreparationRules
    catalogue: Catalogue
    labels: LabelShards
    regression: RegressionCollector

    def __call__(self, records: npt.NDArray[np.void]) -> list[_Decided]:
        parts = sorted_rows(records, parent=self.parent).by_assays(ROWS_AT_ONCE)
        return [self._decided(block_of(part, self.table, fold=self.fold, rules=self.rules)) for part in parts]

    def _decided(self, block: Block) -> _Decided:
        judged = judge(block.without_constant(), self.table, rules=self.rules, catalogue=self.catalogue)
        spread = None
        if judged.labels:
            some = SomeLabels.joined(judged.labels)
            spread = self.labels.spread(some.structure, some.candidate, some.label)
        return _Decided(block, judged, spread, self.regression.decide(block))


def build_endpoints(
    activities: ActivityShards,
    table: AssayTable,
    *,
    parent: IntVector,
    fold: npt.NDArray[np.int8],
    rules: PreparationRules,
    scratch: Path,
    catalogue: Catalogue = EMPTY_CATALOGUE,
    threads: int = 1,
) -> EndpointTables:
    """Make endpoints and labels.

    Args:
        activities: Credible activities by number; read once.
        table: The assays.
        parent: Structure of each row of the structure table, negative for none.
        fold: Fold of every structure, shape ``(n_structures,)``.
        rules: The profile.
        scratch: Directory for the files that labels are sorted through.
        catalogue: The consortium's catalogue.
        threads: Blocks of assays worked on at once.

    Returns:
        The tables, and what was left out.
    """
    labels = LabelShards(scratch, n_structures=len(fold))
    regression = RegressionCollector(scratch, table, rules=rules, n_structures=len(fold))
    tally, used, has_pairs = (
        Tally(),
        np.zeros(len(fold), dtype=np.bool_),
        np.zeros(len(table), dtype=np.bool_),
    )
    found: list[Candidates] = []
    n_candidates = 0

    decider = _Decider(table, parent, fold, rules, catalogue, labels, regression)
    with contextlib.closing(labels), contextlib.closing(regression):
        for one in itertools.chain.from_iterable(in_order(activities, decider, threads=threads)):
            used[one.block.measured.structure] = True
            has_pairs[one.block.assay] = True
            if one.labels is not None:
                labels.add(one.labels, first_candidate=n_candidates)
            regression.add(one.regression)
            tally.add(one.block, one.judged)
            found.append(one.judged.candidates)
            n_candidates += len(one.judged.candidates)
    without = block_without_pairs(np.flatnonzero(~has_pairs))
    found.append(judge(without, table, rules=rules, catalogue=catalogue).candidates)
    candidates = Candidates.joined(found)
    order = in_name_order(candidates, table)
    kept = order[candidates.is_trained[order]]
    index_of = np.full(len(candidates), -1, dtype=np.int64)
    index_of[kept] = np.arange(len(kept))
    left_out = order[~candidates.is_trained[order]]
    return EndpointTables(
        endpoint_table(candidates, kept, table, catalogue),
        [excluded(candidates, c, table, rules, has_pairs=has_pairs) for c in left_out.tolist()],
        tally,
        used,
        activities.without_parent(parent),
        regression,
        labels,
        index_of,
        threads,
    )


def endpoint_ids(assays: Any, rules: PreparationRules) -> list[str]:
    """Name every endpoint that assays may give, trained or not, by assay id, then threshold.

    Args:
        assays: ``pa.Table`` of the contract ``assays``.
        rules: The profile; thresholds that it takes from measurements have no name yet and are left out.
    """
    table = assay_table(assays, rules)
    block = block_without_pairs(np.arange(len(table)))
    candidates = judge(block, table, rules=rules, catalogue=EMPTY_CATALOGUE).candidates
    order = in_name_order(candidates, table)
    return [name_at(candidates, c, table) for c in order[~np.isnan(candidates.threshold[order])].tolist()]
