"""Validation of a stream of record batches against a contract.

Why: nothing may touch a partner's table before Arrow's own full validation and every rule have passed on it;
bad rows are set aside, not lost: accepted + quarantined = read. Runs: on the partner. Source: own.

The stream is judged as it flows, so the verdict comes last: whoever consumes the accepted batches publishes
nothing before the iteration has ended without ``ContractViolation`` (``writing.write_table`` does so).
"""

from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa

from data_contracts.checks import checks_for
from data_contracts.columns import Bools
from data_contracts.conforming import PARSERS, Conformed, check_columns, conform_encoded
from data_contracts.contract import Contract
from data_contracts.encoded import FullValidation, decoded
from data_contracts.quarantine import QuarantineFile, Reason
from data_contracts.report import EXAMPLE_ROWS, Finding, ValidationReport
from data_contracts.violations import attempt, refusal, source_name

MAX_BAD_FRACTION = 0.5
UNREADABLE = "type"
Texts = Literal["plain", "encoded"]


class Validation:
    """Iterates over the accepted batches (``pa.RecordBatch`` of the contract's schema); then has a report."""

    def __init__(
        self,
        batches: Iterable[Any],
        contract: Contract,
        *,
        quarantine_path: Path | None,
        max_bad_fraction: float,
        known_keys: Mapping[str, Any],
        source: str,
        texts: Texts,
    ) -> None:
        """See ``validate_batches``."""
        self._texts = texts
        self._contract = contract
        self._source = source
        self._quarantine_path = quarantine_path
        self._max_bad_fraction = max_bad_fraction
        self._judge = Judge(contract, known_keys=known_keys, source=source, text=True)
        self._read = 0
        self._quarantined = 0
        self._report: ValidationReport | None = None
        self._accepted = self._run(batches)

    def __iter__(self) -> Self:
        """Return itself: the stream can be walked once."""
        return self

    def __next__(self) -> Any:
        """Return the accepted rows of the next batch that has any."""
        return next(self._accepted)

    def close(self) -> None:
        """Stop early: the quarantine file does not appear and there is no report."""
        self._accepted.close()

    @property
    def report(self) -> ValidationReport:
        """What was found; exists once the iteration has ended or the table was refused.

        Raises:
            RuntimeError: If the iteration has not ended.
        """
        if self._report is None:
            raise RuntimeError("the report exists after the last batch: iterate over the validation first")
        return self._report

    def _run(self, batches: Iterable[Any]) -> Generator[Any, None, None]:
        file = QuarantineFile(self._quarantine_path) if self._quarantine_path is not None else None
        try:
            for batch in batches:
                conformed, reasons = self._judge.judge(batch)
                good = conformed
                if reasons:
                    bad = np.logical_or.reduce([mask for _, _, mask in reasons])
                    self._quarantined += int(bad.sum())
                    good = conformed.filter(pa.array(~bad))
                    if file is not None:
                        file.add(reasons, first_row=self._read)
                self._read += batch.num_rows
                if good.num_rows:
                    yield good if self._texts == "encoded" else decoded(good)
            if file is not None:
                file.close()
        finally:
            if file is not None:
                file.abandon()
        self._conclude()

    def _conclude(self) -> None:
        """Write the report and refuse the table if too much of it is bad."""
        refused = self._quarantined > self._max_bad_fraction * self._read
        verdict: Literal["accepted", "refused"] = "refused" if refused else "accepted"
        self._report = ValidationReport(
            source=self._source,
            contract=self._contract.identifier,
            digest=self._contract.digest,
            verdict=verdict,
            rows_read=self._read,
            rows_accepted=self._read - self._quarantined,
            rows_quarantined=self._quarantined,
            findings=self._judge.findings(),
            unchecked=self._judge.unchecked,
            quarantine=None if self._quarantine_path is None else source_name(self._quarantine_path),
        )
        if refused:
            broken = "; ".join(
                f"{f.rule} of {f.column}: {f.count} rows" for f in self._report.findings if f.count
            )
            raise refusal(
                self._source,
                got=f"{self._quarantined} of {self._read} rows that break {self._contract.identifier} ({broken})",
                expected=f"at most {self._max_bad_fraction:.0%} bad rows",
                advice="look up the rows by the ordinals in the quarantine file, correct the source, hand it in again",
            )


class Judge:
    """Carries the checks of one contract through one table and counts what they find."""

    def __init__(self, contract: Contract, *, known_keys: Mapping[str, Any], source: str, text: bool) -> None:
        """Prepare the checks; ``text`` says whether numbers may come as text, as in CSV."""
        self._contract = contract
        self._text = text
        self._source = source
        self._pairs, unchecked = checks_for(contract.all_rules, known_keys=known_keys)
        self.unchecked = tuple(f"{rule.kind} of {rule.label}" for rule in unchecked)
        self._rows_before = 0
        self._validate = FullValidation()
        self._schema: Any = None
        texts = [field.name for field in contract.fields if field.type in PARSERS]
        labels = [(UNREADABLE, name) for name in texts] + [(rule.kind, rule.label) for rule, _ in self._pairs]
        self._counts: dict[tuple[str, str], int] = dict.fromkeys(labels, 0)
        self._examples: dict[tuple[str, str], list[int]] = {label: [] for label in labels}

    def judge(self, batch: Any) -> tuple[Any, list[Reason]]:
        """Judge the next batch.

        Returns:
            The batch in the contract's schema (dictionary-encoded text stays so), and for each broken rule its column label, its kind and the mask.

        Raises:
            ContractViolation: The batch is structurally invalid or its columns do not fit.
        """
        damaged = refusal(
            self._source,
            got=f"a record batch (rows from {self._rows_before} on) whose inner structure is invalid",
            expected="Arrow data that passes full validation",
            advice="the file is damaged or its text is not UTF-8: write it again",
        )
        attempt(lambda: self._validate(batch), otherwise=damaged)
        if self._schema is None or not batch.schema.equals(self._schema):
            check_columns(batch.schema, self._contract, source=self._source, text=self._text)
            self._schema = batch.schema
        conformed = conform_encoded(batch, self._contract, source=self._source)
        reasons = self._reasons(conformed)
        for column, kind, mask in reasons:
            self._note((kind, column), mask)
        self._rows_before += batch.num_rows
        return conformed.batch, reasons

    def findings(self) -> tuple[Finding, ...]:
        """Return the counts so far, one finding for each rule in the contract's order."""
        return tuple(
            Finding(rule=kind, column=label, count=count, rows=tuple(self._examples[kind, label]))
            for (kind, label), count in self._counts.items()
        )

    def _reasons(self, conformed: Conformed) -> list[Reason]:
        reasons: list[Reason] = [(column, UNREADABLE, mask) for column, mask in conformed.unreadable.items()]
        for rule, check in self._pairs:
            mask = check(conformed.batch)
            if mask is not None and rule.kind == "required" and rule.label in conformed.unreadable:
                mask = _any(mask & ~conformed.unreadable[rule.label])  # said already: it is text, not empty
            if mask is not None:
                reasons.append((rule.label, rule.kind, mask))
        return reasons

    def _note(self, label: tuple[str, str], mask: Bools) -> None:
        self._counts[label] += int(mask.sum())
        examples = self._examples[label]
        if len(examples) < EXAMPLE_ROWS:
            found = np.flatnonzero(mask)[: EXAMPLE_ROWS - len(examples)]
            examples.extend((found + self._rows_before).tolist())


def _any(mask: Bools) -> Bools | None:
    return mask if mask.any() else None


def validate_batches(
    batches: Iterable[Any],
    contract: Contract,
    *,
    quarantine_path: Path | None,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    known_keys: Mapping[str, Any] | None = None,
    source: str | None = None,
    texts: Texts = "plain",
) -> Validation:
    """Validate a stream of batches and set bad rows aside.

    Args:
        batches: ``pa.RecordBatch`` objects, such as ``reading.open_batches`` gives; a ``pa.Table`` goes in as
            ``table.to_batches()``. Numbers may come as text (CSV does not know better).
        contract: What the table must be.
        quarantine_path: Arrow file to be written inside the partner's own directory, also when no row is bad;
            without it, bad rows are counted only.
        max_bad_fraction: Share of bad rows above which the whole table is refused.
        known_keys: For each foreign-key column the ``pa.Array`` of values it may hold. A foreign key that is not
            given here stays unchecked, and the report says so.
        source: Name for messages; by default the name of the file being read, else that of the contract.
        texts: ``encoded`` passes dictionary-encoded text on as it came; ``plain`` decodes it.

    Returns:
        An iterator over the accepted batches; after the last one ``.report`` holds the counts.

    Raises:
        ContractViolation: While iterating: the table is structurally invalid, has wrong columns, or more than
            ``max_bad_fraction`` of its rows are bad.
    """
    name = source or getattr(batches, "source", None) or contract.name
    return Validation(
        batches,
        contract,
        quarantine_path=quarantine_path,
        max_bad_fraction=max_bad_fraction,
        known_keys=known_keys or {},
        source=name,
        texts=texts,
    )


def require_valid(batches: Iterable[Any], contract: Contract, *, source: str) -> Iterator[Any]:
    """Pass batches on, refusing the table at the first row that breaks a rule: for our own artefacts.

    Args:
        batches: ``pa.RecordBatch`` objects.
        contract: What the table must be.
        source: Name for messages.

    Yields:
        Each batch in the contract's schema.

    Raises:
        ContractViolation: The first thing found wrong.
    """
    judge = Judge(contract, known_keys={}, source=source, text=False)
    first_row = 0
    for batch in batches:
        conformed, reasons = judge.judge(batch)
        for column, kind, mask in reasons:
            row = first_row + int(np.flatnonzero(mask)[0])
            raise refusal(
                source,
                got=f"{int(mask.sum())} rows from row {row} on that break rule {kind} of {column}",
                expected=f"{contract.identifier} without exception",
                advice="an artefact of motet itself must be perfect: remove it and let the step write it again",
            )
        first_row += batch.num_rows
        yield decoded(conformed)
