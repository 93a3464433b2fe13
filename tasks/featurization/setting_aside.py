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
    path: Path,
    contract: Contract,
    *,
    quarantine: Path,
    known_keys: dict[str, Any] | None = None,
    spool: Path | None = None,
) -> Accepted:
    """Read one of the partner's files and validate it by its contract.

    Args:
        path: Parquet, Arrow IPC or CSV.
        contract: What it must be.
        quarantine: Directory for the rows that break a rule.
        known_keys: Values that foreign keys may have.
        spool: File that takes the accepted rows, which are then mapped and not held in memory; None for small tables.

    Raises:
        ContractViolation: If the file is refused; its quarantine is written nevertheless.
    """
    place = quarantine / f"{contract.name}.arrow"
    validation = validate_batches(
        open_batches(path, contract), contract, quarantine_path=place, known_keys=known_keys
    )
    if spool is None:
        table = pa.Table.from_batches(list(validation), schema=contract.schema)
    else:
        write_table(spool, contract, validation)
        table = read_table(spool, contract)
    return Accepted(table, validation.report, place)


class Late:
    """Rows of a stream that its contract accepts and that cannot be used, by rule.

    Args:
        rules: Name and column of each rule.
    """

    def __init__(self, rules: Sequence[tuple[str, str]]) -> None:
        self.rules = tuple(rules)
        self._rows: list[list[npt.NDArray[np.int64]]] = [[] for _ in rules]
        self._n_rows = 0

    def note(self, bad: Sequence[npt.NDArray[np.bool_]], *, n_rows: int) -> npt.NDArray[np.bool_]:
        """Note the bad rows of the next accepted batch.

        Args:
            bad: For each rule True at the rows that break it; no row breaks two.
            n_rows: Rows of the batch.

        Returns:
            True at the rows that can be used.
        """
        good = np.ones(n_rows, dtype=np.bool_)
        for rows, mask in zip(self._rows, bad, strict=True):
            if mask.any():
                rows.append(np.flatnonzero(mask) + self._n_rows)
                good &= ~mask
        self._n_rows += n_rows
        return good

    def joined(self, rules: Sequence[tuple[str, str]], rows: Sequence[npt.NDArray[np.int64]]) -> "Late":
        """Add rules whose rows are known by their ordinals among the accepted rows."""
        both = Late((*self.rules, *rules))
        both._rows = [*self._rows, *([part] for part in rows)]
        both._n_rows = self._n_rows
        return both

    def rows(self) -> list[npt.NDArray[np.int64]]:
        """Ordinals among the accepted rows, for each rule."""
        return [np.concatenate([np.empty(0, dtype=np.int64), *rows]) for rows in self._rows]


def set_rows_aside(report: ValidationReport, late: Late, *, quarantine: Path) -> ValidationReport:
    """Quarantine the late rows of a table.

    Args:
        report: Of the table as its contract accepted it.
        late: Rows noted since.
        quarantine: The table's quarantine file, which is extended.

    Returns:
        A report that counts the late rows as quarantined; every rule is listed, also where its count is 0.
    """
    if not late.rules:
        return report
    rows = late.rows()
    ordinals = source_rows(np.concatenate(rows), quarantine=quarantine)
    ends = np.cumsum([len(part) for part in rows])
    findings = [
        _finding(part, rule, column=column)
        for part, (rule, column) in zip(np.split(ordinals, ends[:-1]), late.rules, strict=True)
    ]
    if len(ordinals):
        which = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
        labels = [pa.array([rule[place] for rule in late.rules]).take(pa.array(which)) for place in (0, 1)]
        _extend(quarantine, ordinals, rules=labels[0], columns=labels[1])
    return replace(
        report,
        rows_accepted=report.rows_accepted - len(ordinals),
        rows_quarantined=report.rows_quarantined + len(ordinals),
        findings=(*report.findings, *findings),
    )


def source_rows(accepted: npt.NDArray[np.int64], *, quarantine: Path) -> npt.NDArray[np.int64]:
    """Where accepted rows stand in the source: the rows before them, and those that were set aside among these.

    Args:
        accepted: Ordinals among the rows that are not in the quarantine.
        quarantine: The table's quarantine file.
    """
    bad = np.unique(read_table(quarantine, QUARANTINE).column("row").to_numpy())
    return accepted + np.searchsorted(bad - np.arange(len(bad)), accepted, side="right")


def set_aside(
    accepted: Accepted, reasons: Any, *, column: str, known_reasons: Sequence[str]
) -> ValidationReport:
    """Quarantine more rows of a table.

    Args:
        accepted: The rows in use, n of them.
        reasons: ``pa.StringArray`` of length n: why a row cannot be used; null if it can.
        column: The column to blame.
        known_reasons: All reasons there are; each is counted, also where the count is 0.

    Returns:
        A report that counts these rows as quarantined; the table, which may lie in a file, stays as it is.
    """
    late = Late([(reason, column) for reason in known_reasons])
    code = pc.fill_null(pc.index_in(reasons, value_set=pa.array(known_reasons)), -1).to_numpy()
    late.note([code == place for place in range(len(known_reasons))], n_rows=len(reasons))
    return set_rows_aside(accepted.report, late, quarantine=accepted.quarantine)


def require_mostly_usable(report: ValidationReport) -> None:
    """Refuse a file most of whose rows had to be set aside.

    Raises:
        ContractViolation: More than half of the rows read are in the quarantine.
    """
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


def _extend(quarantine: Path, ordinals: npt.NDArray[np.int64], *, rules: Any, columns: Any) -> None:
    """Add rows to a quarantine file, in the order of the source."""
    more = pa.table({"row": ordinals, "column": columns, "rule": rules})
    both = pa.concat_tables([read_table(quarantine, QUARANTINE), more.cast(QUARANTINE.schema)])
    order = np.argsort(both.column("row").to_numpy(), kind="stable")
    write_table(quarantine, QUARANTINE, both.take(pa.array(order)).combine_chunks())
