"""``motet import`` and ``motet run --activities``: files on this machine become simulated companies.

Why: a consortium is rehearsed on data at hand before any partner is asked; and a partner brings the files that it
already has. Runs: on one machine. Source: own.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.cli.tables import print_table
from tasks.featurization.importing import Imported
from tasks.featurization.long_import import import_long
from tasks.featurization.melloddy_import import import_melloddy
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
        scenario=arguments.scenario,
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


def melloddy(arguments: argparse.Namespace) -> dict[str, Any]:
    """Import files that were prepared for MELLODDY."""
    tables = import_melloddy(
        t0=arguments.t0, t1=arguments.t1, t2=arguments.t2, t_cat=arguments.t_cat, directory=arguments.output
    )
    return report_import(tables, arguments.output, profile="melloddy")


def long(arguments: argparse.Namespace) -> dict[str, Any]:
    """Import a long extract."""
    found = import_long(arguments.file, structures=arguments.structures, directory=arguments.output)
    outcome = report_import(found.tables, arguments.output, profile="simple")
    if found.suspicious:
        print(
            f"\n{len(found.suspicious)} assays have units whose medians differ by about a thousand or a million: "
            f"see {arguments.output / 'unit_warnings.json'}"
        )
    return {**outcome, "unit_warnings": len(found.suspicious)}


def report_import(tables: Mapping[str, Imported], output: Path, *, profile: str) -> dict[str, Any]:
    """Show what was read, what was set aside and why, and what to do next."""
    rows = []
    for name, table in tables.items():
        found = table.report
        rows.append([name, found.rows_read, found.rows_accepted, found.rows_quarantined])
    print_table(("table", "read", "accepted", "set aside"), rows)
    reasons = {
        f"{f.rule} of {f.column}": f.count for t in tables.values() for f in t.report.findings if f.count
    }
    for reason, count in reasons.items():
        print(f"  {count:>8}  {reason}")
    print(f"\nwhich rows:  {output / 'quarantine'}")
    print(f"prepare:     motet prepare --directory {output} --profile {profile} --output prepared")
    return {"imported": {name: str(table.path) for name, table in tables.items()}, "set_aside": reasons}
