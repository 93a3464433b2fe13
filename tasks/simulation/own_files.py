"""A user's own files, split into simulated companies.

Why: what federation would bring is tried on data at hand, alone, before any partner is asked.
Runs: anywhere, on one machine. Source: own. The measurements are the user's; the companies are simulated.
"""

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.canonical_json import canonical_bytes
from data_contracts.catalogue import ACTIVITIES, ASSAYS, STRUCTURES, THRESHOLDS
from data_contracts.contract import Contract
from data_contracts.reading import open_batches
from data_contracts.validation import validate_batches
from tasks.exchange.identity import secret_file
from tasks.simulation.companies import SourceTables, split_among
from tasks.simulation.datasets import (
    DIGEST_CHARACTERS,
    DatasetCard,
    Draft,
    SimulatedDataset,
    counted,
    find_or_build,
    split_draft,
)
from tasks.simulation.structure_groups import group_structures

RECIPE_VERSION = 2
RECIPE_KEY = ".recipe_key"
LICENCE_NOTE = "your own activities and structures; nothing is known about their terms"


def import_own_files(
    *,
    activities: Path,
    structures: Path,
    assays: Path | None,
    directory: Path,
    partners: int = 4,
    seed: int = 0,
) -> SimulatedDataset:
    """Validate a user's files and split them into simulated companies.

    Bad rows are set aside under ``<dataset>/quarantine`` and counted on the card; so are activities whose
    compound or assay is in no accepted row.

    Args:
        activities: Parquet, Arrow IPC or CSV of the contract ``activities``.
        structures: The same of ``structures``.
        assays: The same of ``assays``; without it every assay has the type OTHER, the direction high and the
            default thresholds.
        directory: Where datasets lie.
        partners: Number of simulated companies.
        seed: Public seed of the split.

    Returns:
        The dataset, found again if the same files were split before.

    Raises:
        ContractViolation: If a file is refused.
        SettingsError: If the files are too small for so many companies.
    """
    split = split_among(partners)
    files = {"activities": activities, "structures": structures} | ({"assays": assays} if assays else {})
    digest = _recipe(
        files, {"split": split.model_dump(mode="json"), "seed": seed}, key_file=directory / RECIPE_KEY
    )
    name = f"own-files-{partners}-{digest[:DIGEST_CHARACTERS]}"

    def build(unfinished: Path) -> Draft:
        source, left_out = accepted_tables(files, quarantine=unfinished / "quarantine")
        return split_draft(source, split=split, seed=seed, left_out=left_out)

    def card(draft: Draft) -> DatasetCard:
        return DatasetCard(
            name=name,
            origin="own files",
            simulated_assays=False,
            seed=seed,
            partners=tuple(company.name for company in draft.companies),
            counts=counted(draft.companies),
            licence_note=LICENCE_NOTE,
            recipe_digest=digest,
            left_out=dict(draft.left_out),
        )

    return find_or_build(directory, name=name, card=card, recipe_digest=digest, build=build)


def _recipe(files: Mapping[str, Path], settings: dict[str, Any], *, key_file: Path) -> str:
    """Digest of the private files and the settings, keyed: a plain one would confirm a guess of the content."""
    contents = {}
    for name, path in files.items():
        if path.is_file():  # otherwise reading refuses it, in its own words
            with path.open("rb") as file:
                contents[name] = hashlib.file_digest(file, "sha256").hexdigest()
    recipe = {"recipe": RECIPE_VERSION, "contents": contents, "settings": settings}
    return hmac.new(secret_file(key_file), canonical_bytes(recipe), hashlib.sha256).hexdigest()


def accepted_tables(files: Mapping[str, Path], *, quarantine: Path) -> tuple[SourceTables, dict[str, int]]:
    """Read and validate the files.

    Args:
        files: Paths by contract name; ``assays`` may be absent.
        quarantine: Directory for the bad rows' ordinals and rules.

    Returns:
        The accepted rows, and the number of bad rows of each table.

    Raises:
        ContractViolation: If a file is refused.
    """
    quarantine.mkdir(parents=True, exist_ok=True)
    left_out: dict[str, int] = {}

    def accepted(contract: Contract, known_keys: dict[str, Any]) -> Any:
        validation = validate_batches(
            open_batches(files[contract.name], contract),
            contract,
            quarantine_path=quarantine / f"{contract.name}.arrow",
            known_keys=known_keys,
        )
        table = pa.Table.from_batches(validation, schema=contract.schema)
        left_out[f"quarantined {contract.name}"] = validation.report.rows_quarantined
        return table

    structures = accepted(STRUCTURES, {})
    known = {"compound_id": structures["compound_id"].combine_chunks()}
    if ASSAYS.name in files:
        assays = accepted(ASSAYS, {})
        activities = accepted(ACTIVITIES, known | {"assay_id": assays["assay_id"].combine_chunks()})
    else:
        activities = accepted(ACTIVITIES, known)
        assays = inferred_assays(activities)
    groups = group_structures(structures["smiles"].to_pylist())
    return SourceTables(structures, assays, activities, groups), left_out


def inferred_assays(activities: Any) -> Any:
    """Describe assays of which only the name is known: type OTHER, direction high, default thresholds."""
    names = pc.unique(activities["assay_id"])
    absent = pa.nulls(len(names), pa.float64())
    return pa.table(
        {
            "assay_id": names,
            "assay_type": pa.array(["OTHER"] * len(names), pa.string()),
            "direction": pa.array(["high"] * len(names), pa.string()),
            **dict.fromkeys(THRESHOLDS, absent),
        }
    )
