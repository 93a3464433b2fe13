"""What all imports share: a foreign table flows through its contract into a file of ours, batch by batch.

Why: a warehouse extract may be larger than memory, and every row read ends in the output or in the quarantine.
Runs: on the partner. Source: own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.contract import Contract
from data_contracts.reading import open_batches
from data_contracts.report import ValidationReport
from data_contracts.validation import require_valid, validate_batches
from tasks.featurization.setting_aside import Late, set_rows_aside

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Convert = Callable[[Any], tuple[Any, Sequence[Mask]]]


@dataclass(frozen=True)
class Imported:
    """A table that was imported.

    Attributes:
        path: The Parquet file, which keeps its contract.
        report: Counts of the rows of the foreign file: accepted + quarantined = read.
    """

    path: Path
    report: ValidationReport


def import_table(
    source: Path,
    foreign: Contract,
    target: Contract,
    *,
    directory: Path,
    convert: Convert,
    late_rules: Sequence[tuple[str, str]] = (),
) -> Imported:
    """Convert a foreign table into one of ours.

    Args:
        source: Parquet, Arrow IPC or CSV; columns that ``foreign`` does not have are passed over.
        foreign: Contract of the foreign table.
        target: Contract of the output.
        directory: Gets ``<target>.parquet`` and ``quarantine/<target>.arrow``.
        convert: From an accepted batch to columns of ``target`` (one value a row), and the rows that break each of
            ``late_rules``, which are left out.
        late_rules: Name and column of the rules that ``convert`` judges.

    Raises:
        ContractViolation: If the foreign table is refused, or a converted row breaks the target contract.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path, part = directory / f"{target.name}.parquet", directory / f".{target.name}.part"
    quarantine = directory / "quarantine" / f"{target.name}.arrow"
    batches = open_batches(source, foreign, others="passed over")
    validation = validate_batches(batches, foreign, quarantine_path=quarantine)
    late = Late(late_rules)

    def converted() -> Any:
        for batch in validation:
            columns, bad = convert(batch)
            good = late.note(bad, n_rows=batch.num_rows)
            yield pa.RecordBatch.from_pydict(columns).filter(pa.array(good))

    try:
        with pq.ParquetWriter(part, target.schema, compression="zstd") as writer:
            for batch in require_valid(converted(), target, source=foreign.name):
                writer.write_batch(batch)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return Imported(path, set_rows_aside(validation.report, late, quarantine=quarantine))


def plain_text(values: Sequence[Any]) -> Any:
    """Return texts as an Arrow array, also where all are missing."""
    return pa.array(values, pa.string())
