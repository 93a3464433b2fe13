"""From activities to endpoints: replicates, thresholds, labels, quorums and weights, in one pass over small files.

Why: the number of activities must not matter; all of one assay is decided in a block of its own, labels are sorted
through files. Runs: on the partner. Source: the rules of a profile (``profiles/*.yaml``); MELLODDY-TUNER 3 for what
they mean.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.catalogue import LABELS
from tasks.featurization.activity_shards import ActivityShards, LabelShards, sorted_rows
from tasks.featurization.assay_table import EMPTY_CATALOGUE, AssayTable, Catalogue, assay_table
from tasks.featurization.blocks import Block, block_of, block_without_pairs, in_order
from tasks.featurization.candidates import Candidates, Judged, judge
from tasks.featurization.endpoint_tables import endpoint_table, excluded, in_name_order, name_at
from tasks.featurization.measurements import BoolVector, IntVector
from tasks.featurization.preparation_rules import PreparationRules
from tasks.featurization.regression import RegressionCollector

LABELS_A_BATCH = 1 << 20
Triple = tuple[IntVector, IntVector, npt.NDArray[np.int8]]


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
    lost_rows: npt.NDArray[np.uint32]
    regression: RegressionCollector
    _labels: LabelShards = field(repr=False)
    _index_of: IntVector = field(repr=False)

    @property
    def structure_index(self) -> IntVector:
        """New number of each structure, counting those that are used."""
        return np.cumsum(self.used) - 1

    def label_batches(self) -> Iterator[Any]:
        """Yield record batches of the contract ``labels``, sorted; can be done once."""
        for structure, endpoint, label in _joined(
            self._labels.sorted_by(self.structure_index, self._index_of)
        ):
            columns = [
                pa.array(structure.astype(np.int32)),
                pa.array(endpoint.astype(np.int32)),
                pa.array(label),
            ]
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
    lost_rows = [np.empty(0, dtype=np.uint32)]
    n_candidates = 0

    def work(records: npt.NDArray[np.void]) -> tuple[Block, Judged, npt.NDArray[np.uint32]]:
        rows, lost = sorted_rows(records, parent=parent)
        block = block_of(rows, table, fold=fold, rules=rules)
        return block, judge(block.without_constant(), table, rules=rules, catalogue=catalogue), lost

    with contextlib.closing(labels), contextlib.closing(regression):
        for block, judged, lost in in_order(activities, work, threads=threads):
            used[block.measured.structure] = True
            has_pairs[block.assay] = True
            regression.add(block)
            for some in judged.labels:
                labels.add(some.structure, some.candidate + n_candidates, some.label)
            tally.add(block, judged)
            lost_rows.append(lost)
            found.append(judged.candidates)
            n_candidates += len(judged.candidates)
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
        np.sort(np.concatenate(lost_rows)),
        regression,
        labels,
        index_of,
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
