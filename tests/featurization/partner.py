"""A small partner with real molecules, and what its rows should become."""

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from rdkit import RDConfig

from data_contracts.catalogue import ACTIVITIES, ASSAYS, STRUCTURES
from tasks.featurization.preparation import PartnerFiles
from tasks.featurization.preparation_rules import PreparationRules, rules_of

SECRET = bytes(range(32))


def simple(*, training: int, evaluation: int) -> PreparationRules:
    """The profile `simple` with other quorums."""
    return rules_of("simple").varied(
        training={"active": training, "inactive": training},
        evaluation={"active": evaluation, "inactive": evaluation},
    )


SMALL_QUORUMS = simple(training=3, evaluation=1)
WEHI = Path(RDConfig.RDDataDir) / "Pains/test_data/wehi_mols.csv"


def wehi_molecules(count: int) -> list[str]:
    """Return the first screening compounds that the rdkit wheel carries."""
    with WEHI.open(encoding="utf-8", newline="") as file:
        return [row[0] for row, _ in zip(csv.reader(file), range(count), strict=False)]


@dataclass
class Partner:
    """Rows of the three tables."""

    structures: list[tuple[str, str]] = field(default_factory=list)
    assays: list[tuple[str, str, str]] = field(default_factory=list)
    activities: list[tuple[str, str, str, float, str]] = field(default_factory=list)

    def write(self, directory: Path, *, suffix: str = "parquet") -> PartnerFiles:
        directory.mkdir(parents=True, exist_ok=True)
        names = [f.name for f in ASSAYS.fields[:3]]
        tables = {
            "structures": table([f.name for f in STRUCTURES.fields], self.structures),
            "assays": table(names, self.assays),
            "activities": table([f.name for f in ACTIVITIES.fields[:5]], self.activities),
        }
        paths = {name: directory / f"{name}.{suffix}" for name in tables}
        for name, rows in tables.items():
            if suffix == "csv":
                pa_csv.write_csv(rows, paths[name])
            elif suffix == "arrow":
                with pa.ipc.new_file(str(paths[name]), rows.schema) as writer:
                    writer.write_table(rows)
            else:
                pq.write_table(rows, paths[name])
        return PartnerFiles(**paths)


def table(names: list[str], rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[] for _ in names]
    return pa.table(dict(zip(names, map(list, columns), strict=True)))


def random_partner(*, seed: int, n_structures: int = 80) -> Partner:
    """Two assays of which every structure has a value, one in nM and one on the p-scale."""
    rng = np.random.default_rng(seed)
    smiles = wehi_molecules(n_structures)
    names = [f"C{number}" for number in range(n_structures)]
    partner = Partner(structures=list(zip(names, smiles, strict=True)))
    partner.assays = [("potency", "OTHER", "high"), ("clearance", "ADME", "low")]
    for name in names:
        partner.activities.append((name, "potency", "=", float(10 ** rng.uniform(1, 5)), "nM"))
        partner.activities.append((name, "clearance", "=", float(rng.uniform(4, 9)), "p"))
    return partner
