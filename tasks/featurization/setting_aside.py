"""Setting aside rows that keep their contract but cannot be used, as if a rule had caught them.

Why: every row read is accepted or in the quarantine, whoever refused it; the partner looks into one file per
table. Runs: on the partner. Source: own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contract import Contract
from data_contracts.quarantine import QUARANTINE
from data_contracts.reading import open_batches
from data_contracts.report import EXAMPLE_ROWS, Finding, ValidationReport
from data_contracts.validation import MAX_BAD_FRACTION, validate_batches
from data_contracts.violations import refusal
from data_contracts.writing import read_table, write_table


@dataclass(frozen=True)
class Accepted:
    """Rows of one of the partner's files that are still in use.

    Attributes:
        table: ``pa.Table`` of the contract.
        report: Counts of all rows that were read.
        quarantine: Where the other rows are written down.
    """

    table: Any
    report: ValidationReport
    quarantine: Path


def accept(
    path: Path, contract: Contract, *, quarantine: Path, known_keys: dict[str, Any] | None = None
) -> Accepted:
    """Read one of the partner's files and validate it by its contract.

    Args:
        path: Parquet, Arrow IPC or CSV.
        contract: What it must be.
        quarantine: Directory for the rows that break a rule.
        known_keys: Values that foreign keys may have.

    Raises:
        ContractViolation: If the file is refused; its quarantine is written nevertheless.
    """
    place = quarantine / f"{contract.name}.arrow"
    validation = validate_batches(
        open_batches(path, contract), contract, quarantine_path=place, known_keys=known_keys
    )
    table = pa.Table.from_batches(list(validation), schema=contract.schema)
    return Accepted(table, validation.report, place)


def set_aside(accepted: Accepted, reasons: Any, *, column: str, known_reasons: Sequence[str]) -> Accepted:
    """Quarantine more rows of a table.

    Args:
        accepted: The rows in use, n of them.
        reasons: ``pa.StringArray`` of length n: why a row cannot be used; null if it can.
        column: The column to blame.
        known_reasons: All reasons there are; each is counted, also where the count is 0.

    Returns:
        The rows left, with a report that counts the others as quarantined.
    """
    usable = pc.is_null(reasons)
    bad = np.flatnonzero(~usable.to_numpy(zero_copy_only=False))
    report = accepted.report
    ordinals = _ordinals(accepted)[bad]
    found = reasons.take(pa.array(bad))
    findings = [
        _finding(ordinals[pc.equal(found, reason).to_numpy(zero_copy_only=False)], reason, column=column)
        for reason in known_reasons
    ]
    if len(bad):
        _extend(accepted.quarantine, ordinals, found, column=column)
    return Accepted(
        accepted.table.filter(usable),
        replace(
            report,
            rows_accepted=report.rows_accepted - len(bad),
            rows_quarantined=report.rows_quarantined + len(bad),
            findings=(*report.findings, *findings),
        ),
        accepted.quarantine,
    )


def require_mostly_usable(accepted: Accepted) -> None:
    """Refuse a file most of whose rows had to be set aside.

    Raises:
        ContractViolation: More than half of the rows read are in the quarantine.
    """
    report = accepted.report
    if report.rows_quarantined > MAX_BAD_FRACTION * report.rows_read:
        counts = "; ".join(f"{f.rule} of {f.column}: {f.count} rows" for f in report.findings if f.count)
        raise refusal(
            report.source,
            got=f"{report.rows_quarantined} of {report.rows_read} rows that cannot be used ({counts})",
            expected=f"at most {MAX_BAD_FRACTION:.0%} such rows",
            advice="look up the rows by the ordinals in the quarantine file, correct the source, hand it in again",
        )


def _finding(ordinals: npt.NDArray[np.int64], reason: str, *, column: str) -> Finding:
    return Finding(
        rule=reason, column=column, count=len(ordinals), rows=tuple(ordinals[:EXAMPLE_ROWS].tolist())
    )


def _ordinals(accepted: Accepted) -> npt.NDArray[np.int64]:
    """Where the rows in use stand in the source: everywhere but in the quarantine."""
    in_use = np.ones(accepted.report.rows_read, dtype=np.bool_)
    in_use[read_table(accepted.quarantine, QUARANTINE).column("row").to_numpy()] = False
    return np.flatnonzero(in_use)


def _extend(quarantine: Path, ordinals: npt.NDArray[np.int64], reasons: Any, *, column: str) -> None:
    """Add rows to a quarantine file, in the order of the source."""
    more = pa.table(
        {"row": ordinals, "column": pa.array([column] * len(ordinals), pa.string()), "rule": reasons}
    )
    both = pa.concat_tables([read_table(quarantine, QUARANTINE), more.cast(QUARANTINE.schema)])
    order = np.argsort(both.column("row").to_numpy(), kind="stable")
    write_table(quarantine, QUARANTINE, both.take(pa.array(order)).combine_chunks())
