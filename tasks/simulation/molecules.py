"""Real molecules that the rdkit wheel carries.

Why: the embedded demonstration needs real structures on every machine, with no download and no bytes of ours.
Runs: anywhere. Source: rdkit ``Data/Pains/test_data/wehi_mols.csv`` (10,000 screening compounds of the Walter and
Eliza Hall Institute, BSD-3-Clause with rdkit) and ``Data/NCI/first_5K.smi`` (NCI open compounds, public domain).
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from rdkit import RDConfig

from data_contracts.errors import SettingsError

WEHI_FILE = Path("Pains/test_data/wehi_mols.csv")
NCI_FILE = Path("NCI/first_5K.smi")
LICENCE_NOTE = (
    "real structures: WEHI screening compounds and NCI open compounds as carried by the rdkit wheel "
    "(BSD-3-Clause; NCI: public domain)"
)


def rdkit_data_directory() -> Path:
    """Where this rdkit build keeps its data files."""
    return Path(RDConfig.RDDataDir)


def embedded_structures(data_directory: Path) -> pa.Table:
    """Read the embedded molecules.

    Args:
        data_directory: rdkit's data directory, see :func:`rdkit_data_directory`.

    Returns:
        Columns ``compound_id`` and ``smiles`` (string), about 15,000 rows: WEHI first, then NCI, in file order.
        Some SMILES of the NCI file are unreadable by design of that file; they are returned as they stand.

    Raises:
        SettingsError: If this rdkit build leaves the files out.
    """
    for name in (WEHI_FILE, NCI_FILE):
        if not (data_directory / name).is_file():
            raise SettingsError(
                f"this rdkit build has no {name}; expected the files of the rdkit wheel from the package index",
                advice="pip install rdkit (the wheel carries the molecules), or bring your own files: "
                "`motet run --activities FILE --structures FILE`",
            )
    rows = [*_wehi(data_directory / WEHI_FILE), *_nci(data_directory / NCI_FILE)]
    return pa.table(
        {
            "compound_id": pa.array([name for name, _ in rows], pa.string()),
            "smiles": pa.array([smiles for _, smiles in rows], pa.string()),
        }
    )


def _wehi(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        for smiles, name in csv.reader(file):
            yield name, smiles


def _nci(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            smiles, _, number = line.strip().partition("\t")
            yield f"NCI-{number}", smiles
