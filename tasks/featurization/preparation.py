"""Preparing a partner's data: three files in, contracted tables and a report out.

Why: everything later works on these tables; a row that is not in them is in the quarantine or in the report's
counts. Runs: on the partner. Source: own; the steps of MELLODDY-TUNER's ``prepare_4_training``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_contracts.catalogue import (
    ACTIVITIES,
    ASSAYS,
    CATALOGUE,
    ENDPOINTS,
    HASHED_FINGERPRINTS,
    LABELS,
    REGRESSION_ENDPOINTS,
    REGRESSION_VALUES,
    STRUCTURES,
)
from data_contracts.errors import ContractViolation, SettingsError
from data_contracts.reading import open_batches
from data_contracts.references import BlobReference
from data_contracts.violations import source_name
from data_contracts.writing import read_table, write_table
from tasks.exchange.durable_files import replace_whole
from tasks.featurization.activity_shards import ActivityShards
from tasks.featurization.assay_table import EMPTY_CATALOGUE, Catalogue, assay_table, catalogue_of
from tasks.featurization.data_report import data_report, render_page
from tasks.featurization.endpoints import EndpointTables, build_endpoints
from tasks.featurization.executors import Executor, Processes
from tasks.featurization.intake import Names, take_in
from tasks.featurization.leakage import leakage_report
from tasks.featurization.parents import UNUSABLE, Parents, Progress, find_parents
from tasks.featurization.preparation_rules import PreparationRules, rules_of
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
from tasks.featurization.reference_set import reference_digests
from tasks.featurization.setting_aside import accept, require_mostly_usable, set_aside
from tasks.featurization.structure_recipe import StructureRecipe
from tasks.featurization.time_split import split_by_time

__all__ = ["PartnerFiles", "PreparedDataset", "Progress", "prepare_dataset"]
SECRET_BYTES = 32
SORTING_DIRECTORY = "sorting"


def _silent(_done: int, _total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class _Work:
    """What a preparation needs at every step."""

    files: PartnerFiles
    scratch: Path
    cache: Path
    recipe: StructureRecipe
    rules: PreparationRules
    workers: int
    executor: Executor
    progress: Progress


def prepare_dataset(
    files: PartnerFiles,
    *,
    consortium_secret: bytes,
    output: Path,
    workers: int,
    rules: PreparationRules | None = None,
    executor: Executor | None = None,
    progress: Progress = _silent,
) -> PreparedDataset:
    """Prepare a partner's data; what is already prepared from the same files and rules is found again.

    Args:
        files: The partner's files.
        consortium_secret: 32 bytes that all partners share; keys folds, structure names and the cache.
        output: The prepared directory; it appears whole or not at all. Beside it lie ``.OUTPUT.cache`` with the
            structures featurized so far and, if a file is refused, its quarantine as ``OUTPUT-refused``.
        workers: Number of featurization processes, and of threads for activities.
        rules: The profile; by default ``simple``.
        executor: Where structures are featurized; by default on ``workers`` processes of this machine.
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
    rules = rules or rules_of("simple")
    identity = identity_of(files, rules, secret=consortium_secret)
    with alone_at(output):
        found = find_prepared(output, identity=identity)
        if found is not None:
            return found
        with scratch_for(output) as scratch:
            recipe = StructureRecipe(rules.structures, consortium_secret)
            cache = output.with_name(f".{output.name}.cache")
            place = executor or Processes(workers)
            tables, report = _prepare(_Work(files, scratch, cache, recipe, rules, workers, place, progress))
            manifest = Manifest(identity=identity, tables=tables)
            write_json(scratch / MANIFEST, manifest.model_dump(mode="json"))
            publish(scratch, output)
    return PreparedDataset(output, tables, report)


def _prepare(work: _Work) -> tuple[dict[str, BlobReference], dict[str, Any]]:
    """Fill the scratch directory, all but its manifest.

    Activities are looked at before structures are featurized: a file that is refused costs minutes, not hours.
    """
    quarantine = work.scratch / QUARANTINE_DIRECTORY
    sorting = work.scratch / SORTING_DIRECTORY
    sorting.mkdir()
    spool = sorting / "structures.arrow"
    structures = accept(work.files.structures, STRUCTURES, quarantine=quarantine, spool=spool)
    assays = accept(work.files.assays, ASSAYS, quarantine=quarantine)
    table = assay_table(assays.table, work.rules)
    names = Names(
        compounds=structures.table.column("compound_id"),
        assays=assays.table.column("assay_id").combine_chunks(),
    )
    shards = ActivityShards(sorting)
    activities = take_in(
        open_batches(work.files.activities, ACTIVITIES),
        names=names,
        table=table,
        shards=shards,
        quarantine=quarantine / f"{ACTIVITIES.name}.arrow",
        threads=work.workers,
    )
    parents = find_parents(
        structures.table.column("smiles"),
        recipe=work.recipe,
        cache=work.cache,
        executor=work.executor,
        progress=work.progress,
    )
    used = set_aside(structures, parents.reason_of_row, column="smiles", known_reasons=UNUSABLE)
    require_mostly_usable(used)
    del structures, names
    spool.unlink()  # their texts lay there
    fold = split_by_time(parents.fold, parents.of_row, activities.first_day, rule=work.rules.structures.folds)
    tables = build_endpoints(
        shards,
        table,
        parent=parents.of_row,
        fold=fold,
        rules=work.rules,
        scratch=sorting,
        catalogue=_catalogue(work, quarantine),
        threads=work.workers,
    )
    _require_endpoints(work, tables)
    reports = [used, assays.report, activities.without_structure(tables.lost_rows)]
    kept = np.flatnonzero(tables.used)
    references = _write(work, parents, tables, kept=kept, fold=fold)
    sorting.rmdir()
    report = data_report(reports, tables, n_parents=len(parents.key), n_prepared=len(kept), rules=work.rules)
    _report(work, report, tables)
    return references, report


def _report(work: _Work, report: dict[str, Any], tables: EndpointTables) -> None:
    """Complete the report, and write it with its page and the list of what is not trained."""
    report["leakage"] = leakage_report(read_table(work.scratch / "fingerprints.arrow", HASHED_FINGERPRINTS))
    report["recipe"] = work.recipe.parameters
    report["reference"] = reference_digests(work.recipe, work.rules)
    write_json(work.scratch / REPORT, report)
    write_json(work.scratch / EXCLUDED, tables.excluded)
    replace_whole(work.scratch / PAGE, [render_page(report, tables.excluded).encode()])


def _catalogue(work: _Work, quarantine: Path) -> Catalogue:
    if work.files.catalogue is None:
        return EMPTY_CATALOGUE
    return catalogue_of(accept(work.files.catalogue, CATALOGUE, quarantine=quarantine).table)


def _require_endpoints(work: _Work, tables: EndpointTables) -> None:
    if not tables.endpoints.num_rows and not tables.regression.endpoints().num_rows:
        raise ContractViolation(
            f"{source_name(work.files.activities)}: got no endpoint that meets the training quorum of profile "
            f"{work.rules.name} among {len(tables.excluded)}; expected at least one",
            advice="bring more measurements per assay, or agree on a smaller training quorum",
        )


def _write(
    work: _Work,
    parents: Parents,
    tables: EndpointTables,
    *,
    kept: npt.NDArray[np.int64],
    fold: npt.NDArray[np.int8],
) -> dict[str, BlobReference]:
    contents = (
        (HASHED_FINGERPRINTS, parents.batches(kept, fold=fold)),
        (ENDPOINTS, tables.endpoints),
        (LABELS, tables.label_batches()),
        (REGRESSION_ENDPOINTS, tables.regression.endpoints()),
        (REGRESSION_VALUES, tables.regression.value_batches(tables.structure_index, threads=work.workers)),
    )
    names = ("fingerprints", "endpoints", "labels", "regression_endpoints", "regression_values")
    return {
        name: write_table(work.scratch / f"{name}.arrow", contract, rows)
        for name, (contract, rows) in zip(names, contents, strict=True)
    }
