"""Import of a public wide table as simulated companies.

Why: a consortium is rehearsed on real, public measurements before any company brings its own.
Runs: anywhere, on one machine. Source: own; the companies are simulated, the activities are the table's.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.canonical_json import digest_of
from data_contracts.catalogue import MOLAR_UNITS, THRESHOLDS
from data_contracts.errors import SettingsError
from tasks.simulation.companies import Scenario, SourceTables, split_among
from tasks.simulation.datasets import (
    DIGEST_CHARACTERS,
    DatasetCard,
    Draft,
    SimulatedDataset,
    counted,
    dataset_name,
    find_or_build,
    split_draft,
)
from tasks.simulation.structure_groups import group_structures
from tasks.simulation.wide_tables import WideTable, read_wide_table

RECIPE_VERSION = 2
FEWEST_VALUES_OF_A_TARGET = 60
BINARY_THRESHOLD = 0.5  # a 0/1 column: 1 is active
P_SCALE_RANGE = (-3.0, 16.0)  # beyond it a number is no -log10 of a concentration in mol/l
LICENCE_NOTE = "activities and structures of a public table; see the terms of its origin"


def import_wide_table(
    path: Path,
    *,
    directory: Path,
    partners: int = 4,
    scenario: Scenario = "shared-assays",
    seed: int = 0,
    name: str | None = None,
    unit: str = "p",
    fewest_values: int = FEWEST_VALUES_OF_A_TARGET,
    smiles_column: str | None = None,
    id_column: str | None = None,
    ignored: tuple[str, ...] = (),
    licence_note: str = LICENCE_NOTE,
) -> SimulatedDataset:
    """Import a wide table and split it into simulated companies.

    Args:
        path: CSV, gzip-compressed CSV or Parquet; see :func:`tasks.simulation.wide_tables.read_wide_table`.
        directory: Where datasets lie.
        partners: Number of simulated companies.
        scenario: Whether they share some or all assays and no compound, or compounds and no assay.
        seed: Public seed of the split.
        name: Name of the dataset; by default from the file, the settings and the content.
        unit: Unit of the numbers: ``p`` (already -log10(M)), or M, mM, uM, nM, pM. Columns of zeros and ones are
            binary whatever is said here: they get the threshold 0.5.
        fewest_values: Targets with fewer values, after merging, are left out.
        smiles_column: Column of structures.
        id_column: Column of compound ids.
        ignored: Numeric columns that are no targets.
        licence_note: Goes on the card.

    Returns:
        The dataset, found again if it was imported before.

    Raises:
        SettingsError: If the file is no wide table, its numbers do not fit the unit, or it is too small.
    """
    split = split_among(partners, scenario=scenario)
    if unit not in ("p", *MOLAR_UNITS):
        raise SettingsError(f"there is no unit '{unit}'; expected p or one of {', '.join(MOLAR_UNITS)}")
    digest = _recipe(
        path,
        {
            "split": split.model_dump(mode="json"),
            "seed": seed,
            "unit": unit,
            "fewest_values": fewest_values,
            "smiles_column": smiles_column,
            "id_column": id_column,
            "ignored": sorted(ignored),
        },
    )
    stem = dataset_name(path.name.split(".")[0])
    chosen = dataset_name(name) if name else f"{stem}-{partners}-{digest[:DIGEST_CHARACTERS]}"

    def build(_unfinished: Path) -> Draft:
        wide = read_wide_table(path, smiles_column=smiles_column, id_column=id_column, ignored=ignored)
        source, merged = source_tables(wide, unit=unit, fewest_values=fewest_values, who=path.name)
        return split_draft(source, split=split, seed=seed, left_out=wide.left_out | merged)

    def card(draft: Draft) -> DatasetCard:
        return DatasetCard(
            name=chosen,
            origin="wide",
            simulated_assays=False,
            seed=seed,
            partners=tuple(company.name for company in draft.companies),
            counts=counted(draft.companies),
            licence_note=licence_note,
            recipe_digest=digest,
            left_out=dict(draft.left_out),
        )

    return find_or_build(directory, name=chosen, card=card, recipe_digest=digest, build=build)


def _recipe(path: Path, settings: dict[str, Any]) -> str:
    if not path.is_file():
        raise SettingsError(f"there is no file '{path.name}'", advice="check the path")
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    return digest_of({"recipe": RECIPE_VERSION, "content": content, "settings": settings})


def source_tables(
    wide: WideTable, *, unit: str, fewest_values: int, who: str
) -> tuple[SourceTables, dict[str, int]]:
    """Bring a wide table into the contracts' shape, repeated structures merged.

    The values of one structure and target are averaged (on the log scale; a tie of a binary target is active,
    because the mean 0.5 reaches the threshold). Targets with too few values are dropped.

    Args:
        wide: The table as read.
        unit: Unit of the numbers of targets that are not binary.
        fewest_values: Smallest target.
        who: Name of the file, for messages.

    Returns:
        The tables, and counts of what was left out or merged.

    Raises:
        SettingsError: If the numbers do not fit the unit, an id names two structures, or no target is large enough.
    """
    n_targets = len(wide.targets)
    binary = _binary_targets(wide)
    logs = _on_log_scale(wide, binary=binary, unit=unit, who=who)
    usable = np.isfinite(logs)
    groups = group_structures(wide.smiles)
    pair, inverse = np.unique(
        groups.exact[wide.row[usable]] * n_targets + wide.target[usable], return_inverse=True
    )
    mean = np.bincount(inverse, weights=logs[usable]) / np.bincount(inverse)
    target = pair % n_targets
    kept_target = np.bincount(target, minlength=n_targets) >= fewest_values
    if not kept_target.any():
        raise SettingsError(
            f"{who}: none of {n_targets} targets has {fewest_values} values",
            advice="bring a larger table",
        )
    kept = kept_target[target]
    exact, first_row = np.unique(groups.exact, return_index=True)
    row = first_row[np.searchsorted(exact, (pair // n_targets)[kept])]
    rows, structure = np.unique(row, return_inverse=True)
    target = target[kept]
    is_binary = binary[target]
    numbers = mean[kept] if unit == "p" else np.where(is_binary, mean[kept], 10.0 ** mean[kept])
    compound_ids = _compound_ids(wide, rows, who=who)
    tables = SourceTables(
        structures=pa.table({"compound_id": compound_ids, "smiles": [wide.smiles[row] for row in rows]}),
        assays=_assays(wide, np.flatnonzero(kept_target), binary=binary),
        activities=pa.table(
            {
                "compound_id": compound_ids.take(pa.array(structure)),
                "assay_id": pa.array(wide.targets, pa.string()).take(pa.array(target)),
                "relation": pa.array(["="] * len(target), pa.string()),
                "value": pa.array(numbers, pa.float64()),
                "unit": pa.array(np.where(is_binary, "p", unit).tolist(), pa.string()),
            }
        ),
        groups=groups.at(rows),
    )
    return tables, {
        "values that are no concentration": int((~usable).sum()),
        "values merged into another of the same structure": int(usable.sum()) - len(pair),
        f"targets with fewer than {fewest_values} values": int((~kept_target).sum()),
        "values of these targets": int((~kept).sum()),
    }


def _binary_targets(wide: WideTable) -> npt.NDArray[np.bool_]:
    other = ~np.isin(wide.value, (0.0, 1.0))
    binary: npt.NDArray[np.bool_] = np.bincount(wide.target[other], minlength=len(wide.targets)) == 0
    return binary


def _on_log_scale(
    wide: WideTable, *, binary: npt.NDArray[np.bool_], unit: str, who: str
) -> npt.NDArray[np.float64]:
    """Numbers to be averaged; NaN where a concentration is not positive."""
    real = ~binary[wide.target]
    if unit == "p":
        low, high = P_SCALE_RANGE
        outside = int(((wide.value < low) | (wide.value > high))[real].sum())
        if 2 * outside > int(real.sum()):
            raise SettingsError(
                f"{who}: {outside} of {int(real.sum())} values are no -log10(M); expected {low:g} to {high:g}",
                advice="give the unit of the table, such as nM",
            )
        return wide.value
    logs = np.full(len(wide.value), np.nan)
    np.log10(wide.value, out=logs, where=real & (wide.value > 0))
    return np.where(real, logs, wide.value)


def _compound_ids(wide: WideTable, rows: npt.NDArray[np.int64], *, who: str) -> Any:
    if wide.row_ids is None:
        return pa.array([f"ROW-{row + 1:07d}" for row in rows.tolist()], pa.string())
    names = [wide.row_ids[row] for row in rows.tolist()]
    repeated = len(names) - len(set(names))
    if repeated:  # their values would end up at the first of the structures
        raise SettingsError(
            f"{who}: {repeated} compound ids name a further structure; expected one structure an id",
            advice="leave out the id column, so that the rows are numbered, or correct the ids",
        )
    return pa.array(names, pa.string())


def _assays(wide: WideTable, targets: npt.NDArray[np.int64], *, binary: npt.NDArray[np.bool_]) -> Any:
    absent = pa.nulls(len(targets), pa.float64())
    return pa.table(
        {
            "assay_id": pa.array([wide.targets[target] for target in targets.tolist()], pa.string()),
            "assay_type": pa.array(["OTHER"] * len(targets), pa.string()),
            "direction": pa.array(["high"] * len(targets), pa.string()),
            THRESHOLDS[0]: pa.array(np.full(len(targets), BINARY_THRESHOLD), mask=~binary[targets]),
            **dict.fromkeys(THRESHOLDS[1:], absent),
        }
    )
