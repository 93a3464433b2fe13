"""Columns of an Arrow table as NumPy arrays, without a copy where the file is one chunk.

Why: a prepared file is mapped, not read; every copy of a column would be memory. Runs: on the partner. Source: own.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def numbers(table: Any, name: str) -> Any:
    """A column of numbers, shape ``(n_rows,)``."""
    return _one_chunk(table.column(name)).to_numpy(zero_copy_only=True)


def flags(table: Any, name: str) -> npt.NDArray[np.bool_]:
    """A column of booleans, shape ``(n_rows,)``; always a copy."""
    found: npt.NDArray[np.bool_] = _one_chunk(table.column(name)).to_numpy(zero_copy_only=False)
    return found


def lists(table: Any, name: str) -> tuple[npt.NDArray[np.int64], Any]:
    """A column of lists: where each starts and the last ends, shape ``(n_rows + 1,)``, and all elements."""
    found = _one_chunk(table.column(name))
    starts = found.offsets.to_numpy().astype(np.int64)
    return starts - starts[0], found.flatten().to_numpy(zero_copy_only=True)


def starts_of(rows: npt.NDArray[np.integer], n_rows: int) -> npt.NDArray[np.int64]:
    """Where each row's elements start in an ascending column of row numbers, shape ``(n_rows + 1,)``."""
    return np.searchsorted(rows, np.arange(n_rows + 1)).astype(np.int64)


def join_starts(starts: Any) -> npt.NDArray[np.int64]:
    """Row pointers of compressed rows that are put one behind the other."""
    return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part) for part in starts]))])


def ranges(
    row_starts: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of all elements of some compressed rows, and where each row starts among them."""
    lengths = row_starts[rows + 1] - row_starts[rows]
    ends = np.cumsum(lengths)
    starts = ends - lengths
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(row_starts[rows] - starts, lengths), starts


def _one_chunk(column: Any) -> Any:
    return (
        column.chunk(0)
        if column.num_chunks == 1
        else pa.concat_arrays(column.chunks or [pa.array([], column.type)])
    )
