"""The embedded dataset: real molecules of the rdkit wheel, simulated assays, simulated companies.

Why: the one-command demonstration runs anywhere, without a download and without anybody's data.
Runs: anywhere. Source: own. Nothing in it was measured; its card, its assay ids (``SYN-``) and every report say so.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import rdkit
from pydantic import BaseModel, ConfigDict, Field

from data_contracts.canonical_json import digest_of
from tasks.simulation.assays import AssaySettings, activities_table, assays_table, simulate_assays
from tasks.simulation.companies import SourceTables, SplitSettings, split_among, split_into_companies
from tasks.simulation.datasets import (
    DIGEST_CHARACTERS,
    DatasetCard,
    Draft,
    SimulatedDataset,
    counted,
    find_or_build,
    generator,
    permuted_companies,
)
from tasks.simulation.molecules import LICENCE_NOTE, embedded_structures, rdkit_data_directory
from tasks.simulation.structure_groups import (
    StructureKeys,
    number_groups,
    parsed_chunks,
    structure_keys,
)
from tasks.simulation.substructures import N_BITS, N_PROPERTIES, physical_properties, substructure_bits

RECIPE_VERSION = 2  # raise it when the same settings give other content


class EmbeddedSettings(BaseModel):
    """All that decides the embedded dataset's content.

    Attributes:
        seed: Public seed of every draw.
        max_structures: Real structures drawn from the wheel's 14,999.
        permuted_labels: Make the control instead.
        assays: The simulated world.
        split: The simulated companies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, lt=2**31)
    max_structures: int = Field(default=10_000, ge=500)
    permuted_labels: bool = False
    assays: AssaySettings = AssaySettings()
    split: SplitSettings = SplitSettings()

    @property
    def digest(self) -> str:
        """Digest of the settings, the recipe and the versions whose numbers enter the content."""
        return digest_of(
            {
                "recipe": RECIPE_VERSION,
                "settings": self.model_dump(mode="json"),
                "rdkit": rdkit.__version__,
                "numpy": np.__version__,
            }
        )


def build_embedded_dataset(
    directory: Path,
    *,
    partners: int = 4,
    seed: int = 0,
    permuted: bool = False,
    settings: EmbeddedSettings | None = None,
) -> SimulatedDataset:
    """Find or build the embedded dataset (about 6 s on one core for 10,000 structures).

    Args:
        directory: Where datasets lie.
        partners: Number of simulated companies.
        seed: Public seed.
        permuted: Build the control, in which there is nothing to learn.
        settings: Everything else; its own seed, partners and control flag are replaced by the arguments.

    Returns:
        The dataset, named ``embedded-<partners>-<digest>``.

    Raises:
        SettingsError: If this rdkit build lacks the molecules, or there are too many companies.
    """
    base = settings or EmbeddedSettings()
    chosen = base.model_copy(
        update={
            "seed": seed,
            "permuted_labels": permuted,
            "split": split_among(partners, base=base.split),
        }
    )
    digest = chosen.digest
    control = "-permuted" if permuted else ""
    name = f"embedded-{partners}{control}-{digest[:DIGEST_CHARACTERS]}"

    def card(draft: Draft) -> DatasetCard:
        return DatasetCard(
            name=name,
            origin="embedded-simulated",
            simulated_assays=True,
            permuted_labels=permuted,
            seed=seed,
            partners=tuple(company.name for company in draft.companies),
            counts=counted(draft.companies),
            licence_note=f"{LICENCE_NOTE}; all activities are simulated",
            recipe_digest=digest,
            left_out=dict(draft.left_out),
        )

    return find_or_build(
        directory, name=name, card=card, recipe_digest=digest, build=lambda _: _draft(chosen)
    )


def _draft(settings: EmbeddedSettings) -> Draft:
    seed = settings.seed
    structures = _drawn(embedded_structures(rdkit_data_directory()), settings)
    keys, features, properties = described(structures["smiles"].to_pylist())
    groups = number_groups(keys)
    _, first = np.unique(groups.exact, return_index=True)
    rows = np.sort(first[groups.readable[first]])
    structures, features, properties = structures.take(pa.array(rows)), features[rows], properties[rows]
    world = generator(seed, "assays")
    assays = simulate_assays(features, properties, settings=settings.assays, rng=world)
    source = SourceTables(
        structures=structures,
        assays=assays_table(assays, rng=world),
        activities=activities_table(assays, structures["compound_id"], settings=settings.assays, rng=world),
        groups=groups.at(rows),
    )
    companies = split_into_companies(source, settings=settings.split, rng=generator(seed, "companies"))
    if settings.permuted_labels:
        companies = permuted_companies(companies, seed=seed)
    kept = sum(company.structures.num_rows for company in companies)
    unreadable = int((~groups.readable).sum())
    return Draft(
        companies=companies,
        left_out={
            "unreadable structures": unreadable,
            "repeated structures": len(keys) - unreadable - len(rows),
            "structures without a value at their owner": len(rows) - kept,
        },
    )


def _drawn(structures: Any, settings: EmbeddedSettings) -> Any:
    if structures.num_rows <= settings.max_structures:
        return structures
    drawn = generator(settings.seed, "structures").choice(
        structures.num_rows, size=settings.max_structures, replace=False
    )
    return structures.take(pa.array(np.sort(drawn)))


def described(smiles: list[str]) -> tuple[list[StructureKeys], Any, Any]:
    """Parse once, and name, fingerprint and measure each structure.

    Returns:
        Keys; bits, shape ``(n, 2048)``; properties, shape ``(n, 5)``.
        Rows of unreadable structures hold zeros.
    """
    keys: list[StructureKeys] = []
    features = np.zeros((len(smiles), N_BITS), dtype=np.uint8)
    properties = np.zeros((len(smiles), N_PROPERTIES), dtype=np.float64)
    for block in parsed_chunks(smiles):
        readable = [number for number, mol in enumerate(block) if mol is not None]
        molecules = [block[number] for number in readable]
        rows = np.array(readable, dtype=np.int64) + len(keys)
        features[rows] = substructure_bits(molecules)
        properties[rows] = physical_properties(molecules)
        keys.extend(structure_keys(mol) for mol in block)
    return keys, features, properties
