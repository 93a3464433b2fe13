"""Arguments of the commands about a partner's own data: import, prepare, explain.

Why: the parser of all commands stays short. Runs: anywhere. Source: own.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

Add = Callable[..., argparse.ArgumentParser]


def add_data_commands(commands: Any, shared: argparse.ArgumentParser, add: Add) -> None:
    """Add ``prepare`` and ``explain``."""
    prepare = add(
        commands,
        shared,
        "prepare",
        "prepare your own files by a profile, and write the data report",
        handler="flows.cli.explain:prepare",
        example="motet prepare --directory imported --profile melloddy --output prepared",
    )
    prepare.add_argument("--directory", type=Path, help="what `motet import melloddy|long` wrote")
    for name in ("assays", "activities", "structures", "catalogue"):
        prepare.add_argument(f"--{name}", type=Path, help=f"your {name} (Parquet, Arrow or CSV)")
    prepare.add_argument(
        "--profile", default="simple", help="simple (default), melloddy, or a YAML file of your own rules"
    )
    prepare.add_argument(
        "--secret",
        type=Path,
        help="file with the consortium's 32-byte secret (default: one of your own under --home)",
    )
    prepare.add_argument("--output", type=Path, required=True, help="the prepared directory")
    prepare.add_argument("--workers", type=int, default=2, help="featurization processes (default: 2)")
    add_dask(prepare)
    explain = add(
        commands,
        shared,
        "explain",
        "say why an endpoint is not trained, why a row was set aside, and how many fell at which rule",
        handler="flows.cli.explain:explain",
        example="motet explain prepared --endpoint 'ASSAY-1>=6.5' --row activities:17",
    )
    explain.add_argument("prepared", type=Path, help="a prepared directory, or the OUTPUT-refused beside it")
    explain.add_argument("--endpoint", help="an endpoint, or an assay")
    explain.add_argument("--row", help="TABLE:NUMBER, 0 is the first data row, such as activities:17")


def add_dask(command: Any) -> None:
    """Add where structures are featurized."""
    command.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="featurize on a Dask cluster: tcp://HOST:PORT or tls://HOST:PORT of its scheduler, or `local`",
    )


def add_own_formats(formats: Any, shared: argparse.ArgumentParser, add: Add) -> None:
    """Add ``import melloddy`` and ``import long``."""
    melloddy = add(
        formats,
        shared,
        "melloddy",
        "files prepared for MELLODDY, by their original headers",
        handler="flows.cli.importing:melloddy",
        example="motet import melloddy --t0 T0.csv --t1 T1.csv --t2 T2.csv --t-cat T_cat.csv --output imported",
    )
    for name, text in (("t0", "assays"), ("t1", "activities"), ("t2", "structures")):
        melloddy.add_argument(f"--{name}", type=Path, required=True, help=f"{text} (CSV, Parquet or Arrow)")
    melloddy.add_argument("--t-cat", type=Path, help="the catalogue of commercial panels")
    melloddy.add_argument("--output", type=Path, required=True, help="directory for the imported tables")
    long = add(
        formats,
        shared,
        "long",
        "an extract with one measurement a row: value, unit, relation, measurement_type",
        handler="flows.cli.importing:long",
        example="motet import long activities.csv --structures structures.csv --output imported",
    )
    long.add_argument("file", type=Path, help="CSV, Parquet or Arrow; see `motet contracts long`")
    long.add_argument("--structures", type=Path, required=True, help="see `motet contracts structures`")
    long.add_argument("--output", type=Path, required=True, help="directory for the imported tables")
