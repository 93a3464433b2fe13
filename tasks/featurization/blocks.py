"""Blocks of assays with all their pairs: what is decided together, in the processor's cache.

Why: everything about one assay follows from that assay's own pairs, so blocks are independent, and threads work on
several at once. Runs: on the partner. Source: own; MELLODDY-TUNER 3 for constant assays (``filter_by_std``).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from data_contracts.catalogue import LAST_FOLD
from tasks.featurization.activity_shards import LOW_BITS, LOW_HALF, SortedRows
from tasks.featurization.assay_table import REPLICATE_RULES, AssayTable
from tasks.featurization.measurements import BoolVector, IntVector, Measured
from tasks.featurization.preparation_rules import PreparationRules
from tasks.featurization.quorums import deviation_by_fold
from tasks.featurization.replicates import Replicates, aggregate, measured_pairs
from tasks.featurization.thresholds import point_values

N_FOLDS = LAST_FOLD + 1
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Block:
    """Some assays and all their pairs; pairs name assays by their place here.

    Attributes:
        assay: Rows of the assay table, ascending, shape ``(n_assays,)``.
        measured: Pairs, ``measured.assay`` below ``n_assays``.
        fold: Fold of each pair.
        is_constant: Assays whose values do not vary in every fold; they get no classification endpoints.
        n_contradictory: Pairs left out because their replicates exclude each other.
    """

    assay: IntVector
    measured: Measured
    fold: IntVector
    is_constant: BoolVector
    n_contradictory: int

    def without_constant(self) -> "Block":
        """Leave out the pairs of constant assays."""
        if not self.is_constant.any():
            return self
        rows = np.flatnonzero(~self.is_constant.take(self.measured.assay))
        measured, fold = self.measured.at(rows), self.fold.take(rows)
        return Block(self.assay, measured, fold, self.is_constant, self.n_contradictory)


def block_of(
    rows: SortedRows, table: AssayTable, *, fold: npt.NDArray[np.int8], rules: PreparationRules
) -> Block:
    """Aggregate replicates, find constant assays, then round.

    Args:
        rows: All rows of some assays, at least one.
        table: All assays.
        fold: Fold of every structure.
        rules: The profile.
    """
    first = np.append(0, np.flatnonzero(rows.pair[1:] != rows.pair[:-1]) + 1)
    pair = rows.pair.take(first)
    pair_assay, structure = ((pair >> LOW_BITS).view(np.int64), (pair & LOW_HALF).view(np.int64))
    starts = np.append(True, pair_assay[1:] != pair_assay[:-1])
    assay = pair_assay[starts]
    replicates = Replicates(first, rows.value, rows.relation)
    summary = aggregate(replicates, rule=table.replicates.take(pair_assay), rules=REPLICATE_RULES)
    local = measured_pairs(np.cumsum(starts) - 1, structure, summary)
    fold_of_pair = fold.take(local.structure).astype(np.int64)
    return Block(
        assay,
        local.rounded(table.decimals[assay]),
        fold_of_pair,
        _constant(local, fold_of_pair, n_assays=len(assay), rules=rules),
        n_contradictory=len(first) - len(local),
    )


def block_without_pairs(assay: IntVector) -> Block:
    """Assays of which there is no activity."""
    number, value = np.empty(0, dtype=np.int64), np.empty(0)
    return Block(
        assay, Measured(number, number, value, value), number, np.zeros(len(assay), dtype=np.bool_), 0
    )


def _constant(local: Measured, fold: IntVector, *, n_assays: int, rules: PreparationRules) -> BoolVector:
    """Which assays have values that do not vary in every fold."""
    if rules.smallest_deviation is None:
        return np.zeros(n_assays, dtype=np.bool_)
    deviation = deviation_by_fold(local.assay, fold, point_values(local), n_assays=n_assays, n_folds=N_FOLDS)
    has_pairs = np.bincount(local.assay, minlength=n_assays) > 0
    return np.asarray(has_pairs & (deviation.min(axis=1) <= rules.smallest_deviation), dtype=np.bool_)


def in_order(items: Iterable[Item], work: Callable[[Item], Result], *, threads: int) -> Iterator[Result]:
    """Work on items in several threads and yield the results in the order of the items.

    At most ``threads`` items are under way, so that memory does not grow with their number.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
