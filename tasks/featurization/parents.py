"""Distinct parents of a partner's structures, with their folds and set bits.

Why: the same structure is brought under many names, as salts and as stereoisomers; it is featurized once, and
what was measured on any of them counts for the one parent. Runs: on the partner. Source: MELLODDY-TUNER's
``descriptor_vector_id``, here by a keyed name of the parent instead of by its fingerprint.
"""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.catalogue import FEATURIZED_STRUCTURES, HASHED_FINGERPRINTS
from tasks.featurization.executors import BLOCK_STRUCTURES, CHUNK_STRUCTURES, Executor
from tasks.featurization.feature_cache import Digests, FeatureCache, digests_of, fixed_width, names_from
from tasks.featurization.key_positions import UNKNOWN
from tasks.featurization.permutations import permuted_rows
from tasks.featurization.standardization import REASONS
from tasks.featurization.structure_recipe import StructureRecipe
from tasks.featurization.worker_pool import LOST_REASONS

ROWS_A_BATCH = 1 << 16
NO_PARENT = -1
UNUSABLE = (*REASONS, *LOST_REASONS)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Parents:
    """Distinct parents, sorted by their keyed name, and where each structure row went.

    Attributes:
        key: Keyed name of each parent, sorted, shape ``(n_parents,)``; the order tells nothing about the source.
        fold: Fold of each parent.
        of_row: Parent of each structure row, ``NO_PARENT`` where there is none, shape ``(n_rows,)``.
        reason_of_row: ``pa.StringArray``; one of ``UNUSABLE`` where there is no parent, else null.
    """

    key: npt.NDArray[np.bytes_]
    fold: npt.NDArray[np.int8]
    of_row: npt.NDArray[np.int64]
    reason_of_row: Any
    _features: Any
    _representative: npt.NDArray[np.int64]
    _recipe: StructureRecipe

    def batches(self, kept: npt.NDArray[np.int64], *, fold: npt.NDArray[np.int8]) -> Generator[Any]:
        """Yield record batches of the contract ``hashed_fingerprints`` for some parents, in ascending order.

        Args:
            kept: Parents, ascending.
            fold: Fold of every parent.
        """
        bits, counts = (_Gatherer(self._features.column(name)) for name in ("bits", "counts"))
        for start in range(0, len(kept), ROWS_A_BATCH):
            some = kept[start : start + ROWS_A_BATCH]
            rows = self._representative[some]
            row_bits, row_counts = self._permuted(bits.of(rows), counts.of(rows))
            columns = [
                pa.array(np.arange(start, start + len(some), dtype=np.int32)),
                pa.array(self.key[some].astype(str), pa.string()),
                pa.array(fold[some]),
                row_bits,
                row_counts,
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=HASHED_FINGERPRINTS.schema)

    def _permuted(self, bits: Any, counts: Any) -> tuple[Any, Any]:
        """Permute the bits as the rules ask; counts follow their bits, or are null where none are kept."""
        has_counts = self._recipe.rules.fingerprint.counts
        permutation = self._recipe.permutation
        offsets = bits.offsets
        if permutation is not None:
            moved, origin = permuted_rows(
                offsets.to_numpy().astype(np.int64) - offsets[0].as_py(),
                bits.flatten().to_numpy(),
                permutation,
            )
            bits = pa.ListArray.from_arrays(_from_zero(offsets), pa.array(moved))
            if has_counts:
                counts = pa.ListArray.from_arrays(
                    _from_zero(offsets), pa.array(counts.flatten().to_numpy()[origin])
                )
        return bits, counts if has_counts else pa.nulls(len(bits), counts.type)


class _Gatherer:
    """Takes rows of a column whose chunks lie in mapped files, without ever joining the chunks in memory."""

    def __init__(self, column: Any) -> None:
        self._column = column
        self._ends = np.cumsum([len(chunk) for chunk in column.chunks], dtype=np.int64)

    def of(self, rows: npt.NDArray[np.int64]) -> Any:
        """Return an array of the rows, in their order."""
        if not len(rows):
            return self._column.combine_chunks().slice(0, 0)
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        chunk = np.searchsorted(self._ends, ascending, side="right")
        first = np.flatnonzero(np.append(True, np.diff(chunk) != 0))
        parts = [
            self._column.chunk(int(number)).take(pa.array(some - (self._ends[number - 1] if number else 0)))
            for number, some in zip(chunk[first], np.split(ascending, first[1:]), strict=True)
        ]
        place = np.empty(len(rows), dtype=np.int64)
        place[order] = np.arange(len(rows))
        return pa.concat_arrays(parts).take(pa.array(place))


def _from_zero(offsets: Any) -> Any:
    return pc.subtract(offsets, offsets[0])


def find_parents(
    smiles: Any, *, recipe: StructureRecipe, cache: Path, executor: Executor, progress: Progress
) -> Parents:
    """Featurize each distinct SMILES that was never featurized before, and merge those that have one parent.

    Args:
        smiles: ``pa.ChunkedArray`` of strings without nulls, n_rows of them; it may lie in a file.
        recipe: The rules and the keys that follow from the consortium's secret; no key reaches the workers.
        cache: Directory of the cache.
        executor: Where structures are featurized.
        progress: Called with the number of distinct SMILES done and their total.

    Returns:
        The parents.

    Raises:
        WorkFailed: If the work cannot be done; what was finished is kept.
    """
    asked = _distinct(smiles, key=recipe.name_key)
    shards = FeatureCache(cache / recipe.digest)
    found = shards.find(asked.digests)
    missing = np.flatnonzero(found.row == UNKNOWN)
    total = len(asked.digests)
    progress(total - len(missing), total)
    if len(missing):
        del found  # the shards stay mapped as long as somebody looks at them
        _featurize(
            _texts(smiles, asked.first_row[missing]),
            asked.digests[missing],
            recipe=recipe,
            shards=shards,
            executor=executor,
            shared=cache / f"blocks-{recipe.digest}",
            progress=lambda done: progress(total - len(missing) + done, total),
        )
        found = shards.find(asked.digests)
    return _merged(found.table, found.row, asked.of_row, recipe=recipe)


@dataclass(frozen=True)
class _Distinct:
    """Structures that are written differently, in the order in which they first occur.

    Attributes:
        digests: Keyed digest of each.
        first_row: Where each first occurs, ascending.
        of_row: Which of them each row is.
    """

    digests: Digests
    first_row: npt.NDArray[np.int64]
    of_row: npt.NDArray[np.int64]


def _distinct(smiles: Any, *, key: bytes) -> _Distinct:
    """Find equal rows by their digests; no text is held."""
    parts = [digests_of(chunk, key=key) for chunk in smiles.chunks]
    digests = np.concatenate([np.empty((0, 2), dtype=np.uint64), *parts])
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: of equal ones the first row stands first
    ordered = digests[order]
    starts = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))[: len(order)]
    del ordered
    first_row = order[starts]
    rank = np.empty(len(first_row), dtype=np.int64)
    rank[np.argsort(first_row)] = np.arange(len(first_row))
    of_row = np.empty(len(order), dtype=np.int64)
    of_row[order] = rank[np.cumsum(starts) - 1]
    first_row = np.sort(first_row)
    return _Distinct(digests[first_row], first_row, of_row)


def _texts(smiles: Any, rows: npt.NDArray[np.int64]) -> Iterator[Any]:
    """Yield the texts of ascending rows, ``CHUNK_STRUCTURES`` at a time."""
    gatherer = _Gatherer(smiles)
    for start in range(0, len(rows), CHUNK_STRUCTURES):
        yield gatherer.of(rows[start : start + CHUNK_STRUCTURES])


def _merged(
    table: Any, row: npt.NDArray[np.int64], of_source: npt.NDArray[np.int64], *, recipe: StructureRecipe
) -> Parents:
    """Merge structures with one name; the smallest parent speaks for all its tautomers.

    Args:
        table: All cached rows.
        row: Row of each distinct SMILES.
        of_source: Distinct SMILES of each source row.
        recipe: As in ``find_parents``.
    """
    reason = table.column("reason").take(pa.array(row)).combine_chunks()
    sound = pc.is_null(reason).to_numpy(zero_copy_only=False)
    good = row[sound]
    key = fixed_width(table.column("structure_key"))[good]
    ties = () if recipe.rules.identity == "parent" else (fixed_width(table.column("parent_key"))[good],)
    order = np.lexsort((good, *ties, key))
    is_first = np.append(True, key[order][1:] != key[order][:-1])[: len(order)]
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.cumsum(is_first) - 1
    of_distinct = np.full(len(row), NO_PARENT, dtype=np.int64)
    of_distinct[sound] = rank
    representative = good[order[is_first]]
    fold = pc.fill_null(table.column("fold"), -1).to_numpy()[representative]
    return Parents(
        key=key[order[is_first]],
        fold=fold,
        of_row=of_distinct[of_source],
        reason_of_row=reason.take(pa.array(of_source)),
        _features=table.select(["bits", "counts"]),
        _representative=representative,
        _recipe=recipe,
    )


def _featurize(
    chunks: Iterable[Any],
    digests: Digests,
    *,
    recipe: StructureRecipe,
    shards: FeatureCache,
    executor: Executor,
    shared: Path,
    progress: Callable[[int], None],
) -> None:
    """Have distinct SMILES featurized, and cache them shard by shard."""
    waiting: list[Any] = []
    done = 0
    work = executor.answers(chunks, digests=digests, recipe=recipe, shared=shared)
    with contextlib.closing(work) as answers:
        for answer in answers:
            names = names_from(digests[done : done + answer.num_rows])
            waiting.append(_named(answer, names, recipe=recipe))
            done += answer.num_rows
            if done % BLOCK_STRUCTURES == 0 or done == len(digests):
                shards.add(waiting)
                waiting = []
            progress(done)


def _named(answer: Any, names: Any, *, recipe: StructureRecipe) -> Any:
    """Replace texts of structures by keyed names, and scaffolds by folds."""
    parent, identity = answer.column("parent"), answer.column("identity")
    parent_key = _each(parent, recipe.structure_key)
    by_parent = recipe.rules.identity == "parent"
    columns = [
        names,
        parent_key if by_parent else _each(identity, recipe.structure_key),
        parent_key,
        _each(answer.column("scaffold"), recipe.fold_of, kind=pa.int8()),
        *(answer.column(name) for name in ("reason", "bits", "counts")),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=FEATURIZED_STRUCTURES.schema)


def _each(column: Any, of: Callable[[str], Any], *, kind: Any = None) -> Any:
    """Apply a function to each text that is not null, once to each distinct one."""
    encoded = column.dictionary_encode()
    values = pa.array([of(text) for text in encoded.dictionary.to_pylist()], kind or pa.string())
    return values.take(encoded.indices)
