"""Every data contract of motet, declared once.

Why: what a partner brings, what it prepares and what a model answers are each one frozen table description.
Runs: anywhere. Source: MELLODDY's T0/T1/T2 files for the three that a partner brings; own for the others.

After a change raise the version as its class demands, then ``python -m data_contracts.catalogue --write-lock``.
"""

import sys
from pathlib import Path

from data_contracts.brought_tables import ACTIVITIES, ASSAYS, CATALOGUE, STRUCTURES
from data_contracts.compatibility import read_lock, version_problem
from data_contracts.contract import Contract
from data_contracts.imported_tables import (
    LONG,
    MELLODDY_T0,
    MELLODDY_T1,
    MELLODDY_T2,
    MELLODDY_T_CAT,
)
from data_contracts.prepared_tables import (
    ENDPOINTS,
    FEATURIZED_STRUCTURES,
    HASHED_FINGERPRINTS,
    LABELS,
    PREDICTIONS,
    REGRESSION_ENDPOINTS,
    REGRESSION_VALUES,
)
from data_contracts.quarantine import QUARANTINE
from data_contracts.vocabulary import (
    ASSAY_TYPES,
    DIRECTIONS,
    HASHED_BITS,
    LAST_FOLD,
    MAX_ENDPOINT_CHARACTERS,
    MAX_ID_CHARACTERS,
    MAX_SMILES_CHARACTERS,
    MOLAR_UNITS,
    RELATIONS,
    THRESHOLDS,
    UNITS,
)

__all__ = [
    "ACTIVITIES",
    "ASSAYS",
    "ASSAY_TYPES",
    "CATALOGUE",
    "CONTRACTS",
    "DIRECTIONS",
    "ENDPOINTS",
    "FEATURIZED_STRUCTURES",
    "HASHED_BITS",
    "HASHED_FINGERPRINTS",
    "LABELS",
    "LAST_FOLD",
    "LOCK_DIRECTORY",
    "MAX_ENDPOINT_CHARACTERS",
    "MAX_ID_CHARACTERS",
    "MAX_SMILES_CHARACTERS",
    "MOLAR_UNITS",
    "PREDICTIONS",
    "QUARANTINE",
    "REGRESSION_ENDPOINTS",
    "REGRESSION_VALUES",
    "RELATIONS",
    "STRUCTURES",
    "THRESHOLDS",
    "UNITS",
    "lock_problems",
    "write_lock",
]
LOCK_DIRECTORY = Path(__file__).resolve().parent / "lock"

CONTRACTS: dict[str, Contract] = {
    contract.name: contract
    for contract in (
        ASSAYS,
        ACTIVITIES,
        STRUCTURES,
        CATALOGUE,
        FEATURIZED_STRUCTURES,
        HASHED_FINGERPRINTS,
        ENDPOINTS,
        LABELS,
        REGRESSION_ENDPOINTS,
        REGRESSION_VALUES,
        PREDICTIONS,
        QUARANTINE,
        MELLODDY_T0,
        MELLODDY_T1,
        MELLODDY_T2,
        MELLODDY_T_CAT,
        LONG,
    )
}


def lock_problems(directory: Path) -> list[str]:
    """Compare every contract with its lock file.

    Args:
        directory: Where ``<name>.json`` lie.

    Returns:
        One sentence for each contract whose change is not covered by its version, or that has no lock file.
    """
    problems = []
    for contract in CONTRACTS.values():
        locked = read_lock(directory / f"{contract.name}.json")
        if locked is None:
            problems.append(f"{contract.identifier} has no lock file")
        elif (problem := version_problem(locked, contract.to_json())) is not None:
            problems.append(problem)
    return problems


def write_lock(directory: Path) -> list[str]:
    """Write the lock files, unless a version is not raised as its change demands.

    Returns:
        The problems that prevented it; empty if all were written.
    """
    problems = [p for p in lock_problems(directory) if not p.endswith("has no lock file")]
    if not problems:
        directory.mkdir(parents=True, exist_ok=True)
        for contract in CONTRACTS.values():
            (directory / f"{contract.name}.json").write_bytes(contract.to_bytes())
    return problems


def main(arguments: list[str]) -> int:
    """Check the lock files, or write them with ``--write-lock``; return the exit code."""
    problems = write_lock(LOCK_DIRECTORY) if "--write-lock" in arguments else lock_problems(LOCK_DIRECTORY)
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 3 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
