"""``motet import`` and ``motet run --activities``: files on this machine become simulated companies.

Why: a consortium is rehearsed on data at hand before any partner is asked. Runs: on one machine. Source: own.
"""

import argparse
from typing import Any

from flows.cli.tables import print_table
from tasks.simulation.datasets import SimulatedDataset
from tasks.simulation.own_files import import_own_files
from tasks.simulation.wide_import import import_wide_table

DEFAULT_PARTNERS = 4


def wide(arguments: argparse.Namespace) -> dict[str, Any]:
    """Import a public wide table, split among simulated companies."""
    dataset = import_wide_table(
        arguments.file,
        directory=arguments.home.resolve() / "data",
        partners=arguments.partners,
        seed=arguments.seed,
        name=arguments.name,
        unit=arguments.unit,
    )
    return report(dataset)


def own_files(arguments: argparse.Namespace) -> SimulatedDataset:
    """Split a user's own files among simulated companies."""
    return import_own_files(
        activities=arguments.activities,
        structures=arguments.structures,
        assays=arguments.assays,
        directory=arguments.home.resolve() / "data",
        partners=arguments.partners or DEFAULT_PARTNERS,
        seed=arguments.seed or 0,
    )


def report(dataset: SimulatedDataset) -> dict[str, Any]:
    """Show who got what, what was left out and why, and what to do next."""
    card = dataset.card
    rows = [
        [name, counts.structures, counts.assays, counts.activities] for name, counts in card.counts.items()
    ]
    print_table(("company", "structures", "assays", "activities"), rows)
    left_out = {reason: count for reason, count in card.left_out.items() if count}
    if left_out:
        print("\nleft out:")
        for reason, count in left_out.items():
            print(f"  {count:>8}  {reason}")
    print(f"\nThe companies are simulated; the activities are those of the table. Dataset: {dataset.path}")
    print(f"train on it:  motet run --data {dataset.path}")
    return {"dataset": str(dataset.path), **card.model_dump(mode="json")}
