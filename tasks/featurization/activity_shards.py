"""Activities and labels of any number, sorted through small files.

Why: 50 million rows do not fit a sort in memory; spread over some files by assay, each file sorts in the processor's
cache, and the cost per row does not grow with their number. Runs: on the partner. Source: own; the first pass of a
radix sort.

The files lie in the scratch directory, hold codes and values without names, and are gone when the work is done.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tasks.featurization.measurements import BoolVector, FloatVector, IntVector

SHARDS = 64
BUFFER_BYTES = 1 << 18  # for each file
CODE_BITS, LOW_BITS = np.uint64(2), np.uint64(32)
HIGH_SHIFT = CODE_BITS + LOW_BITS
CODE, LOW_HALF = np.uint64(3), np.uint64(0xFFFFFFFF)
LOW_PLACE = LOW_HALF << CODE_BITS
RECORD = np.dtype([("key", "<u8"), ("value", "<f8")])  # of 16 bytes: numpy moves such a record as one
STRUCTURE = np.dtype("<u4")
NOT_USED = np.uint32(0xFFFFFFFF)
READ_ROWS = 1 << 20
Keys = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.int8]


def packed(high: IntVector, low: IntVector, code: npt.NDArray[Any]) -> Keys:
    """Join a number below 2^30, one below 2^32 and one below 4 into a key that sorts by them in this order."""
    key = high << np.int64(HIGH_SHIFT)
    key |= low << np.int64(CODE_BITS)
    key |= code
    return key.view(np.uint64)


def high_of(key: Keys) -> IntVector:
    """The first number of each key."""
    return (key >> HIGH_SHIFT).view(np.int64)


def low_of(key: Keys) -> IntVector:
    """The second number of each key."""
    low: IntVector = ((key >> CODE_BITS) & LOW_HALF).view(np.int64)
    return low


def code_of(key: Keys) -> Codes:
    """The third number of each key."""
    return (key & CODE).astype(np.int8)


@dataclass(frozen=True)
class CodedRows:
    """Activities by number; arrays of shape ``(n_rows,)``.

    Attributes:
        assay: Row of the assay table.
        structure: Row of the structure table.
        value: On the assay's scale, p where it is a concentration.
        relation: -1, 0 or 1 for ``<``, ``=``, ``>``.
    """

    assay: IntVector
    structure: IntVector
    value: FloatVector
    relation: Codes


@dataclass(frozen=True)
class SortedRows:
    """Activities sorted by assay, then parent structure; arrays of shape ``(n_rows,)``.

    Attributes:
        pair: Assay and parent structure in one number, as ``packed`` leaves them above the code.
        value: As in ``CodedRows``.
        relation: As in ``CodedRows``.
    """

    pair: Keys
    value: FloatVector
    relation: Codes

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.pair)

    def by_assays(self, n_rows: int) -> Iterator["SortedRows"]:
        """Yield parts of whole assays, each as long as it can be without exceeding ``n_rows``, or one assay."""
        assay = self.pair >> LOW_BITS
        ends = np.append(np.flatnonzero(assay[1:] != assay[:-1]) + 1, len(assay))
        start = 0
        while start < len(assay):
            place = np.searchsorted(ends, start + n_rows, side="right") - 1
            end = int(ends[max(place, np.searchsorted(ends, start, side="right"))])
            yield SortedRows(self.pair[start:end], self.value[start:end], self.relation[start:end])
            start = end


@dataclass(frozen=True)
class Spread:
    """Records in the order of the files they belong to, and where those of each file end."""

    records: npt.NDArray[Any]
    ends: IntVector


def spread(shard: IntVector, records: npt.NDArray[Any]) -> Spread:
    """Order records by the file, below ``SHARDS``, that each goes into."""
    small = shard.astype(np.uint8)
    order = np.argsort(small, kind="stable")  # a radix sort for bytes
    return Spread(records.take(order), np.cumsum(np.bincount(small, minlength=SHARDS)))


class ShardFiles:
    """Appends records to one of ``SHARDS`` files, and reads a file whole."""

    def __init__(self, directory: Path, name: str, *, dtype: np.dtype[Any]) -> None:
        """Start empty; files ``NAME-00.part`` and on appear in the directory when they are needed."""
        self._paths = [directory / f"{name}-{number:02d}.part" for number in range(SHARDS)]
        self._dtype = dtype
        self._files: list[BinaryIO | None] = [None] * SHARDS

    def append(self, some: Spread) -> None:
        """Write records behind those of their file."""
        starts = np.append(0, some.ends[:-1])
        for number, (start, end) in enumerate(zip(starts.tolist(), some.ends.tolist(), strict=True)):
            if end > start:
                file = self._files[number]
                if file is None:
                    file = self._files[number] = self._paths[number].open("wb", buffering=BUFFER_BYTES)
                file.write(some.records[start:end].data)

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the records of each file in turn and remove it."""
        self.close()
        for path in self._paths:
            if path.exists():
                records = np.fromfile(path, dtype=self._dtype)
                path.unlink()
            else:
                records = np.empty(0, dtype=self._dtype)
            yield records

    def close(self) -> None:
        """Finish writing."""
        for file in self._files:
            if file is not None:
                file.close()
        self._files = [None] * SHARDS


@dataclass(frozen=True)
class SpreadRows:
    """Activities on their way into files.

    Attributes:
        structure: Row of the structure table, for all rows; ``NOT_USED`` for one that is not good.
        good: The good rows.
    """

    structure: npt.NDArray[np.uint32]
    good: Spread


class ActivityShards:
    """Activities spread by assay: all of one assay lie in one file."""

    def __init__(self, directory: Path) -> None:
        """Start empty."""
        self._files = ShardFiles(directory, "activities", dtype=RECORD)
        self._order = directory / "structures.part"  # of all rows, as they came: says which are lost
        self._structures: BinaryIO | None = None  # until the first rows: a refused table leaves nothing open

    def spread(self, rows: CodedRows, *, good: BoolVector) -> SpreadRows:
        """Order the good ones among some rows for ``add``; several threads may do so."""
        structure = rows.structure.astype(STRUCTURE)
        records = np.empty(len(rows.assay), dtype=RECORD)
        records["key"] = packed(rows.assay, rows.structure, rows.relation + np.int8(1))
        records["value"] = rows.value
        shard = rows.assay & (SHARDS - 1)
        if not good.all():
            structure[~good] = NOT_USED
            records, shard = records[good], shard[good]
        return SpreadRows(structure, spread(shard, records))

    def add(self, some: SpreadRows) -> None:
        """Keep some rows; they are counted in the order of the calls."""
        if self._structures is None:
            self._structures = self._order.open("wb", buffering=BUFFER_BYTES)
        self._structures.write(some.structure.data)
        self._files.append(some.good)

    def close(self) -> None:
        """Finish writing."""
        if self._structures is not None:
            self._structures.close()
        self._files.close()

    def __iter__(self) -> Iterator[npt.NDArray[np.void]]:
        """Yield the records of each file, for ``sorted_rows``; can be done once."""
        return iter(self._files)

    def without_parent(self, parent: IntVector) -> IntVector:
        """Ordinals, among all rows added, of the good ones whose structure has no parent; can be done once.

        Args:
            parent: Parent structure of each row of the structure table, negative for none.
        """
        self.close()
        lost = np.append(parent < 0, False)  # the last is for rows that are not used
        found, n_before = [np.empty(0, dtype=np.int64)], 0
        if self._structures is None:
            return found[0]
        with self._order.open("rb") as file:
            while lost.any() and len(structure := np.fromfile(file, dtype=STRUCTURE, count=READ_ROWS)):
                found.append(np.flatnonzero(lost.take(structure, mode="clip")) + n_before)
                n_before += len(structure)
        self._order.unlink()
        return np.concatenate(found)


def sorted_rows(records: npt.NDArray[np.void], *, parent: IntVector) -> SortedRows:
    """Sort the records of one file by assay, then parent structure; rows without a parent are left out.

    Args:
        records: As ``ActivityShards`` yields them.
        parent: Parent structure of each row of the structure table, negative for none.
    """
    key, value = records["key"], records["value"]
    structure = parent.take(low_of(key))
    if len(structure) and structure.min() < 0:
        kept = np.flatnonzero(structure >= 0)
        key, value, structure = key[kept], value[kept], structure[kept]
    key = (key & ~LOW_PLACE) | (structure.view(np.uint64) << CODE_BITS)
    order = np.argsort(key)
    key = key.take(order)
    return SortedRows(key >> CODE_BITS, value.take(order), code_of(key) - np.int8(1))


class LabelShards:
    """Labels spread by structure, to be read in the order of structure and endpoint."""

    def __init__(self, directory: Path, *, n_structures: int) -> None:
        """Start empty; structures are numbered below ``n_structures``."""
        self._files = ShardFiles(directory, "labels", dtype=np.dtype(np.uint64))
        self._width = width_of_shards(n_structures)

    def spread(self, structure: IntVector, candidate: IntVector, label: Codes) -> Spread:
        """Order some labels for ``add``; several threads may do so.

        Args:
            structure: Structure of each label.
            candidate: A number for its endpoint, counted within its block.
            label: 0 or 1 for each.
        """
        return spread(structure // self._width, packed(structure, candidate, label))

    def add(self, some: Spread, *, first_candidate: int) -> None:
        """Keep some labels; their candidates are counted from ``first_candidate`` on."""
        shift = np.uint64(first_candidate) << CODE_BITS
        self._files.append(Spread(some.records + shift, some.ends))

    def close(self) -> None:
        """Finish writing."""
        self._files.close()

    def __iter__(self) -> Iterator[Keys]:
        """Yield the labels of each file, for ``renamed_labels``; can be done once."""
        return iter(self._files)


def width_of_shards(n_structures: int) -> int:
    """How many structures, one after the other, share a file."""
    return max(-(-n_structures // SHARDS), 1)


def renamed_labels(
    key: Keys, *, structure_index: IntVector, endpoint_index: IntVector
) -> tuple[IntVector, IntVector, Codes]:
    """Return structures, endpoints and labels of one file, sorted.

    Args:
        key: As ``LabelShards`` yields them.
        structure_index: New number of each structure, ascending where it is used.
        endpoint_index: New number of each candidate.
    """
    renamed = packed(structure_index.take(high_of(key)), endpoint_index.take(low_of(key)), code_of(key))
    renamed.sort()
    return high_of(renamed), low_of(renamed), code_of(renamed)
