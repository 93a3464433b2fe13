"""Every data contract of motet, declared once.

Why: what a partner brings, what it prepares and what a model answers are each one frozen table description.
Runs: anywhere. Source: MELLODDY's T0/T1/T2 files for the three that a partner brings; own for the others.

After a change raise the version as its class demands, then ``python -m data_contracts.catalogue --write-lock``.
"""

import sys
from pathlib import Path

from data_contracts.compatibility import read_lock, version_problem
from data_contracts.contract import Contract, Field
from data_contracts.quarantine import QUARANTINE
from data_contracts.rules import (
    Between,
    BetweenWhen,
    Finite,
    KnownIn,
    LengthBetween,
    Matches,
    NoControlCharacters,
    OneOf,
    RequiredWhen,
    RowNumber,
    Rule,
    SortedUniqueBelow,
    StrictlyIncreasing,
    Unique,
)

MAX_ID_CHARACTERS = 200
MAX_ENDPOINT_CHARACTERS = 240  # an assay id, a direction and a threshold
MAX_SMILES_CHARACTERS = 5_000
HASHED_BITS = 32_768
LAST_FOLD = 4
ASSAY_TYPES = ("ADME", "PANEL", "OTHER", "AUX_HTS")
DIRECTIONS = ("high", "low")
RELATIONS = ("=", "<", ">")
MOLAR_UNITS = ("M", "mM", "uM", "nM", "pM")
THRESHOLDS = tuple(f"threshold_{i}" for i in range(1, 6))
LARGEST_CONCENTRATION = 1e30  # only the sign matters: a concentration at or below 0 has no logarithm
SMALLEST_CONCENTRATION = 1e-30
LOCK_DIRECTORY = Path(__file__).resolve().parent / "lock"


def _identifier(column: str, *, maximum: int = MAX_ID_CHARACTERS) -> tuple[Rule, ...]:
    return (LengthBetween(column, 1, maximum), NoControlCharacters(column))


ASSAYS = Contract(
    name="assays",
    version="1.0.0",
    description="A partner's measurement protocols, one row each.",
    fields=(
        Field("assay_id", "string", description="the partner's own name of the assay; stays at the partner"),
        Field("assay_type", "string", description="what kind of assay it is"),
        Field(
            "direction",
            "string",
            description="which side of a threshold is active: high means value >= threshold",
        ),
        *(
            Field(
                name,
                "float64",
                nullable=True,
                optional=True,
                unit="-log10(M)",
                description="activity threshold",
            )
            for name in THRESHOLDS
        ),
    ),
    key=("assay_id",),
    rules=(
        *_identifier("assay_id"),
        OneOf("assay_type", ASSAY_TYPES),
        OneOf("direction", DIRECTIONS),
        *(Finite(name) for name in THRESHOLDS),
    ),
)

ACTIVITIES = Contract(
    name="activities",
    version="1.0.0",
    description="A partner's measurements, one row each; a compound may be measured repeatedly.",
    fields=(
        Field(
            "compound_id",
            "string",
            description="the partner's own name of the compound; stays at the partner",
        ),
        Field("assay_id", "string", description="assay of the measurement"),
        Field("relation", "string", description="= measured, < or > censored"),
        Field("value", "float64", description="the measurement, in the row's unit"),
        Field("unit", "string", description="p means already -log10(M)"),
    ),
    rules=(
        *_identifier("compound_id"),
        *_identifier("assay_id"),
        OneOf("relation", RELATIONS),
        Finite("value"),
        OneOf("unit", ("p", *MOLAR_UNITS)),
        BetweenWhen("value", SMALLEST_CONCENTRATION, LARGEST_CONCENTRATION, when="unit", among=MOLAR_UNITS),
        KnownIn("compound_id", "structures", "compound_id"),
        KnownIn("assay_id", "assays", "assay_id"),
    ),
)

STRUCTURES = Contract(
    name="structures",
    version="1.0.0",
    description="A partner's compounds and their structures, one row each.",
    fields=(
        Field(
            "compound_id",
            "string",
            description="the partner's own name of the compound; stays at the partner",
        ),
        Field("smiles", "string", description="structure; whether it parses is decided by featurization"),
    ),
    key=("compound_id",),
    rules=(*_identifier("compound_id"), *_identifier("smiles", maximum=MAX_SMILES_CHARACTERS)),
)

HASHED_FINGERPRINTS = Contract(
    name="hashed_fingerprints",
    version="1.0.0",
    description="A partner's prepared structures, one row for each parent; private.",
    fields=(
        Field("structure_index", "int32", description="row number"),
        Field("structure_key", "string", description="keyed digest of the parent structure"),
        Field("fold", "int8", description="0 test, 4 validation, 1 to 3 training"),
        Field("bits", "list<uint16>", description="set bits of the binary ECFP6, hashed to 32,768"),
    ),
    rules=(
        RowNumber("structure_index"),
        Matches("structure_key", "[0-9a-f]{32}"),
        Unique(("structure_key",)),
        Between("fold", 0, LAST_FOLD),
        SortedUniqueBelow("bits", HASHED_BITS),
    ),
)

ENDPOINTS = Contract(
    name="endpoints",
    version="1.0.0",
    description="A partner's learnable columns, one row each; private.",
    fields=(
        Field("endpoint_index", "int32", description="row number; position in the head"),
        Field("endpoint_id", "string", description="assay, direction and threshold, such as ASSAY>=6.5"),
        Field("assay_id", "string", description="assay of the endpoint"),
        Field("assay_type", "string", description="type of the assay"),
        Field("threshold", "float64", unit="-log10(M)", description="activity threshold"),
        Field("direction", "string", description="which side of the threshold is active"),
        Field("n_active", "int32", description="structures with label 1"),
        Field("n_inactive", "int32", description="structures with label 0"),
        Field("in_training", "bool", description="meets the training quorum"),
        Field("in_evaluation", "bool", description="meets the evaluation quorum"),
        Field("weight", "float64", description="weight in the training loss"),
    ),
    key=("endpoint_id",),
    rules=(
        RowNumber("endpoint_index"),
        *_identifier("endpoint_id", maximum=MAX_ENDPOINT_CHARACTERS),
        *_identifier("assay_id"),
        OneOf("assay_type", ASSAY_TYPES),
        Finite("threshold"),
        OneOf("direction", DIRECTIONS),
        Between("n_active", 0, None),
        Between("n_inactive", 0, None),
        Finite("weight"),
        Between("weight", 0, None),
    ),
)

LABELS = Contract(
    name="labels",
    version="1.0.0",
    description="A partner's training labels, one row for each structure and endpoint, sorted; private.",
    fields=(
        Field("structure_index", "int32", description="row of hashed_fingerprints"),
        Field("endpoint_index", "int32", description="row of endpoints"),
        Field("label", "int8", description="1 active, 0 inactive"),
    ),
    rules=(
        Between("structure_index", 0, None),
        Between("endpoint_index", 0, None),
        OneOf("label", (0, 1)),
        StrictlyIncreasing(("structure_index", "endpoint_index")),
    ),
)

PREDICTIONS = Contract(
    name="predictions",
    version="1.0.0",
    description="What a registered model answers, one row for each structure and endpoint.",
    fields=(
        Field("smiles", "string", description="structure as it was asked"),
        Field("endpoint", "string", description="endpoint of the model"),
        Field("probability", "float64", nullable=True, description="probability of active"),
        Field("valid", "bool", description="whether the structure could be featurized"),
        Field("reason", "string", nullable=True, description="why not, as a reason code"),
    ),
    rules=(
        LengthBetween("endpoint", 1, MAX_ENDPOINT_CHARACTERS),
        Between("probability", 0, 1),
        RequiredWhen("probability", flag="valid", state=True),
        RequiredWhen("reason", flag="valid", state=False),
    ),
)

CONTRACTS: dict[str, Contract] = {
    contract.name: contract
    for contract in (
        ASSAYS,
        ACTIVITIES,
        STRUCTURES,
        HASHED_FINGERPRINTS,
        ENDPOINTS,
        LABELS,
        PREDICTIONS,
        QUARANTINE,
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
