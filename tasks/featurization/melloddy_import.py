"""Files that were prepared for MELLODDY: T0, T1, T2 and T_cat by their original headers.

Why: a partner must not prepare its data twice. Runs: on the partner. Source: MELLODDY-TUNER 3 for the meaning of
every column (read in its code). T1 has no units: dose responses are on the p-scale, ADME and auxiliary assays on
their own; the catalogue's thresholds stand in its first row and hold for all of its assays.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.catalogue import ACTIVITIES, ASSAYS, CATALOGUE, STRUCTURES, THRESHOLDS
from data_contracts.imported_tables import (
    EXPERT_THRESHOLDS,
    MELLODDY_T0,
    MELLODDY_T1,
    MELLODDY_T2,
    MELLODDY_T_CAT,
    QUALIFIERS,
)
from data_contracts.reading import open_batches
from data_contracts.validation import validate_batches
from data_contracts.violations import refusal
from tasks.featurization.importing import Imported, Mask, import_table, plain_text
from tasks.featurization.key_positions import UNKNOWN, KeyPositions

TYPES = {"NON-CATALOG-PANEL": "PANEL", "CATALOG-PANEL": "CATALOG_PANEL"}
OWN_SCALE = ("ADME", "AUX_HTS", "AUX_PL")
AUXILIARY = ("AUX_HTS", "AUX_PL")
MISPLACED, NO_ASSAY = "catalogue id of another assay type", "unknown assay"
MAGIC_AUXILIARY = 4.53  # the published code knows the catalogue's auxiliary threshold by this number


def import_melloddy(
    *, t0: Path, t1: Path, t2: Path, t_cat: Path | None, directory: Path
) -> Mapping[str, Imported]:
    """Import a partner's files.

    Args:
        t0: Assays.
        t1: Activities.
        t2: Structures.
        t_cat: The consortium's catalogue.
        directory: Gets ``assays.parquet``, ``activities.parquet``, ``structures.parquet``, ``catalogue.parquet`` and
            ``quarantine/``.

    Returns:
        Each imported table by its name.

    Raises:
        ContractViolation: If a file is refused.
    """
    imported = {
        "assays": import_table(
            t0,
            MELLODDY_T0,
            ASSAYS,
            directory=directory,
            convert=_assays,
            late_rules=((MISPLACED, "catalog_assay_id"),),
        ),
        "structures": import_table(t2, MELLODDY_T2, STRUCTURES, directory=directory, convert=_structures),
    }
    units = _Units(imported["assays"].path)
    imported["activities"] = import_table(
        t1,
        MELLODDY_T1,
        ACTIVITIES,
        directory=directory,
        convert=units.activities,
        late_rules=((NO_ASSAY, "input_assay_id"),),
    )
    if t_cat is not None:
        imported["catalogue"] = _catalogue(t_cat, directory)
    return imported


def _assays(batch: Any) -> tuple[dict[str, Any], list[Mask]]:
    kinds = batch.column("assay_type").to_pylist()
    directions = batch.column("direction").to_pylist()
    columns = {
        "assay_id": batch.column("input_assay_id"),
        "assay_type": plain_text([TYPES.get(kind, kind) for kind in kinds]),
        # As published: an empty direction of a screen means the magnitude, of all others high.
        "direction": plain_text(
            [d or ("both" if k in AUXILIARY else "high") for k, d in zip(kinds, directions, strict=True)]
        ),
        **{ours: batch.column(theirs) for ours, theirs in zip(THRESHOLDS, EXPERT_THRESHOLDS, strict=True)},
        "is_binary": batch.column("is_binary"),
        "use_in_regression": batch.column("use_in_regression"),
        "catalogue_assay_id": _numbers_as_names(batch.column("catalog_assay_id")),
    }
    has_id = batch.column("catalog_assay_id").is_valid().to_numpy(zero_copy_only=False)
    return columns, [has_id & (np.array(kinds, dtype=object) != "CATALOG-PANEL")]


def _structures(batch: Any) -> tuple[dict[str, Any], list[Mask]]:
    return {"compound_id": batch.column("input_compound_id"), "smiles": batch.column("smiles")}, []


class _Units:
    """Knows on which scale each assay's values are."""

    def __init__(self, assays: Path) -> None:
        table = pq.read_table(assays, columns=["assay_id", "assay_type"])
        self._positions = KeyPositions(table.column("assay_id").combine_chunks())
        own = pc.is_in(table.column("assay_type"), value_set=pa.array(OWN_SCALE))
        self._own = np.append(own.to_numpy(zero_copy_only=False), False)  # the last one is for unknown assays

    def activities(self, batch: Any) -> tuple[dict[str, Any], list[Mask]]:
        """Convert a batch of T1; assays that T0 does not have are left out."""
        position = self._positions.of(batch.column("input_assay_id"))
        columns = {
            "compound_id": batch.column("input_compound_id"),
            "assay_id": batch.column("input_assay_id"),
            "relation": relations(batch.column("standard_qualifier")),
            "value": batch.column("standard_value"),
            "unit": pc.if_else(pa.array(self._own[position]), "own", "p"),
        }
        return columns, [position == UNKNOWN]


def relations(qualifiers: Any) -> Any:
    """Map qualifiers as they are written, ``<= << ~`` and nothing among them, to ``<``, ``=`` and ``>``."""
    written = pa.array(list(QUALIFIERS))
    place = pc.index_in(pc.fill_null(qualifiers, "="), value_set=written)
    return pa.array(list(QUALIFIERS.values())).take(place)


def _numbers_as_names(column: Any) -> Any:
    """Write numbers as names: the tool's files hold 12.0 for the catalogue assay 12."""
    return plain_text(
        [None if value is None else repr(float(value)).removesuffix(".0") for value in column.to_pylist()]
    )


def _catalogue(t_cat: Path, directory: Path) -> Imported:
    """Give every catalogue assay the thresholds of the first row, and the endpoints that its own rows name."""
    quarantine = directory / "quarantine" / "catalogue.arrow"
    validation = validate_batches(
        open_batches(t_cat, MELLODDY_T_CAT, others="passed over"), MELLODDY_T_CAT, quarantine_path=quarantine
    )
    table = pa.Table.from_batches(list(validation), schema=MELLODDY_T_CAT.schema)
    first = table.slice(0, 1).to_pylist()[0]
    shared = [first[name] for name in EXPERT_THRESHOLDS if first[name] is not None]
    if not shared:
        raise refusal(
            validation.report.source,
            got="a first row without thresholds",
            expected="expert_threshold_1 to _5 there",
        )
    endpoint = {
        (assay, threshold): task
        for assay, threshold, task in zip(
            _numbers_as_names(table.column("catalog_assay_id")).to_pylist(),
            table.column("threshold").to_pylist(),
            _numbers_as_names(table.column("catalog_task_id")).to_pylist(),
            strict=True,
        )
    }
    rows = [(a, t) for a in dict.fromkeys(assay for assay, _ in endpoint) for t in shared]
    columns = {
        "catalogue_assay_id": plain_text([assay for assay, _ in rows]),
        "catalogue_endpoint_id": plain_text([endpoint.get(row) for row in rows]),
        "threshold": [threshold for _, threshold in rows],
        "threshold_method": [
            "aux_low" if threshold == MAGIC_AUXILIARY else "expert" for _, threshold in rows
        ],
    }
    path = directory / f"{CATALOGUE.name}.parquet"
    pq.write_table(pa.table(columns).cast(CATALOGUE.schema), path)
    return Imported(path, validation.report)
