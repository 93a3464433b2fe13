"""Long extracts of a warehouse: one measurement a row, in whatever units, of whatever quantity.

Why: an IC50 and an inhibition are two quantities and never one column; a percentage is no concentration, and a unit
that was mistaken by a thousand shows in the medians. Runs: on the partner. Source: own; relations flip later, where
concentrations become p values (``measurements.on_p_scale``).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.catalogue import ACTIVITIES, ASSAYS, MOLAR_UNITS, STRUCTURES
from data_contracts.imported_tables import LONG
from data_contracts.vocabulary import LARGEST_CONCENTRATION, SMALLEST_CONCENTRATION
from tasks.exchange.durable_files import replace_whole
from tasks.featurization.importing import Imported, Mask, import_table, plain_text
from tasks.featurization.measurements import P_OF_ONE
from tasks.featurization.melloddy_import import relations

CONCENTRATIONS = frozenset(["ic50", "ec50", "ac50", "xc50", "gi50", "cc50", "dc50", "ki", "kd", "kb", "ed50"])
P_VALUES = frozenset({"pchembl", *(f"p{name}" for name in CONCENTRATIONS)})
UNIT_NAMES = {
    "mol/l": "M", "molar": "M", "mmol/l": "mM", "um": "uM", "µm": "uM", "μm": "uM", "umol/l": "uM", "µmol/l": "uM",
    "μmol/l": "uM", "nm": "nM", "nmol/l": "nM", "pm": "pM", "pmol/l": "pM",
}  # fmt: skip
CASED = {"M": "M", "mM": "mM"}  # m, mm and MM could mean anything
PERCENT = frozenset({"%", "percent", "pct"})
NO_UNIT = frozenset({"", "p", "log", "-log10(m)", "1"})
REASONS = (
    PERCENT_IS_NO_CONCENTRATION,
    UNKNOWN_UNIT,
    UNIT_OF_P_VALUE,
    IMPOSSIBLE,
) = ("percent is no concentration", "unknown unit", "unit of a p value", "no possible concentration")
OWN_SCALE, ON_P_SCALE = "own", "p"
THOUSAND_DECADES = 3.0
TOLERANCE_DECADES = 0.5
FEWEST_VALUES = 5
Kind = tuple[str | None, str | None]  # unit of ours, or why there is none


def unit_of(measurement_type: str, unit: str | None) -> Kind:
    """Decide on which scale a measurement is.

    Args:
        measurement_type: As written, such as ``IC50``.
        unit: As written, or None.

    Returns:
        A unit of the contract ``activities``, or one of ``REASONS``.
    """
    kind, written = measurement_type.strip().lower(), (unit or "").strip()
    if kind in P_VALUES:
        return (ON_P_SCALE, None) if written.lower() in NO_UNIT else (None, UNIT_OF_P_VALUE)
    if kind not in CONCENTRATIONS:
        return OWN_SCALE, None
    if written.lower() in PERCENT:
        return None, PERCENT_IS_NO_CONCENTRATION
    ours = CASED.get(written) or UNIT_NAMES.get(written.lower())
    return (ours, None) if ours else (None, UNKNOWN_UNIT)


@dataclass
class _Medians:
    """Values by assay and unit on the p-scale, kept as histograms of tenths: memory does not grow with the rows."""

    counts: dict[tuple[str, str], Any] = field(default_factory=dict)

    def add(self, assay: Any, unit: Any, value: Any) -> None:
        """Count the concentrations of a batch."""
        for name in pc.unique(unit).to_pylist():
            if name not in MOLAR_UNITS:
                continue
            rows = pc.equal(unit, name)
            encoded = assay.filter(rows).dictionary_encode()
            p = P_OF_ONE[name] - np.log10(value.filter(rows).to_numpy())
            place = np.clip(np.round(p * 10).astype(int), -200, 399) + 200
            for code, text in enumerate(encoded.dictionary.to_pylist()):
                found = np.bincount(place[encoded.indices.to_numpy() == code], minlength=600)
                self.counts[text, name] = self.counts.get((text, name), 0) + found

    def suspicious(self) -> list[dict[str, Any]]:
        """List assays of which one unit's median lies about three or six decades from another's."""
        medians: dict[str, dict[str, float]] = {}
        for (assay, unit), counts in self.counts.items():
            total = int(counts.sum())
            if total >= FEWEST_VALUES:
                middle = int(np.searchsorted(np.cumsum(counts), (total + 1) // 2))
                medians.setdefault(assay, {})[unit] = (middle - 200) / 10
        found = []
        for assay, by_unit in sorted(medians.items()):
            low, high = min(by_unit, key=by_unit.__getitem__), max(by_unit, key=by_unit.__getitem__)
            apart = by_unit[high] - by_unit[low]
            decades = round(apart / THOUSAND_DECADES) * THOUSAND_DECADES
            if decades and abs(apart - decades) <= TOLERANCE_DECADES:
                found.append(
                    {"assay": assay, "units": [low, high], "medians_differ_by_decades": round(apart, 1)}
                )
        return found


@dataclass(frozen=True)
class LongImport:
    """What a long import gave.

    Attributes:
        tables: Each imported table by its name.
        suspicious: Assays whose units look mistaken; also in ``unit_warnings.json``.
    """

    tables: Mapping[str, Imported]
    suspicious: list[dict[str, Any]]


def import_long(activities: Path, *, structures: Path, directory: Path) -> LongImport:
    """Import a long extract and its structures.

    Every assay becomes one for each quantity that it measured, ``ASSAY/IC50``: concentrations and p values are dose
    responses (OTHER), everything else is an auxiliary screen of its own scale.

    Args:
        activities: Contract ``long``.
        structures: Contract ``structures``.
        directory: Gets the three tables, ``quarantine/`` and ``unit_warnings.json``.

    Raises:
        ContractViolation: If a file is refused.
    """
    medians = _Medians()
    kinds: dict[str, str] = {}

    def convert(batch: Any) -> tuple[dict[str, Any], list[Mask]]:
        columns, reasons = _converted(batch)
        good = pc.is_null(reasons)
        good_names, good_units = (columns[n].filter(good).to_pylist() for n in ("assay_id", "unit"))
        kinds.update(zip(good_names, good_units, strict=True))
        medians.add(*(columns[name].filter(good) for name in ("assay_id", "unit", "value")))
        code = pc.fill_null(pc.index_in(reasons, value_set=pa.array(REASONS)), -1).to_numpy()
        return columns, [code == place for place in range(len(REASONS))]

    tables = {
        "structures": import_table(
            structures,
            STRUCTURES,
            STRUCTURES,
            directory=directory,
            convert=lambda batch: ({name: batch.column(name) for name in STRUCTURES.schema.names}, []),
        ),
        "activities": import_table(
            activities,
            LONG,
            ACTIVITIES,
            directory=directory,
            convert=convert,
            late_rules=tuple((reason, "unit") for reason in REASONS),
        ),
    }
    tables["assays"] = Imported(_write_assays(kinds, directory), tables["activities"].report)
    suspicious = medians.suspicious()
    replace_whole(directory / "unit_warnings.json", [_json(suspicious)])
    return LongImport(tables, suspicious)


def _converted(batch: Any) -> tuple[dict[str, Any], Any]:
    """Convert a batch; where a reason stands, the unit is a stand-in that nobody reads."""
    kind, unit = batch.column("measurement_type"), pc.fill_null(batch.column("unit"), "")
    both = pc.binary_join_element_wise(kind, unit, "\x1f").dictionary_encode()
    decided = [unit_of(*text.split("\x1f", 1)) for text in both.dictionary.to_pylist()]
    ours = plain_text([found for found, _ in decided]).take(both.indices)
    reasons = plain_text([reason for _, reason in decided]).take(both.indices)
    molar = pc.fill_null(pc.is_in(ours, value_set=pa.array(MOLAR_UNITS)), False)
    value = batch.column("value")
    outside = pc.or_(pc.less(value, SMALLEST_CONCENTRATION), pc.greater(value, LARGEST_CONCENTRATION))
    impossible = pc.and_(molar, outside)
    reasons = pc.if_else(impossible, IMPOSSIBLE, reasons)
    columns = {
        "compound_id": batch.column("compound_id"),
        "assay_id": pc.binary_join_element_wise(batch.column("assay_id"), pc.utf8_trim_whitespace(kind), "/"),
        "relation": relations(batch.column("relation")),
        "value": batch.column("value"),
        "unit": pc.fill_null(ours, OWN_SCALE),
        "measured_on": batch.column("measured_on"),
    }
    return columns, reasons


def _write_assays(kinds: Mapping[str, str], directory: Path) -> Path:
    names = sorted(kinds)
    table = pa.table(
        {
            "assay_id": plain_text(names),
            "assay_type": plain_text(["AUX_HTS" if kinds[name] == OWN_SCALE else "OTHER" for name in names]),
            "direction": plain_text(["both" if kinds[name] == OWN_SCALE else "high" for name in names]),
        }
    )
    path = directory / f"{ASSAYS.name}.parquet"
    pq.write_table(table, path)
    return path


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()
