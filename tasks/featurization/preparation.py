"""Preparing a partner's data: three files in, three contracted tables and a report out.

Why: everything later works on these tables; a row that is not in them is in the quarantine or in the report's
counts. Runs: on the partner. Source: own; the steps of MELLODDY-TUNER's ``prepare_4_training``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.catalogue import ACTIVITIES, ASSAYS, ENDPOINTS, HASHED_FINGERPRINTS, LABELS, STRUCTURES
from data_contracts.errors import ContractViolation, SettingsError
from data_contracts.references import BlobReference
from data_contracts.violations import source_name
from data_contracts.writing import write_table
from tasks.exchange.durable_files import replace_whole
from tasks.featurization.data_report import data_report, render_page
from tasks.featurization.endpoints import EndpointRules, EndpointTables, build_endpoints
from tasks.featurization.parents import NO_PARENT, UNUSABLE, Parents, Progress, find_parents
from tasks.featurization.prepared import (
    EXCLUDED,
    MANIFEST,
    PAGE,
    QUARANTINE_DIRECTORY,
    REPORT,
    Manifest,
    PartnerFiles,
    PreparedDataset,
    alone_at,
    find_prepared,
    identity_of,
    publish,
    scratch_for,
    write_json,
)
from tasks.featurization.setting_aside import Accepted, accept, require_mostly_usable, set_aside

__all__ = ["PartnerFiles", "PreparedDataset", "Progress", "prepare_dataset"]
SECRET_BYTES = 32
UNKNOWN_STRUCTURE = "unknown structure"


def _silent(_done: int, _total: int) -> None:
    """Report nothing."""


def prepare_dataset(
    files: PartnerFiles,
    *,
    consortium_secret: bytes,
    output: Path,
    workers: int,
    rules: EndpointRules | None = None,
    progress: Progress = _silent,
) -> PreparedDataset:
    """Prepare a partner's data; what is already prepared from the same files and rules is found again.

    Args:
        files: The partner's three files.
        consortium_secret: 32 bytes that all partners share; keys folds and structure names.
        output: The prepared directory; it appears whole or not at all. If a file is refused, its quarantine lies
            beside it as ``OUTPUT-refused``.
        workers: Number of featurization processes.
        rules: Thresholds and quorums.
        progress: Called with the number of distinct structures done and their total.

    Returns:
        The prepared dataset.

    Raises:
        ContractViolation: If a file is refused, or nothing is left to learn from.
        SettingsError: If the secret is not 32 bytes, or there is no worker.
        WorkFailed: If the featurization processes cannot work.
    """
    if len(consortium_secret) != SECRET_BYTES:
        raise SettingsError(
            f"the consortium secret has {len(consortium_secret)} bytes, expected {SECRET_BYTES}"
        )
    if workers < 1:
        raise SettingsError(f"got {workers} featurization workers, expected at least 1")
    rules = rules or EndpointRules()
    identity = identity_of(files, rules, secret=consortium_secret)
    with alone_at(output):
        found = find_prepared(output, identity=identity)
        if found is not None:
            return found
        with scratch_for(output) as scratch:
            tables, report = _prepare(
                files, scratch, secret=consortium_secret, workers=workers, rules=rules, progress=progress
            )
            manifest = Manifest(identity=identity, tables=tables)
            write_json(scratch / MANIFEST, manifest.model_dump(mode="json"))
            publish(scratch, output)
    return PreparedDataset(output, tables, report)


def _prepare(
    files: PartnerFiles,
    scratch: Path,
    *,
    secret: bytes,
    workers: int,
    rules: EndpointRules,
    progress: Progress,
) -> tuple[dict[str, BlobReference], dict[str, Any]]:
    """Fill the scratch directory, all but its manifest."""
    quarantine = scratch / QUARANTINE_DIRECTORY
    structures = accept(files.structures, STRUCTURES, quarantine=quarantine)
    assays = accept(files.assays, ASSAYS, quarantine=quarantine)
    compounds = structures.table.column("compound_id").combine_chunks()
    known = {"compound_id": compounds, "assay_id": assays.table.column("assay_id").combine_chunks()}
    activities = accept(files.activities, ACTIVITIES, quarantine=quarantine, known_keys=known)

    parents = find_parents(
        structures.table.column("smiles"), secret=secret, workers=workers, progress=progress
    )
    structures = set_aside(structures, parents.reason_of_row, column="smiles", known_reasons=UNUSABLE)
    require_mostly_usable(structures)
    activities, parent = _of_parents(activities, parents, compounds=compounds)
    kept, structure = np.unique(parent, return_inverse=True)  # only structures with a measurement
    tables = build_endpoints(
        assays.table, activities.table, structure=structure, fold=parents.fold[kept], rules=rules
    )
    if not tables.endpoints.num_rows:
        raise ContractViolation(
            f"{source_name(files.activities)}: got no endpoint with {rules.training_quorum} actives and as many "
            f"inactives among {len(tables.excluded)}; expected at least one",
            advice="bring more measurements per assay, or agree on a smaller training quorum",
        )
    report = data_report(
        [structures.report, assays.report, activities.report],
        tables,
        n_parents=len(parents.key),
        n_prepared=len(kept),
    )
    references = _write(scratch, parents, tables, kept=kept)
    write_json(scratch / REPORT, report)
    write_json(scratch / EXCLUDED, tables.excluded)
    replace_whole(scratch / PAGE, [render_page(report, tables.excluded).encode()])
    return references, report


def _of_parents(
    activities: Accepted, parents: Parents, *, compounds: Any
) -> tuple[Accepted, npt.NDArray[np.int64]]:
    """Set aside the activities of structures without a parent; the others come with their parent."""
    row = pc.index_in(activities.table.column("compound_id"), value_set=compounds)
    parent = parents.of_row[row.to_numpy()]
    lost = pa.array(parent == NO_PARENT)
    reasons = pc.if_else(lost, UNKNOWN_STRUCTURE, pa.scalar(None, pa.string()))
    left = set_aside(activities, reasons, column="compound_id", known_reasons=[UNKNOWN_STRUCTURE])
    return left, parent[parent != NO_PARENT]


def _write(
    scratch: Path, parents: Parents, tables: EndpointTables, *, kept: npt.NDArray[np.int64]
) -> dict[str, BlobReference]:
    fingerprints = pa.table(
        {
            "structure_index": np.arange(len(kept), dtype=np.int32),
            "structure_key": pa.array(parents.key[kept], pa.string()),
            "fold": parents.fold[kept],
            "bits": parents.bits.take(pa.array(kept)),
        }
    ).cast(HASHED_FINGERPRINTS.schema)
    contents: Mapping[str, Any] = {
        "fingerprints": (HASHED_FINGERPRINTS, fingerprints),
        "endpoints": (ENDPOINTS, tables.endpoints),
        "labels": (LABELS, tables.labels),
    }
    return {
        name: write_table(scratch / f"{name}.arrow", contract, table)
        for name, (contract, table) in contents.items()
    }
