"""A prepared dataset: a directory that appears whole, and is found again by what it was made of.

Why: a run may be killed at any moment and be started again; then finished work is found and half-finished work
is not. Runs: on the partner. Source: own; rename(2) and flock(2).
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from data_contracts.catalogue import CONTRACTS
from data_contracts.errors import ContractViolation
from data_contracts.references import BlobReference
from data_contracts.violations import source_name
from tasks.exchange.durable_files import replace_whole
from tasks.featurization.preparation_rules import PreparationRules
from tasks.featurization.structure_recipe import StructureRecipe

VERSION = 2  # of the rules in this folder that no other name stands for
MANIFEST, REPORT, PAGE, EXCLUDED = (
    "prepared.json",
    "data_report.json",
    "data_report.html",
    "excluded_endpoints.json",
)
QUARANTINE_DIRECTORY = "quarantine"


@dataclass(frozen=True)
class PartnerFiles:
    """What a partner brings: Parquet, Arrow IPC or CSV; the consortium's catalogue if there is one."""

    assays: Path
    activities: Path
    structures: Path
    catalogue: Path | None = None


class Manifest(BaseModel):
    """What a prepared directory was made of, and its tables.

    Attributes:
        identity: Keyed digest of the files, rules and versions; hexadecimal.
        tables: Reference of each table by its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: str
    tables: dict[str, BlobReference]


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset; private to the partner.

    Attributes:
        directory: Holds ``fingerprints.arrow``, ``endpoints.arrow``, ``labels.arrow``,
            ``regression_endpoints.arrow``, ``regression_values.arrow``, ``prepared.json``, ``data_report.json``, ``data_report.html``, ``excluded_endpoints.json`` and ``quarantine/``.
        tables: References of the tables by name; their digests never leave the site.
        report: Content of ``data_report.json``: counts only.
    """

    directory: Path
    tables: Mapping[str, BlobReference]
    report: Mapping[str, Any]

    def path(self, table: str) -> Path:
        """Path of a table: ``fingerprints``, ``endpoints``, ``labels``, ``regression_endpoints``, ``regression_values``."""
        return self.directory / f"{table}.arrow"


def identity_of(files: PartnerFiles, rules: PreparationRules, *, secret: bytes) -> str:
    """Name inputs, rules and versions in one keyed digest.

    Raises:
        ContractViolation: If a file cannot be read.
    """
    digest = hashlib.blake2b(key=secret, digest_size=32)
    contracts = {name: contract.digest for name, contract in CONTRACTS.items()}
    recipe = StructureRecipe(rules.structures, secret)
    rule = [VERSION, recipe.parameters, contracts, rules.model_dump(mode="json")]
    digest.update(json.dumps(rule, sort_keys=True).encode())
    for path in (files.assays, files.activities, files.structures, files.catalogue):
        if path is None:
            continue
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as exc:
            raise ContractViolation(
                f"{source_name(path)}: got {exc.strerror}; expected a readable file",
                advice="check the path and its permissions",
            ) from None
    return digest.hexdigest()


def find_prepared(directory: Path, *, identity: str) -> PreparedDataset | None:
    """Find a finished dataset of this identity; None if there is none or one of its tables is gone."""
    try:
        manifest = Manifest.model_validate_json((directory / MANIFEST).read_bytes())
        report = json.loads((directory / REPORT).read_bytes())
        found = PreparedDataset(directory, manifest.tables, report)
        complete = all(found.path(name).stat().st_size == table.bytes for name, table in found.tables.items())
    except (OSError, ValueError):
        return None
    return found if complete and manifest.identity == identity else None


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people: indented, keys sorted."""
    replace_whole(path, [json.dumps(value, indent=1, sort_keys=True).encode()])


@contextlib.contextmanager
def alone_at(directory: Path) -> Iterator[None]:
    """Wait until no other process or thread prepares this directory."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f".{directory.name}.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the process, however that ends
        yield


@contextlib.contextmanager
def scratch_for(directory: Path) -> Iterator[Path]:
    """Give an empty directory beside another; what a killed call left in it is removed.

    If the block is refused, the quarantine is kept as ``DIRECTORY-refused`` so that the partner can look its rows up.
    """
    scratch, refused = _beside(directory, ".{}.part"), _beside(directory, "{}-refused")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    try:
        yield scratch
    except ContractViolation as refusal:
        if any((scratch / QUARANTINE_DIRECTORY).glob("*.arrow")):
            shutil.rmtree(refused, ignore_errors=True)
            (scratch / QUARANTINE_DIRECTORY).replace(refused)
            refusal.advice += f"; the ordinals lie in '{refused.name}'"
        raise
    else:
        shutil.rmtree(refused, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def publish(scratch: Path, directory: Path) -> None:
    """Give a finished directory its name; what stood there, of other files or rules, is removed."""
    outdated = _beside(directory, ".{}.old")
    shutil.rmtree(outdated, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        directory.replace(outdated)  # aside first: a half-removed directory must never be found
    scratch.replace(directory)
    handle = os.open(directory.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    shutil.rmtree(outdated, ignore_errors=True)


def _beside(directory: Path, pattern: str) -> Path:
    return directory.with_name(pattern.format(directory.name))
