"""The quarantine: which rows of a partner's table were set aside, and why, without their values.

Why: nothing a partner brought may vanish silently, and no second copy of confidential rows may appear; the
partner finds the row in its own source by the ordinal. Runs: on the partner. Source: own.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_contracts.arrow_files import ArrowFile
from data_contracts.columns import Bools
from data_contracts.contract import Contract, Field
from data_contracts.rules import Between, LengthBetween

QUARANTINE = Contract(
    name="quarantine",
    version="1.0.0",
    description="Rows set aside by a validation: where they stand in the source and which rule they break.",
    fields=(
        Field("row", "int64", description="ordinal in the source; 0 is the first data row"),
        Field("column", "string", description="judged column or columns, joined by +"),
        Field("rule", "string", description="rule that the row breaks; `type` for text that is no number"),
    ),
    rules=(
        Between("row", minimum=0, maximum=None),
        LengthBetween("column", 1, 500),
        LengthBetween("rule", 1, 100),
    ),
)
Reason = tuple[str, str, Bools]


class QuarantineFile:
    """Writes the quarantine of one table as an Arrow IPC file; it appears under its name only when complete."""

    def __init__(self, path: Path) -> None:
        """Open a temporary file beside ``path``."""
        self._file = ArrowFile(path, QUARANTINE.schema)

    def add(self, reasons: Sequence[Reason], *, first_row: int) -> None:
        """Write down the bad rows of a batch, by row, then in the order of the reasons.

        Args:
            reasons: Column label, rule kind and True (n,) at the bad rows, for each broken rule.
            first_row: Ordinal of the batch's first row in the source.
        """
        rows = [np.flatnonzero(mask) for _, _, mask in reasons]
        which = np.repeat(np.arange(len(reasons), dtype=np.int32), [len(found) for found in rows])
        flat = np.concatenate(rows)
        order = np.argsort(flat, kind="stable")
        columns = pa.array([column for column, _, _ in reasons]).take(pa.array(which[order]))
        rules = pa.array([rule for _, rule, _ in reasons]).take(pa.array(which[order]))
        ordinals = pa.array(flat[order].astype(np.int64) + first_row)
        self._file.write(pa.RecordBatch.from_arrays([ordinals, columns, rules], schema=QUARANTINE.schema))

    def close(self) -> None:
        """Make the file durable and give it its name, replacing the quarantine of an earlier pass."""
        self._file.publish()

    def abandon(self) -> None:
        """Remove what was written; harmless after ``close``."""
        self._file.abandon()
