"""Rules on dictionary-encoded text: each distinct text is judged once, not once a row.

Why: a warehouse exports a few thousand identifiers in millions of rows; judging the dictionary makes a rule free
of the number of rows. Runs: anywhere. Source: own; proved equal to the plain checks in tests/data_contracts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.columns import Bools, numbers, valid_rows

Mask = Bools | None
Check = Callable[[Any], Mask]


def is_encoded(array: Any) -> bool:
    """Tell whether an array is dictionary-encoded."""
    return bool(pa.types.is_dictionary(array.type))


def decoded(batch: Any, columns: Sequence[str] | None = None) -> Any:
    """Return a batch whose dictionary-encoded columns are plain.

    Args:
        batch: ``pa.RecordBatch``.
        columns: Columns that must be plain; without them every column.
    """
    schema = batch.schema
    arrays = list(batch.columns)
    for index, array in enumerate(batch.columns):
        if is_encoded(array) and (columns is None or schema.field(index).name in columns):
            arrays[index] = pc.cast(array, pa.string())
            schema = schema.set(index, schema.field(index).with_type(pa.string()))
    return batch if schema is batch.schema else pa.RecordBatch.from_arrays(arrays, schema=schema)


class FullValidation:
    """Arrow's own full validation of a stream of batches; a dictionary that stays the same is validated once."""

    def __init__(self) -> None:
        """Start with no dictionary seen."""
        self._seen: dict[str, tuple[Any, tuple[Any, ...]]] = {}

    def __call__(self, batch: Any) -> None:
        """Validate a batch.

        Raises:
            pyarrow.ArrowInvalid: If its inner structure is invalid.
        """
        arrays = list(batch.columns)
        for place, (name, array) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
            if is_encoded(array):
                address = address_of(array.dictionary)
                if name not in self._seen or self._seen[name][1] != address:
                    array.dictionary.validate(full=True)
                    self._seen[name] = (array.dictionary, address)
                arrays[place] = array.indices
                _check_indices(array)
        pa.RecordBatch.from_arrays(arrays, names=[str(place) for place in range(len(arrays))]).validate(
            full=True
        )


def _check_indices(array: Any) -> None:
    """Refuse indices outside the dictionary; those of nulls do not matter."""
    array.indices.validate(full=True)
    bounds = pc.min_max(array.indices)
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    if low is not None and not 0 <= low <= high < len(array.dictionary):
        raise pa.ArrowInvalid("an index points outside its dictionary")


def address_of(array: Any) -> tuple[Any, ...]:
    """Where an array lies in memory: the same for the same content only while the array is held on to."""
    return (len(array), array.offset, *(buffer and buffer.address for buffer in array.buffers()))


class ByDictionary:
    """A check of one text column that passes over nulls, carried out on the dictionary where there is one."""

    def __init__(self, check: Check, column: str) -> None:
        """Wrap a check that looks at nothing but ``column``."""
        self._check = check
        self._column = column
        self._dictionary: Any = None  # held on to, so that its address stays its own
        self._buffers: tuple[Any, ...] = ()
        self._broken: Mask = None

    def __call__(self, batch: Any) -> Mask:
        """Return the mask of the batch."""
        array = batch.column(self._column)
        if not is_encoded(array):
            return self._check(batch)
        self._judge(array.dictionary)
        if self._broken is None:
            return None
        index = numbers(array.indices.fill_null(0) if array.null_count else array.indices)
        mask = np.asarray(self._broken[index], dtype=np.bool_)
        if array.null_count:
            mask &= valid_rows(array)
        return mask if mask.any() else None

    def _judge(self, dictionary: Any) -> None:
        """Judge a dictionary, unless it is the one of the batch before."""
        buffers = address_of(dictionary)
        if self._dictionary is not None and buffers == self._buffers:
            return
        alone = pa.RecordBatch.from_arrays([dictionary], names=[self._column])
        self._broken = self._check(alone)
        self._dictionary, self._buffers = dictionary, buffers


def on_plain(check: Check, columns: Sequence[str]) -> Check:
    """Wrap a check that cannot work on dictionaries: its columns are decoded first."""
    return lambda batch: check(decoded(batch, columns))
