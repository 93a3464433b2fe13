"""Where a name stands in a list: a hash table over millions of names, asked for a batch at a time.

Why: Arrow's ``index_in`` builds its table anew for every batch, and Python's dict costs an object a row.
Runs: on the partner. Source: own; the hashes and their collision bound are those of ``data_contracts/keys.py``.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.columns import numbers
from data_contracts.encoded import address_of, is_encoded
from data_contracts.keys import hash_keys

UNKNOWN = -1
LEAST_SLOTS = 16


class KeyPositions:
    """Positions of distinct names, in an open-addressing table that is at most a quarter full."""

    def __init__(self, names: Any) -> None:
        """Build the table.

        Args:
            names: ``pa.Array`` or ``pa.ChunkedArray`` of distinct strings without nulls; chunks are never joined.
        """
        chunks = names.chunks if isinstance(names, pa.ChunkedArray) else [names]
        hashes = np.concatenate([np.empty(0, np.uint64), *(hash_keys([chunk])[0] for chunk in chunks)])
        size = max(LEAST_SLOTS, 1 << (4 * len(names)).bit_length())
        self._hash = np.zeros(size, dtype=np.uint64)
        self._position = np.full(size, UNKNOWN, dtype=np.int64)
        waiting = np.arange(len(names))
        slot = (hashes & np.uint64(size - 1)).view(np.int64)
        while len(waiting):
            free = self._position[slot] == UNKNOWN
            self._position[slot[free]] = waiting[
                free
            ]  # of several for one slot the last wins, the others go on
            left = self._position[slot] != waiting
            waiting, slot = waiting[left], (slot[left] + 1) & (size - 1)
        taken = self._position != UNKNOWN
        self._hash[taken] = hashes[self._position[taken]]
        self._of_dictionary: tuple[Any, npt.NDArray[np.int64]] | None = None

    def of(self, column: Any) -> npt.NDArray[np.int64]:
        """Return the position of each name, ``UNKNOWN`` where it is not in the list, shape ``(n,)``.

        Several threads may ask.

        Args:
            column: ``pa.Array`` of strings without nulls, plain or dictionary-encoded.
        """
        if not is_encoded(column):
            return self._of_plain(column)
        known = self._of_dictionary
        if known is None or address_of(column.dictionary) != address_of(known[0]):
            # The dictionary is held on to, so that its address stays its own.
            known = self._of_dictionary = (column.dictionary, self._of_plain(column.dictionary))
        found: npt.NDArray[np.int64] = known[1].take(numbers(column.indices))
        return found

    def _of_plain(self, column: Any) -> npt.NDArray[np.int64]:
        hashes, _ = hash_keys([column])
        slot = (hashes & np.uint64(len(self._hash) - 1)).view(np.int64)
        position, rows = self._position[slot], np.arange(len(slot))
        while True:
            other = (self._hash[slot] != hashes[rows]) & (self._position[slot] != UNKNOWN)
            if not other.any():
                return position
            rows, slot = rows[other], (slot[other] + 1) & (len(self._hash) - 1)
            position[rows] = self._position[slot]
