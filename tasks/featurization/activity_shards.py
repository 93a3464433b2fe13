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

from tasks.featurization.measurements import FloatVector, IntVector

SHARDS = 64
BUFFER_BYTES = 1 << 18  # for each file
STRUCTURE_BITS = np.uint64(32)
LOW_HALF = np.uint64(0xFFFFFFFF)
ROW = np.dtype([("key", "<u8"), ("value", "<f8"), ("row", "<u4"), ("relation", "i1")])
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class CodedRows:
    """Activities by number; arrays of shape ``(n_rows,)``.

    Attributes:
        assay: Row of the assay table.
        structure: Row of the structure table, or parent structure.
        value: On the assay's scale, p where it is a concentration.
        relation: -1, 0 or 1 for ``<``, ``=``, ``>``.
        row: Ordinal among the rows that the contract accepted.
    """

    assay: IntVector
    structure: IntVector
    value: FloatVector
    relation: npt.NDArray[np.int8]
    row: npt.NDArray[np.uint32]

    def where(self, wanted: npt.NDArray[Any]) -> "CodedRows":
        """Keep some rows, by mask or by place."""
        return CodedRows(
            self.assay[wanted],
            self.structure[wanted],
            self.value[wanted],
            self.relation[wanted],
            self.row[wanted],
        )


class ShardFiles:
    """Appends records to one of ``SHARDS`` files, and reads a file whole."""

    def __init__(self, directory: Path, name: str, *, dtype: Any) -> None:
        """Start with no records; ``directory`` must exist, ``dtype`` is NumPy's."""
        self._paths = [directory / f"{name}-{number:02d}.part" for number in range(SHARDS)]
        self._dtype = np.dtype(dtype)
        self._files: list[BinaryIO | None] = [None] * SHARDS

    def append(self, shard: npt.NDArray[np.uint8], records: npt.NDArray[Any]) -> None:
        """Spread records; ``shard`` says into which file each goes."""
        order = np.argsort(shard, kind="stable")  # a radix sort for bytes
        ends = np.cumsum(np.bincount(shard, minlength=SHARDS))
        ordered: Any = records.take(order)  # fancy indexing copies records field by field
        for number, (start, end) in enumerate(zip(np.append(0, ends[:-1]), ends, strict=True)):
            if end > start:
                file = self._files[number]
                if file is None:
                    file = self._files[number] = self._paths[number].open("wb", buffering=BUFFER_BYTES)
                file.write(ordered[start:end].data)

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


class ActivityShards:
    """Activities spread by assay: all of one assay lie in one file."""

    def __init__(self, directory: Path) -> None:
        """Start empty."""
        self._files = ShardFiles(directory, "activities", dtype=ROW)
        self.n_rows = 0

    def add(self, rows: CodedRows) -> None:
        """Spread some rows."""
        records = np.empty(len(rows.assay), dtype=ROW)
        records["key"] = halves(rows.assay, rows.structure)
        records["value"], records["relation"], records["row"] = rows.value, rows.relation, rows.row
        self._files.append((rows.assay % SHARDS).astype(np.uint8), records)
        self.n_rows += len(records)

    def close(self) -> None:
        """Finish writing."""
        self._files.close()

    def __iter__(self) -> Iterator[npt.NDArray[np.void]]:
        """Yield the records of each file, for ``sorted_rows``; can be done once."""
        return iter(self._files)


def sorted_rows(
    records: npt.NDArray[np.void], *, parent: IntVector
) -> tuple[CodedRows, npt.NDArray[np.uint32]]:
    """Sort the records of one file by assay, then parent structure.

    Args:
        records: As ``ActivityShards`` yields them.
        parent: Parent structure of each row of the structure table, negative for none.

    Returns:
        The rows, and the ordinals of those whose structure has no parent.
    """
    assay = (records["key"] >> STRUCTURE_BITS).view(np.int64)
    structure = parent[(records["key"] & LOW_HALF).view(np.int64)]
    lost = structure < 0
    key = halves(assay, structure)  # of a structure without a parent: nonsense, but not used
    order = np.argsort(key)
    if lost.any():
        order = order[~lost[order]]
    key, ordered = key[order], records.take(order)
    rows = CodedRows(
        (key >> STRUCTURE_BITS).view(np.int64),
        (key & LOW_HALF).view(np.int64),
        ordered["value"].copy(),
        ordered["relation"].copy(),
        ordered["row"].copy(),
    )
    return rows, records["row"][lost]


class LabelShards:
    """Labels spread by structure, to be read in the order of structure and endpoint."""

    def __init__(self, directory: Path, *, n_structures: int) -> None:
        """Start empty; structures are numbered below ``n_structures``."""
        self._files = ShardFiles(directory, "labels", dtype=np.dtype(np.uint64))
        self._width = max(-(-n_structures // SHARDS), 1)

    def add(self, structure: IntVector, candidate: IntVector, label: npt.NDArray[np.int8]) -> None:
        """Spread some labels.

        Args:
            structure: Structure of each label.
            candidate: A number below 2^31 for its endpoint, one of those that ``sorted_by`` renames.
            label: 0 or 1 for each.
        """
        code = halves(structure, (candidate << 1) | label)
        self._files.append((structure // self._width).astype(np.uint8), code)

    def close(self) -> None:
        """Finish writing."""
        self._files.close()

    def sorted_by(
        self, structure_index: IntVector, endpoint_index: IntVector
    ) -> Iterator[tuple[IntVector, IntVector, npt.NDArray[np.int8]]]:
        """Yield structures, endpoints and labels of each file, sorted; can be done once.

        Args:
            structure_index: New number of each structure, ascending where it is used.
            endpoint_index: New number of each candidate.
        """
        for code in self._files:
            keys: Keys = code.astype(np.uint64, copy=False)
            structure = structure_index[(keys >> STRUCTURE_BITS).view(np.int64)]
            endpoint = endpoint_index[((keys & LOW_HALF) >> np.uint64(1)).view(np.int64)]
            renamed = halves(structure, (endpoint << 1) | (keys & np.uint64(1)).view(np.int64))
            renamed.sort()
            yield (
                (renamed >> STRUCTURE_BITS).view(np.int64),
                ((renamed & LOW_HALF) >> np.uint64(1)).view(np.int64),
                (renamed & np.uint64(1)).astype(np.int8),
            )


def halves(high: IntVector, low: IntVector) -> Keys:
    """Join two numbers below 2^32 into one that sorts by the first, then the second."""
    return ((high << 32) | low).view(np.uint64)
