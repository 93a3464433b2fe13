"""``motet prepare`` and ``motet explain``: what became of a partner's data, and why.

Why: a row or an endpoint that is missing must have a reason that a person can look up. Runs: on the partner; what it
prints are the partner's own names, on its own terminal. Source: own.
"""

import argparse
import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_contracts.catalogue import ENDPOINTS
from data_contracts.errors import SettingsError
from data_contracts.quarantine import QUARANTINE
from data_contracts.writing import read_table
from flows.cli.performing import perform, prefect_with
from flows.cli.tables import print_table
from tasks.exchange.identity import secret_file
from tasks.featurization.preparation import PartnerFiles, prepare_dataset
from tasks.featurization.preparation_rules import rules_of
from tasks.featurization.prepared import EXCLUDED, PAGE, QUARANTINE_DIRECTORY, REPORT, PreparedDataset

TABLES = ("assays", "activities", "structures", "catalogue")
SIMILAR_NAMES = 5
MEANINGS = {
    "type": "it is no number",
    "required": "it is empty",
    "known_in": "the table that it refers to has no such name",
    "unique": "an earlier row has the same",
    "between_when": "a concentration must be above zero",
    "unknown structure": "its structure was set aside: ask for that row of structures",
    "not credible": "the value lies outside what the profile believes of this assay type",
    "not binary": "a binary assay knows 1 and -1 only",
}
OWN_SECRET = "preparation_secret"  # noqa: S105 - a file name


def prepare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Prepare a partner's files.

    Raises:
        SettingsError: If a file is missing from the arguments.
    """
    paths: dict[str, Any] = {
        name: getattr(arguments, name) or _in_directory(arguments.directory, name) for name in TABLES
    }
    missing = [name for name in TABLES[:3] if paths[name] is None]
    if missing:
        raise SettingsError(
            f"got no {' and no '.join(missing)}; expected --directory, or one option for each table"
        )
    if arguments.secret is not None and not arguments.secret.is_file():
        raise SettingsError(
            f"got no secret file '{arguments.secret.name}'; expected the one that your consortium shares"
        )
    arguments.home.mkdir(parents=True, exist_ok=True)
    prepared = _prepare_anywhere(
        arguments,
        files=PartnerFiles(**paths),
        consortium_secret=secret_file(arguments.secret or arguments.home / OWN_SECRET),
        output=arguments.output.resolve(),
        workers=arguments.workers,
        rules=rules_of(arguments.profile),
    )
    _print_fallen(prepared.report)
    print(f"\nread more:   {prepared.directory / PAGE}\nask why:     motet explain {prepared.directory}")
    return {"prepared": str(prepared.directory), **prepared.report}


def _prepare_anywhere(arguments: argparse.Namespace, **given: Any) -> PreparedDataset:
    """Prepare on this machine, or have the structures featurized on a Dask cluster."""
    if arguments.dask is None:
        return prepare_dataset(**given)
    with prefect_with(arguments.home.resolve(), "flows.cluster", verbose=arguments.verbose):
        from flows.cluster import on_dask

        executor = on_dask(arguments.dask, workers=arguments.workers)

        async def preparation() -> PreparedDataset:
            return await asyncio.to_thread(prepare_dataset, **given, executor=executor)

        found: PreparedDataset = perform(preparation)
        return found


def _in_directory(directory: Path | None, name: str) -> Path | None:
    found = sorted(directory.glob(f"{name}.*")) if directory is not None else []
    return found[0] if found else None


def explain(arguments: argparse.Namespace) -> dict[str, Any]:
    """Explain a prepared directory as a whole, one endpoint of it, or one row that it was made from.

    Raises:
        SettingsError: If there is no such directory, endpoint or table.
    """
    directory: Path = arguments.prepared
    if not directory.is_dir():
        raise SettingsError(
            f"got no directory '{directory.name}'; expected one that `motet prepare` or a run wrote"
        )
    if arguments.row is not None:
        return _explain_row(directory, arguments.row)
    if arguments.endpoint is not None:
        return _explain_endpoint(directory, arguments.endpoint)
    report = _read(directory / REPORT)
    _print_fallen(report)
    return {"report": report}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise SettingsError(
            f"got no readable {path.name}; expected a directory that was prepared",
            advice="a refused file has only a quarantine: ask with --row",
        ) from None


def _print_fallen(report: Mapping[str, Any]) -> None:
    """Print how many rows fell at which rule, and how many endpoints are not trained for which reason."""
    rows = []
    for file in report["files"]:
        table, counts = file["contract"].split("@")[0], file["rows"]
        rows.append([table, "read", counts["read"]])
        rows += [[table, f"{rule['rule']} of {rule['column']}", rule["count"]] for rule in file["rules"]]
        rows.append([table, "accepted", counts["accepted"]])
    rows += [
        ["endpoints", f"not trained: {why}", n] for why, n in report["endpoints"]["excluded"].items() if n
    ]
    rows.append(["endpoints", "trained", report["endpoints"]["prepared"]])
    rows.append(["endpoints", "of them in means", report["endpoints"]["in_evaluation"]])
    print_table(("table", "what happened", "rows"), rows)


def _explain_endpoint(directory: Path, name: str) -> dict[str, Any]:
    """Say what became of an endpoint, or of all endpoints of an assay."""
    trained, excluded = (
        read_table(directory / "endpoints.arrow", ENDPOINTS).to_pylist(),
        _read(directory / EXCLUDED),
    )
    kept = [row for row in trained if name in (row["endpoint_id"], row["assay_id"])]
    left_out = [row for row in excluded if name in (row["endpoint"], row["assay"])]
    if not kept and not left_out:
        assays = {row["assay_id"] for row in trained} | {row["assay"] for row in excluded}
        similar = sorted(assay for assay in assays if name.lower() in assay.lower())[:SIMILAR_NAMES]
        if similar:
            print(f"assays with such a name: {', '.join(similar)}")
        raise SettingsError(
            "there is no such endpoint or assay; `motet explain` without --endpoint counts them all"
        )
    for row in kept:
        means = "and enters means" if row["in_evaluation"] else "but enters no means: " + _why_no_means(row)
        print(
            f"{row['endpoint_id']} is trained with {row['n_active']} actives and {row['n_inactive']} inactives, {means}"
        )
    for row in left_out:
        print(f"{row['endpoint']} is not trained: {_why_not(row)}")
    return {"trained": kept, "not_trained": left_out}


def _why_no_means(row: dict[str, Any]) -> str:
    return "it is auxiliary" if row["is_auxiliary"] else "a fold has too few actives or inactives"


def _why_not(row: dict[str, Any]) -> str:
    if row["reason"] != "training quorum":
        return str(row["reason"])
    quorum = row["quorum"]
    asked = f"{quorum['active']} actives and {quorum['inactive']} inactives"
    if quorum["total"]:
        asked += f", {quorum['total']} together"
    return f"{row['n_active']} actives and {row['n_inactive']} inactives; type {row['assay_type']} asks for {asked}"


def _require_row(directory: Path, table: str, number: int) -> None:
    """Refuse a row that the file did not have, where the report says how many it had."""
    if not (directory / REPORT).exists():
        return  # a refused file: it has a quarantine only
    for file in _read(directory / REPORT)["files"]:
        n_rows = file["rows"]["read"]
        if file["contract"].split("@")[0] == table and number >= n_rows:
            raise SettingsError(
                f"got row {number} of {table}, of which {n_rows} rows were read; expected 0 to {n_rows - 1}: "
                "rows count from 0, without the header"
            )


def _explain_row(directory: Path, asked: str) -> dict[str, Any]:
    """Say whether a row of a source file was set aside, and at which rules."""
    table, _, number = asked.partition(":")
    places = (directory / QUARANTINE_DIRECTORY / f"{table}.arrow", directory / f"{table}.arrow")
    path = next((place for place in places if place.exists()), None)
    if path is None or table not in TABLES or not number.isdecimal():
        raise SettingsError(
            f"got --row without a known table and row number; expected one of {', '.join(TABLES)}:NUMBER"
        )
    quarantine = read_table(path, QUARANTINE).to_pylist()
    found = [row for row in quarantine if row["row"] == int(number)]
    _require_row(directory, table, int(number))
    for row in found:
        meaning = f" ({MEANINGS[row['rule']]})" if row["rule"] in MEANINGS else ""
        print(f"row {number} of {table} was set aside: {row['column']} breaks {row['rule']}{meaning}")
    if not found:
        print(f"row {number} of {table} was not set aside (rows count from 0, without the header)")
    return {"table": table, "row": int(number), "set_aside": found}
