"""Row keys as 64-bit hashes: uniqueness and foreign keys over a stream, without keeping a single key.

Why: Arrow rebuilds its hash table for every batch (600 ns a row against 200,000 known keys), and Python sets
cost an object a row. Runs: anywhere. Source: own, rounds after MurmurHash3's finalizer; two different keys meet
with probability 2^-64 a pair (10 million keys: 3 in a million). Proved against sets in tests/data_contracts.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.columns import Bools, TextWords, Words, numbers, text_bytes, valid_rows

MAX_HASHED_WORDS = 16  # longer texts are rare and break the length rules; blake2b takes them one by one
SEED = np.uint64(0x9E3779B97F4A7C15)
FIRST_FACTOR = np.uint64(0xFF51AFD7ED558CCD)
SECOND_FACTOR = np.uint64(0xC4CEB9FE1A85EC53)
SHIFT = np.uint64(33)


def hash_keys(columns: Sequence[Any]) -> tuple[Words, Bools]:
    """Hash rows of key columns.

    Args:
        columns: String or integer Arrow arrays of n rows.

    Returns:
        Hashes (n,), and True (n,) where no key column is null.
    """
    hashes = np.full(len(columns[0]), SEED, dtype=np.uint64)
    valid = np.ones(len(columns[0]), dtype=np.bool_)
    for column in columns:
        if pa.types.is_string(column.type):
            hashes = _mixed_text(hashes, column)
        else:
            hashes = _mixed(hashes, numbers(column).astype(np.int64).view(np.uint64))
        if column.null_count:
            valid &= valid_rows(column)
    return hashes, valid


def _mixed(hashes: Words, words: Words) -> Words:
    """Stir one word into each hash; for a given hash no two words give the same result."""
    mixed = hashes ^ words
    mixed *= FIRST_FACTOR
    mixed ^= mixed >> SHIFT
    mixed *= SECOND_FACTOR
    mixed ^= mixed >> SHIFT
    return mixed


def _mixed_text(hashes: Words, column: Any) -> Words:
    """Stir length and bytes of each text into its hash."""
    text = TextWords(column)
    words = (text.lengths + 7) >> 3
    if len(words) == 0:
        return hashes
    mixed = _mixed(hashes, text.lengths.view(np.uint64))
    shared = int(words.min())
    for index in range(min(int(words.max()), MAX_HASHED_WORDS)):
        if index < shared:
            mixed = _mixed(mixed, text.word(index))
        else:
            rows = np.flatnonzero(words > index)
            mixed[rows] = _mixed(mixed[rows], text.word(index, rows))
    long = np.flatnonzero(words > MAX_HASHED_WORDS)
    if len(long):
        mixed[long] = _mixed(mixed[long], _long_text_digests(column, long))
    return mixed


def _long_text_digests(column: Any, rows: npt.NDArray[np.intp]) -> Words:
    """Return 64 bits of BLAKE2b for each of the given texts."""
    offsets, data = text_bytes(column)
    digests = [
        hashlib.blake2b(data[offsets[row] : offsets[row + 1]].tobytes(), digest_size=8).digest()
        for row in rows.tolist()
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


class SeenKeys:
    """The keys met so far in a stream, as a few sorted runs of doubling size (a log-structured merge)."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._runs: list[Words] = []

    def repetitions(self, columns: Sequence[Any]) -> Bools | None:
        """Mark rows whose key occurred before, in an earlier batch or row, and remember all keys.

        Args:
            columns: Key columns of one batch; a row with a null in them never repeats.

        Returns:
            True (n,) at every repetition, or None if there is none.
        """
        hashes, valid = hash_keys(columns)
        ordered = np.sort(hashes[valid])
        known = self._met(ordered)
        first = np.ones(len(ordered), dtype=np.bool_)
        first[1:] = ordered[1:] != ordered[:-1]
        self._remember(ordered[first & ~known])
        if first.all() and not known.any():
            return None
        order = np.argsort(hashes, kind="stable")
        later = np.zeros(len(hashes), dtype=np.bool_)
        rows = order[valid[order]]  # stable: of equal keys the earliest row stands first
        later[rows] = ~first | known
        return later

    def _met(self, ordered: Words) -> Bools:
        met = np.zeros(len(ordered), dtype=np.bool_)
        for run in self._runs:
            position = np.minimum(np.searchsorted(run, ordered), len(run) - 1)
            met |= run[position] == ordered
        return met

    def _remember(self, fresh: Words) -> None:
        if len(fresh) == 0:
            return
        self._runs.append(fresh)
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort(kind="stable")  # timsort: two sorted runs merge in linear time
            self._runs.append(merged)


class KnownKeys:
    """A fixed set of keys to look rows up in: an open-addressing table, a quarter full."""

    def __init__(self, keys: Any) -> None:
        """Build the table from a ``pa.Array`` or ``pa.ChunkedArray``; repetitions and nulls do not matter."""
        chunks = keys.chunks if isinstance(keys, pa.ChunkedArray) else [keys]
        hashed = [hash_keys([chunk]) for chunk in chunks]
        waiting = np.sort(np.concatenate([np.zeros(0, np.uint64), *(h[valid] for h, valid in hashed)]))
        waiting = waiting[np.append(True, waiting[1:] != waiting[:-1])[: len(waiting)]]
        self._has_zero = bool((waiting == 0).any())  # 0 marks a free slot
        waiting = waiting[waiting != 0]
        size = 1 << max(4, (4 * len(waiting) - 1).bit_length())
        self._table = np.zeros(size, dtype=np.uint64)
        slots = (waiting & np.uint64(size - 1)).astype(np.intp)
        while len(waiting):
            free = self._table[slots] == 0
            self._table[slots[free]] = waiting[
                free
            ]  # of several for one slot the last wins, the others go on
            left = self._table[slots] != waiting
            waiting, slots = waiting[left], (slots[left] + 1) & (size - 1)

    def strangers(self, column: Any) -> Bools | None:
        """Return True (n,) where a value is neither known nor null, or None if there is none."""
        hashes, valid = hash_keys([column])
        size = len(self._table)
        slots = (hashes & np.uint64(size - 1)).astype(np.intp)
        found = self._table[slots]
        if (found == hashes).all() and not (hashes == 0).any():
            return None
        strange = found != hashes
        open_rows = np.flatnonzero(strange & (found != 0))
        slots = slots[open_rows]
        while len(open_rows):
            slots = (slots + 1) & (size - 1)
            found = self._table[slots]
            strange[open_rows[found == hashes[open_rows]]] = False
            going = (found != 0) & (found != hashes[open_rows])
            open_rows, slots = open_rows[going], slots[going]
        strange[hashes == 0] = not self._has_zero
        strange &= valid
        return strange if strange.any() else None
