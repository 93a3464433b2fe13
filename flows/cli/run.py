"""``motet run``: a whole consortium on this machine, to registered models.

Why: the one obvious command. Runs: on one machine. Source: own.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_contracts.errors import SettingsError
from flows.cli.earlier import follow, given_settings
from flows.cli.performing import log_to_terminal, perform, prefect_with
from flows.cli.tables import print_table
from flows.run_directory import RunDirectory, open_or_create_run
from flows.settings import RunSettings, settings_from
from tasks.local_training.jobs import Machine

ARMS = ("single", "federated", "pooled")
NAMES = {"auroc": "AUROC", "auprc": "AUPRC", "r2": "R2", "rmse": "RMSE"}
SHOWN = {
    "classes": ("endpoints", ("auroc", "auprc")),
    "numbers": ("regression endpoints", ("r2", "rmse")),
}
KINDS = {
    "classification": ("classes",),
    "regression": ("numbers",),
    "hybrid": ("classes", "numbers"),
}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a consortium, or resume one that was interrupted."""
    log_to_terminal(verbose=arguments.verbose)
    settings = _settings(arguments)
    machine = Machine(device=arguments.device, precision=arguments.precision)
    found = open_or_create_run(
        arguments.home, settings=settings, run_id=arguments.run_id, fresh=arguments.fresh
    )
    if found.is_held:
        raise found.held_already()
    if found.result is None:
        _say(f"run {found.run_id} in {found.path}\nstarting Prefect")
        with prefect_with(found.home, "flows.consortium", verbose=arguments.verbose):
            _perform(found, machine=machine, dask=arguments.dask)
    else:
        _say(f"run {found.run_id} is finished already; this is its result")
    return _report(found)


def _settings(arguments: argparse.Namespace) -> RunSettings:
    given = given_settings(arguments)
    if given["data"] == RunSettings.model_fields["data"].default:
        given["data"] = None
    if given["data"] is not None and (arguments.activities or arguments.structures or arguments.partners):
        raise SettingsError(
            "--data names companies that were made before; --partners, --activities and --structures make new ones",
            advice="give --data alone, or leave it out",
        )
    if arguments.activities or arguments.structures:
        given["data"] = _import_own_files(arguments)
    elif given["data"] is not None:
        given["data"] = str(Path(str(given["data"])).resolve())
    if given["data"] is not None:
        from tasks.simulation.datasets import open_dataset

        given["partners"] = len(open_dataset(Path(str(given["data"]))).partners)
    home = Path(arguments.home).resolve()
    return settings_from(follow(given, home, RunDirectory(home / "runs" / "none").earlier()))


def _import_own_files(arguments: argparse.Namespace) -> str:
    from flows.cli.importing import own_files

    if not (arguments.activities and arguments.structures):
        raise SettingsError("--activities and --structures belong together; give both")
    return str(own_files(arguments).path.resolve())


def _perform(found: RunDirectory, *, machine: Machine, dask: str | None) -> None:
    """Run the flow, within ``prefect_with``."""

    async def consortium_run() -> Any:
        from flows.consortium import consortium

        return await consortium(
            run_id=found.run_id, settings=found.settings, home=str(found.home), machine=machine, dask=dask
        )

    perform(consortium_run)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _metrics(uplift: dict[str, Any]) -> dict[str, Any]:
    """All that a partner compared, classes and numbers."""
    return {**uplift["metrics"], **uplift.get("regression_metrics", {})}


def _cells(metrics: dict[str, Any], names: Sequence[str], arms: Sequence[str]) -> list[Any]:
    """Each metric of each arm, then uplift and RIPtoP of the last; empty where nothing could be compared."""
    if any(name not in metrics for name in names):
        return [None] * (len(names) * len(arms) + 2)
    last = metrics[names[-1]]
    return [
        *(metrics[name]["arms"][arm]["value"] for name in names for arm in arms),
        last["uplift"]["value"],
        f"{100 * last['riptop']['value']:+.1f} %",
    ]


def _report(found: RunDirectory) -> dict[str, Any]:
    """Show each partner's own figures. On one machine one person holds all of them; no other site ever does."""
    result = found.result
    assert result is not None  # noqa: S101 - the flow ended
    partners = {
        path.parent.parent.name: json.loads(path.read_bytes())
        for path in sorted(found.path.glob("partners/*/results/uplift.json"))
    }
    shown = [SHOWN[kind] for kind in KINDS[result.get("modality", "classification")]]
    compared = [metric for uplift in partners.values() for metric in _metrics(uplift).values()]
    arms = [arm for arm in ARMS if all(arm in metric["arms"] for metric in compared)]
    columns = ["partner"]
    for counted, names in shown:
        columns += [counted, *(f"{NAMES[name]} {arm}" for name in names for arm in arms)]
        columns += [f"uplift {NAMES[names[-1]]}", "RIPtoP"]
    rows = []
    for name, uplift in partners.items():
        row: list[Any] = [name]
        for counted, names in shown:
            n_endpoints = uplift.get(f"n_{counted.replace(' ', '_')}", 0)
            row += [n_endpoints, *_cells(_metrics(uplift), names, arms)]
        rows.append(row)
    if result["data"].get("control"):
        print("CONTROL: the labels are permuted, there is nothing to learn and no arm may gain.")
    if result["data"]["simulated_assays"]:
        print("Simulated assays on real molecules: these figures say nothing about any drug.")
    if result.get("phase") in {"tune", "final"}:
        print(
            f"phase {result['phase']}: best round {result['best_round']}, AUPRC {result['validation_auprc']}"
        )
    else:
        print_table(columns, rows)
    print()
    for who, uri in result["models"].items():
        print(f"{who:<12} registered {uri}")
    print(f"\npictures and tables: {found.path}")
    print("look closer:         motet up     (Prefect and MLflow in the browser)")
    return {**result, "partners": partners, "directory": str(found.path)}
