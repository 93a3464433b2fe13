"""Taking in a partner's activities: names become numbers, units one scale, and what is not credible is set aside.

Why: activities are many, so they flow through in batches and never lie in memory together; every row read is
accepted or in the quarantine. Runs: on the partner. Source: own; MELLODDY-TUNER 3 for the credibility windows
(``filter_credibility_range``, ``filter_binary``).
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.catalogue import ACTIVITIES
from data_contracts.columns import numbers
from data_contracts.encoded import is_encoded
from data_contracts.report import ValidationReport
from data_contracts.validation import validate_batches
from tasks.featurization.activity_shards import ActivityShards, CodedRows, Codes, SpreadRows
from tasks.featurization.assay_table import AssayTable
from tasks.featurization.blocks import in_order
from tasks.featurization.key_positions import KeyPositions
from tasks.featurization.measurements import P_OF_ONE, RELATIONS, BoolVector, IntVector, on_p_scale
from tasks.featurization.setting_aside import Late, set_rows_aside
from tasks.featurization.time_split import UNDATED, Days, days_of

UNKNOWN_STRUCTURE, NOT_CREDIBLE, NOT_BINARY = "unknown structure", "not credible", "not binary"
LATE_RULES = ((NOT_CREDIBLE, "value"), (NOT_BINARY, "value"))
STRUCTURE_RULES = ((UNKNOWN_STRUCTURE, "compound_id"),)


@dataclass(frozen=True)
class Names:
    """A partner's names, in the order of its tables.

    Attributes:
        compounds: ``pa.ChunkedArray`` of compound ids; it may lie in a file.
        assays: ``pa.Array`` of assay ids.
    """

    compounds: Any
    assays: Any


@dataclass(frozen=True)
class Intake:
    """Activities that were taken in.

    Attributes:
        first_day: First day on which each compound was measured, ``UNDATED`` where there is none.
    """

    first_day: Days
    _report: ValidationReport
    _late: Late
    _quarantine: Path

    def without_structure(self, lost: IntVector) -> ValidationReport:
        """Set aside what the contract accepted and cannot be used; to be called once.

        Args:
            lost: Activities whose structure has no parent: ordinals among the rows that the contract accepted.

        Returns:
            The counts: accepted + quarantined = read.
        """
        everything = self._late.joined(STRUCTURE_RULES, [lost])
        return set_rows_aside(self._report, everything, quarantine=self._quarantine)


@dataclass(frozen=True)
class _Taken:
    """A batch by numbers."""

    dates: Any
    compound: IntVector
    bad: tuple[BoolVector, BoolVector]
    spread: SpreadRows


def take_in(
    batches: Iterable[Any],
    *,
    names: Names,
    table: AssayTable,
    shards: ActivityShards,
    quarantine: Path,
    source: str | None = None,
    threads: int = 1,
) -> Intake:
    """Validate activities, code them, and hand them to the shards.

    Args:
        batches: ``pa.RecordBatch`` objects, such as ``open_batches`` gives.
        names: What the names stand for.
        table: The assays and their credible values.
        shards: Take the accepted rows; structures are rows of the structure table.
        quarantine: File for the other rows.
        source: Name for messages.
        threads: Batches coded at once, while the next ones are validated.

    Raises:
        ContractViolation: If the table is refused.
    """
    known = {"compound_id": names.compounds, "assay_id": names.assays}
    compounds, assays = KeyPositions(names.compounds), KeyPositions(names.assays)
    validation = validate_batches(
        batches, ACTIVITIES, quarantine_path=quarantine, known_keys=known, source=source, texts="encoded"
    )
    late = Late(LATE_RULES)
    first_day = np.full(len(names.compounds), UNDATED, dtype=np.int32)

    def work(batch: Any) -> _Taken:
        rows = _coded(batch, compounds=compounds, assays=assays)
        bad = _bad(rows, table)
        return _Taken(
            batch.column("measured_on"), rows.structure, bad, shards.spread(rows, good=~(bad[0] | bad[1]))
        )

    with contextlib.closing(shards):
        for taken in in_order(validation, work, threads=threads):
            late.note(taken.bad, n_rows=len(taken.compound))
            shards.add(taken.spread)
            _note_days(first_day, taken.dates, taken.compound)
    return Intake(first_day, validation.report, late, quarantine)


def _coded(batch: Any, *, compounds: KeyPositions, assays: KeyPositions) -> CodedRows:
    value, relation = on_p_scale(
        batch.column("value").to_numpy(),
        _codes(batch.column("unit"), tuple(P_OF_ONE)),
        _codes(batch.column("relation"), tuple(RELATIONS)) - np.int8(1),
    )
    return CodedRows(
        assays.of(batch.column("assay_id")),
        compounds.of(batch.column("compound_id")),
        value,
        relation,
    )


def _codes(column: Any, values: tuple[str, ...]) -> Codes:
    """Place of each text among a few."""
    value_set = pa.array(values)
    if not is_encoded(column):
        codes: Codes = pc.index_in(column, value_set=value_set).to_numpy().astype(np.int8)
        return codes
    of_dictionary: Codes = pc.fill_null(pc.index_in(column.dictionary, value_set=value_set), 0).to_numpy()
    if (of_dictionary == of_dictionary[0]).all():
        return np.full(len(column), of_dictionary[0], dtype=np.int8)
    return of_dictionary.astype(np.int8).take(numbers(column.indices))


def _bad(rows: CodedRows, table: AssayTable) -> tuple[BoolVector, BoolVector]:
    """Rows that break each of ``LATE_RULES``; a row breaks at most one."""
    inside = rows.value >= table.smallest.take(rows.assay)
    inside &= rows.value <= table.largest.take(rows.assay)
    if not table.is_binary.any():
        return ~inside, np.zeros(len(inside), dtype=np.bool_)
    binary = table.is_binary[rows.assay]
    return ~binary & ~inside, binary & (np.abs(rows.value) != 1)


def _note_days(first_day: Days, dates: Any, compound: IntVector) -> None:
    """Note the earliest day of each compound."""
    if dates.null_count == len(dates):
        return
    plain = dates.cast(pa.string())
    # A day that no calendar has, such as 31 February, is no date; the contract looks at the pattern only.
    stamps = pc.strptime(plain, format="%Y-%m-%d", unit="s", error_is_null=True)
    np.minimum.at(first_day, compound, days_of(stamps.to_numpy(zero_copy_only=False).astype("datetime64[D]")))
