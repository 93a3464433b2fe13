"""Preparing a partner's data: three files in, three contracted tables and a report out.

Why: everything later works on these tables; a row that is not in them is in the quarantine or in the report's
counts. Runs: on the partner. Source: own; the steps of MELLODDY-TUNER's ``prepare_4_training``.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.catalogue import ACTIVITIES, ASSAYS, ENDPOINTS, HASHED_FINGERPRINTS, LABELS, STRUCTURES
from data_contracts.contract import Contract
from data_contracts.errors import ContractViolation
from data_contracts.quarantine import QUARANTINE
from data_contracts.reading import open_batches
from data_contracts.report import ValidationReport
from data_contracts.validation import validate_batches
from data_contracts.writing import read_table, write_table
from tasks.exchange.durable_files import replace_whole
from tasks.featurization.data_report import render_report
from tasks.featurization.endpoints import EndpointRules, EndpointTables, build_endpoints
from tasks.featurization.fingerprints import FINGERPRINT
from tasks.featurization.folds import fold_of_scaffold, structure_key
from tasks.featurization.standardization import PROFILE
from tasks.featurization.worker_pool import WorkerPool

CHUNK_MOLECULES = 500
VERSION = "1"
Progress = Callable[[int, int], None]


def _silent(_done: int, _total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class PartnerFiles:
    """What a partner brings: Parquet, Arrow IPC or CSV."""

    assays: Path
    activities: Path
    structures: Path


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset.

    Attributes:
        directory: Holds ``fingerprints.arrow``, ``endpoints.arrow``, ``labels.arrow``, ``data_report.json``,
            ``data_report.html`` and ``quarantine/``.
        report: Content of ``data_report.json``.
    """

    directory: Path
    report: dict[str, Any]


@dataclass(frozen=True)
class _Featurized:
    """Distinct parents, and where each structure row went."""

    keys: list[str]
    fold: npt.NDArray[np.int8]
    bits: Any
    parent_of_row: npt.NDArray[np.int64]
    reason_of_row: list[str | None]


def prepare_dataset(
    files: PartnerFiles,
    *,
    consortium_secret: bytes,
    output: Path,
    workers: int,
    rules: EndpointRules | None = None,
    progress: Progress = _silent,
) -> Prepared:
    """Prepare a partner's data; what is already prepared from the same files and rules is found again.

    Args:
        files: The partner's three files.
        consortium_secret: 32 bytes that all partners share; keys folds and structure names.
        output: The prepared directory; it appears whole or not at all.
        workers: Number of featurization processes.
        rules: Thresholds and quorums.
        progress: Called with the number of structures done and their total.

    Raises:
        ContractViolation: If a file is refused, or nothing is left to learn from.
        WorkFailed: If the featurization processes cannot work.
    """
    rules = rules or EndpointRules()
    identity = _identity(files, rules, secret=consortium_secret)
    found = _found(output, identity)
    if found is not None:
        return found
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}-"))
    try:
        report = _prepare(
            files, scratch, secret=consortium_secret, workers=workers, rules=rules, progress=progress
        )
        report["identity"] = identity
        replace_whole(scratch / "data_report.html", [render_report(report).encode()])
        replace_whole(scratch / "data_report.json", [json.dumps(report, indent=1, sort_keys=True).encode()])
        if output.exists():
            shutil.rmtree(output)  # of other files or rules; nothing of it is used again
        os.replace(scratch, output)  # noqa: PTH105 - the directory appears in one step
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Prepared(output, report)


def _identity(files: PartnerFiles, rules: EndpointRules, *, secret: bytes) -> str:
    """Keyed name of inputs and rules; stays in the prepared directory."""
    digest = hashlib.blake2b(key=secret, digest_size=32)
    digest.update(json.dumps([VERSION, PROFILE, FINGERPRINT, rules.model_dump()]).encode())
    for path in (files.assays, files.activities, files.structures):
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as exc:
            raise ContractViolation(f"'{path.name}' cannot be read: {exc.strerror}") from None
    return digest.hexdigest()


def _found(output: Path, identity: str) -> Prepared | None:
    try:
        report = json.loads((output / "data_report.json").read_bytes())
    except (OSError, ValueError):
        return None
    return Prepared(output, report) if report.get("identity") == identity else None


def _prepare(
    files: PartnerFiles,
    output: Path,
    *,
    secret: bytes,
    workers: int,
    rules: EndpointRules,
    progress: Progress,
) -> dict[str, Any]:
    quarantine = output / "quarantine"
    quarantine.mkdir()
    structures, structure_report = _accepted(files.structures, STRUCTURES, quarantine)
    assays, assay_report = _accepted(files.assays, ASSAYS, quarantine)
    keys = {"compound_id": structures.column("compound_id"), "assay_id": assays.column("assay_id")}
    activities, activity_report = _accepted(files.activities, ACTIVITIES, quarantine, known_keys=keys)

    featurized = _featurize(structures.column("smiles"), secret=secret, workers=workers, progress=progress)
    _quarantine_structures(quarantine, featurized.reason_of_row)
    row = pc.index_in(activities.column("compound_id"), value_set=keys["compound_id"].combine_chunks())
    parent = featurized.parent_of_row[row.to_numpy()]
    kept, structure = np.unique(
        parent[parent >= 0], return_inverse=True
    )  # only structures with a measurement
    fold = featurized.fold[kept]
    tables = build_endpoints(
        assays, activities.filter(pa.array(parent >= 0)), structure=structure, fold=fold, rules=rules
    )
    if not tables.endpoints.num_rows:
        raise ContractViolation(
            f"'{files.activities.name}' gives no endpoint with {rules.training_quorum} actives and as many inactives",
            advice="bring more measurements per assay, or agree on a smaller training quorum",
        )
    _write(output, featurized, tables, kept=kept, fold=fold)
    return {
        "files": [r.for_partner() for r in (structure_report, assay_report, activity_report)],
        "for_consortium": [r.for_consortium() for r in (structure_report, assay_report, activity_report)],
        "structures": {
            "accepted": structures.num_rows,
            "refused": _counts(featurized.reason_of_row),
            "distinct_parents": len(featurized.keys),
            "without_activity": len(featurized.keys) - len(kept),
            "prepared": len(kept),
        },
        "activities": {
            "accepted": activities.num_rows,
            "of_refused_structures": int((parent < 0).sum()),
            "contradictory_pairs": tables.n_contradictory,
        },
        "endpoints": {
            "prepared": tables.endpoints.num_rows,
            "in_evaluation": int(pc.sum(tables.endpoints.column("in_evaluation")).as_py() or 0),
            "excluded": tables.excluded,
        },
        "labels": tables.labels.num_rows,
    }


def _accepted(
    path: Path, contract: Contract, quarantine: Path, *, known_keys: dict[str, Any] | None = None
) -> tuple[Any, ValidationReport]:
    """Validate one file; bad rows go to the quarantine."""
    validation = validate_batches(
        open_batches(path, contract),
        contract,
        quarantine_path=quarantine / f"{contract.name}.arrow",
        known_keys=known_keys,
    )
    batches = list(validation)
    return pa.Table.from_batches(batches, schema=contract.schema), validation.report


def _featurize(smiles: Any, *, secret: bytes, workers: int, progress: Progress) -> _Featurized:
    """Featurize each distinct SMILES once, and merge those with one parent."""
    encoded = smiles.combine_chunks().dictionary_encode()
    distinct = encoded.dictionary
    chunks = (distinct.slice(start, CHUNK_MOLECULES) for start in range(0, len(distinct), CHUNK_MOLECULES))
    answers = []
    with WorkerPool(workers) as pool:
        for done, answer in _counted(pool.map(chunks)):
            answers.append(answer)
            progress(done, len(distinct))
    table = pa.Table.from_batches(answers).combine_chunks()
    sound = np.flatnonzero(pc.is_null(table.column("reason")).to_numpy())
    good = table.take(pa.array(sound)).combine_chunks()
    parents = good.column("parent").combine_chunks().dictionary_encode()
    places, first = np.unique(parents.indices.to_numpy(), return_index=True)
    keys = np.array(
        [structure_key(text, secret=secret) for text in parents.dictionary.to_pylist()], dtype=object
    )
    order = np.argsort(keys[places])  # by keyed name: the order tells nothing about the source
    folds = _folds(good.column("scaffold").combine_chunks(), secret=secret)
    rank = np.empty(len(places), dtype=np.int64)
    rank[order] = np.arange(len(places))
    parent_of_distinct = np.full(len(distinct), -1, dtype=np.int64)
    parent_of_distinct[sound] = rank[parents.indices.to_numpy()]
    row = encoded.indices.to_numpy()
    reasons = np.array(table.column("reason").to_pylist(), dtype=object)
    return _Featurized(
        keys=list(keys[places][order]),
        fold=folds[first][order],
        bits=good.column("bits").combine_chunks().take(pa.array(first[order])),
        parent_of_row=parent_of_distinct[row],
        reason_of_row=list(reasons[row]),
    )


def _counted(answers: Iterator[Any]) -> Iterator[tuple[int, Any]]:
    done = 0
    for answer in answers:
        done += answer.num_rows
        yield done, answer


def _folds(scaffolds: Any, *, secret: bytes) -> npt.NDArray[np.int8]:
    encoded = scaffolds.dictionary_encode()
    folds = [fold_of_scaffold(text, secret=secret) for text in encoded.dictionary.to_pylist()]
    found: npt.NDArray[np.int8] = np.array(folds, dtype=np.int8)[encoded.indices.to_numpy()]
    return found


def _quarantine_structures(quarantine: Path, reasons: list[str | None]) -> None:
    """Write down the rows whose structure has no parent, by their ordinal in the source."""
    refused = read_table(quarantine / "structures.arrow", QUARANTINE).column("row").to_numpy()
    ordinals = np.setdiff1d(np.arange(len(reasons) + len(np.unique(refused))), refused)
    rows = [(int(ordinals[place]), reason) for place, reason in enumerate(reasons) if reason is not None]
    table = pa.table(
        {
            "row": pa.array([row for row, _ in rows], pa.int64()),
            "column": pa.array(["smiles"] * len(rows), pa.string()),
            "rule": pa.array([reason for _, reason in rows], pa.string()),
        }
    )
    write_table(quarantine / "unusable_structures.arrow", QUARANTINE, table)


def _counts(reasons: list[str | None]) -> dict[str, int]:
    names, counts = np.unique([reason for reason in reasons if reason is not None], return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _write(
    output: Path,
    featurized: _Featurized,
    tables: EndpointTables,
    *,
    kept: npt.NDArray[np.int64],
    fold: npt.NDArray[np.int8],
) -> None:
    fingerprints = pa.table(
        {
            "structure_index": np.arange(len(kept), dtype=np.int32),
            "structure_key": pa.array([featurized.keys[place] for place in kept], pa.string()),
            "fold": fold,
            "bits": featurized.bits.take(pa.array(kept)),
        }
    ).cast(HASHED_FINGERPRINTS.schema)
    write_table(output / "fingerprints.arrow", HASHED_FINGERPRINTS, fingerprints)
    write_table(output / "endpoints.arrow", ENDPOINTS, tables.endpoints)
    write_table(output / "labels.arrow", LABELS, tables.labels)
