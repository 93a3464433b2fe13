"""Zero-copy numpy views of Arrow columns.

Why: a check at memory speed needs the buffers, not Python objects. Every function here expects an array that
``validate(full=True)`` has accepted. Runs: anywhere. Source: Arrow columnar format 1.5; own.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

WORD_BYTES = 8
TAIL_MASKS = np.array([(1 << (8 * n)) - 1 for n in range(WORD_BYTES + 1)], dtype=np.uint64)

Bools = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]


def numbers(array: Any) -> npt.NDArray[Any]:
    """Return the values (n,) of a fixed-width column; what stands in a null's place is undefined."""
    dtype = np.dtype(array.type.to_pandas_dtype())
    buffer = array.buffers()[1]
    if len(array) == 0 or buffer is None:
        return np.zeros(len(array), dtype=dtype)
    return np.frombuffer(buffer, dtype=dtype, count=array.offset + len(array))[array.offset :]


def bools(array: Any) -> Bools:
    """Return a bool column as (n,) bytes, nulls as False."""
    filled = array.fill_null(False) if array.null_count else array
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.bool_)


def valid_rows(array: Any) -> Bools:
    """Return True (n,) where the column is not null."""
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)


def text_bytes(array: Any) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Return offsets (n + 1,) and the bytes of a string column; the offsets index the bytes."""
    if len(array) == 0:
        return np.zeros(1, dtype=np.int32), np.zeros(0, dtype=np.uint8)
    _, offsets, data = array.buffers()
    view = np.frombuffer(offsets, dtype=np.int32, count=array.offset + len(array) + 1)[array.offset :]
    flat = np.zeros(0, dtype=np.uint8) if data is None else np.frombuffer(data, dtype=np.uint8)
    return view, flat


class TextWords:
    """The texts of a string column as little-endian 64-bit words, padded with zero bytes.

    Attributes:
        lengths: Bytes per text, (n,) int64; 0 for a null whose slot is empty.
    """

    def __init__(self, array: Any) -> None:
        """Copy the batch's bytes once, with room for one word behind the last."""
        offsets, data = text_bytes(array)
        first, last = int(offsets[0]), int(offsets[-1])
        padded = np.zeros(last - first + WORD_BYTES, dtype=np.uint8)
        padded[: last - first] = data[first:last]
        self._starts = offsets[:-1].astype(np.int64) - first
        self._words = np.ndarray(
            (len(padded) - WORD_BYTES + 1,), dtype="<u8", buffer=padded.data, strides=(1,)
        )
        self.lengths = np.diff(offsets).astype(np.int64)

    def word(self, index: int, rows: npt.NDArray[np.intp] | None = None) -> Words:
        """Return word ``index`` of every text, or of ``rows``, which must all be longer than ``8 * index``.

        Args:
            index: 0 for the first eight bytes; word 0 exists for empty texts too.
            rows: Row numbers (m,); without them every row is meant.

        Returns:
            (m,) uint64; bytes behind the end of a text are zero.
        """
        starts = self._starts if rows is None else self._starts[rows]
        lengths = self.lengths if rows is None else self.lengths[rows]
        words = np.asarray(self._words[starts + WORD_BYTES * index], dtype=np.uint64)
        shortest, longest = (int(lengths.min()), int(lengths.max())) if len(lengths) else (0, 0)
        if shortest >= WORD_BYTES * (index + 1):
            return words
        if shortest == longest:
            words &= TAIL_MASKS[shortest - WORD_BYTES * index]
        else:
            words &= TAIL_MASKS[np.minimum(lengths - WORD_BYTES * index, WORD_BYTES)]
        return words
