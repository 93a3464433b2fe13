"""Datasets of simulated companies on disk: found again, or built and published in one step.

Why: every run of the same settings starts from the same files, and kill -9 while they are written leaves nothing
half done. Runs: anywhere, on one machine. Source: own; ``rename(2)`` publishes, ``flock(2)`` keeps builders apart.

::

    <dataset>/dataset.json                      the card: origin, what is simulated, seed, counts, licence
    <dataset>/consortium_secret                 32 bytes, mode 0600
    <dataset>/<partner>/{assays,activities,structures}.parquet
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_contracts.catalogue import ACTIVITIES, ASSAYS, STRUCTURES
from data_contracts.contract import Contract
from data_contracts.errors import SettingsError
from data_contracts.validation import require_valid
from tasks.exchange.durable_files import create_once, replace_whole
from tasks.featurization.endpoints import endpoint_ids
from tasks.featurization.preparation import PartnerFiles
from tasks.featurization.preparation_rules import rules_of
from tasks.simulation.assays import permuted_activities
from tasks.simulation.companies import Company, SourceTables, SplitSettings, split_into_companies
from tasks.studies.catalogue import MIN_PARTNERS, regression_entries

CARD = "dataset.json"
SECRET = "consortium_secret"  # noqa: S105 - a file name
SECRET_LABEL = b"motet/simulated-consortium-secret/v1"
CONTROL_LABEL = "permuted-control"
DIGEST_CHARACTERS = 8

Origin = Literal["embedded-simulated", "wide", "own files"]


class TableCounts(BaseModel):
    """Rows of one simulated company's tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    assays: int = Field(ge=0)
    activities: int = Field(ge=0)
    structures: int = Field(ge=0)


class DatasetCard(BaseModel):
    """What a dataset is, so that nobody takes it for something else.

    Attributes:
        name: Name of its directory.
        origin: Where the activities come from.
        simulated_assays: True if no activity in it was ever measured.
        permuted_labels: True for the control in which results are shuffled within each assay and company.
        seed: Public seed of the simulation and of the split.
        partners: Names of the simulated companies.
        counts: Rows of each company's tables.
        licence_note: Origin and terms of the structures and activities.
        recipe_digest: Digest of all that decides the content; keyed where the source is private.
        left_out: What of the source did not come in, as counts by reason.
        simulated_companies: Always True: the companies are a split of one table, not separate parties.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    origin: Origin
    simulated_assays: bool
    permuted_labels: bool = False
    seed: int = Field(ge=0)
    partners: tuple[str, ...]
    counts: dict[str, TableCounts]
    licence_note: str
    recipe_digest: str
    left_out: dict[str, int] = Field(default_factory=dict)
    simulated_companies: Literal[True] = True


@dataclass(frozen=True)
class SimulatedDataset:
    """A published dataset.

    Attributes:
        path: Its directory.
    """

    path: Path

    @cached_property
    def card(self) -> DatasetCard:
        """What the dataset is."""
        return DatasetCard.model_validate_json((self.path / CARD).read_bytes())

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.card.name

    @property
    def partners(self) -> tuple[str, ...]:
        """Names of the simulated companies, sorted."""
        return self.card.partners

    def files(self, partner: str) -> PartnerFiles:
        """The three files that a simulated company brings."""
        home = self.path / partner
        return PartnerFiles(
            assays=home / "assays.parquet",
            activities=home / "activities.parquet",
            structures=home / "structures.parquet",
        )

    @cached_property
    def catalogue(self) -> tuple[str, ...]:
        """Endpoints that an agreement would offer for sharing: those of assays that three or more companies run.

        Only who made the companies can know this; real ones name their common assays in the agreement.
        """
        return tuple(sorted(set(endpoint_ids(self._common_assays, rules_of("simple")))))

    @cached_property
    def regression_catalogue(self) -> tuple[str, ...]:
        """The same of numbers: every potency of such an assay."""
        return regression_entries(self._common_assays)

    @cached_property
    def _common_assays(self) -> Any:
        """Assays that three or more companies run, one row each where all describe it alike."""
        assays = pa.concat_tables([pq.read_table(self.files(name).assays) for name in self.partners])
        counted_ids = pc.value_counts(assays["assay_id"].combine_chunks())
        common = counted_ids.field("values").filter(
            pc.greater_equal(counted_ids.field("counts"), MIN_PARTNERS)
        )
        shared = assays.filter(pc.is_in(assays["assay_id"], value_set=common))
        return shared.group_by(shared.column_names).aggregate([])

    @property
    def consortium_secret(self) -> bytes:
        """The 32 bytes that all partners share and the coordinator does not know.

        Here they follow from the public seed, because one person holds all simulated companies anyway and a run
        must be repeatable. Separate companies agree on random ones.
        """
        return (self.path / SECRET).read_bytes()


def open_dataset(path: Path) -> SimulatedDataset:
    """Open a dataset that an import or a simulation has published.

    Raises:
        SettingsError: If the directory is no dataset, or a file of it is gone.
    """
    dataset = SimulatedDataset(path)
    problem = None
    try:
        wanted = [path / SECRET, *(file for name in dataset.partners for file in _paths(dataset, name))]
        missing = [file.relative_to(path) for file in wanted if not file.is_file()]
        if missing:
            problem = f"'{path.name}' lacks {missing[0]}"
    except (OSError, ValidationError):
        problem = f"'{path.name}' has no readable {CARD}"
    if problem is not None:
        raise SettingsError(
            f"{problem}; expected the directory of a dataset as `motet import` leaves it",
            advice="import the table again: `motet import wide FILE --partners K` prints the directory",
        )
    return dataset


def _paths(dataset: SimulatedDataset, partner: str) -> tuple[Path, ...]:
    files = dataset.files(partner)
    return files.assays, files.activities, files.structures


def simulated_secret(seed: int) -> bytes:
    """Derive the consortium secret of simulated companies from the public seed: HMAC-SHA256 with a label."""
    return hmac.new(SECRET_LABEL, seed.to_bytes(8, "big"), hashlib.sha256).digest()


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Make the random generator for one purpose; changing one purpose leaves the draws of the others alone."""
    label = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "big")
    return np.random.default_rng([seed, label])


@dataclass(frozen=True)
class Draft:
    """A dataset before it is written: the companies and the card's own words."""

    companies: tuple[Company, ...]
    left_out: Mapping[str, int]


def dataset_name(text: str) -> str:
    """Make a directory name of what a user or a file name says: lower-case letters, digits and hyphens.

    Raises:
        SettingsError: If nothing is left of it.
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]
    if not name:
        raise SettingsError(
            "the name of a dataset needs a letter or a digit", advice="choose another one with --name"
        )
    return name


def split_draft(
    source: SourceTables, *, split: SplitSettings, seed: int, left_out: Mapping[str, int]
) -> Draft:
    """Split imported tables, and count what the split leaves out."""
    companies = split_into_companies(source, settings=split, rng=generator(seed, "companies"))
    kept = sum(company.activities.num_rows for company in companies)
    dropped = {"values at companies that do not run the assay": source.activities.num_rows - kept}
    return Draft(companies=companies, left_out={**left_out, **dropped})


def find_or_build(
    directory: Path,
    *,
    name: str,
    card: Callable[[Draft], DatasetCard],
    recipe_digest: str,
    build: Callable[[Path], Draft],
) -> SimulatedDataset:
    """Return the dataset of this name if it was made by the same recipe; otherwise build and publish it.

    Args:
        directory: Where datasets lie; created.
        name: Directory name of the dataset.
        card: Makes the card of a built dataset.
        recipe_digest: Digest of all that decides the content.
        build: Makes the companies; called at most once, with the unfinished directory for what it sets aside.

    Returns:
        The dataset; it appears whole or not at all.

    Raises:
        SettingsError: If a dataset of this name was made by another recipe.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    with _alone(directory / f".{name}.lock"):
        if path.exists():
            found = open_dataset(path)
            if found.card.recipe_digest != recipe_digest:
                raise SettingsError(
                    f"a dataset '{name}' exists already and was made from other data or settings",
                    advice="choose another --name, or remove that directory",
                )
            return found
        unfinished = directory / f".building-{name}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        draft = build(unfinished)
        _write(unfinished, draft.companies, card=card(draft))
        unfinished.rename(path)
    return SimulatedDataset(path)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(directory: Path, companies: Iterable[Company], *, card: DatasetCard) -> None:
    for company in companies:
        home = directory / company.name
        home.mkdir(parents=True)
        write_parquet(home / "assays.parquet", ASSAYS, company.assays)
        write_parquet(home / "activities.parquet", ACTIVITIES, company.activities)
        write_parquet(home / "structures.parquet", STRUCTURES, company.structures)
    create_once(directory / SECRET, [simulated_secret(card.seed)])
    replace_whole(directory / CARD, [json.dumps(card.model_dump(mode="json"), indent=2).encode() + b"\n"])


def write_parquet(path: Path, contract: Contract, table: Any) -> None:
    """Write a partner's source table, as a partner would bring it: Parquet, zstd, checked against its contract.

    Raises:
        ContractViolation: If a row breaks a rule.
    """
    accepted = require_valid(table.to_batches(), contract, source=path.name)
    pq.write_table(pa.Table.from_batches(accepted, schema=contract.schema), path, compression="zstd")


def counted(companies: Iterable[Company]) -> dict[str, TableCounts]:
    """Count the rows of each company's tables, for the card."""
    return {
        company.name: TableCounts(
            assays=company.assays.num_rows,
            activities=company.activities.num_rows,
            structures=company.structures.num_rows,
        )
        for company in companies
    }


def permuted_companies(companies: Iterable[Company], *, seed: int) -> tuple[Company, ...]:
    """Shuffle the results within each assay of each company."""
    rng = generator(seed, CONTROL_LABEL)
    return tuple(
        Company(
            company.name, company.assays, permuted_activities(company.activities, rng=rng), company.structures
        )
        for company in companies
    )


def permuted_dataset(dataset: SimulatedDataset, *, directory: Path) -> SimulatedDataset:
    """Make the control of a dataset: the same companies, results shuffled within each assay and company.

    Args:
        dataset: Any dataset, such as an imported one.
        directory: Where the control is published, as ``<name>-permuted``.

    Returns:
        The control; the dataset itself if it is one already.
    """
    card = dataset.card
    if card.permuted_labels:
        return dataset
    name = f"{card.name}-permuted"
    digest = hashlib.sha256(f"{CONTROL_LABEL}/{card.recipe_digest}".encode()).hexdigest()
    update = {"name": name, "permuted_labels": True, "recipe_digest": digest}
    return find_or_build(
        directory,
        name=name,
        recipe_digest=digest,
        card=lambda _: card.model_copy(update=update),
        build=lambda _: Draft(permuted_companies(_companies(dataset), seed=card.seed), card.left_out),
    )


def _companies(dataset: SimulatedDataset) -> Iterator[Company]:
    for name in dataset.partners:
        tables = (pq.read_table(path) for path in _paths(dataset, name))
        assays, activities, structures = tables
        yield Company(name, assays, activities, structures)
