"""``motet runs``: what ran here, and how it ended.

Why: a person finds a run, its model and its pictures again without knowing the directories.
Runs: on one machine. Source: own.
"""

import argparse
from typing import Any

from data_contracts.errors import SettingsError
from flows.cli.tables import print_table
from flows.run_directory import RunDirectory, list_runs


def runs(arguments: argparse.Namespace) -> dict[str, Any]:
    """List all runs under the home, oldest first."""
    found = [_row(run) for run in list_runs(arguments.home)]
    if not found:
        print(f"no runs under {arguments.home}; `motet run` makes one")
    else:
        columns = ("run", "state", "data", "partners", "seed", "rounds", "hidden", "uplift AUPRC")
        print_table(columns, [[row[column] for column in columns] for row in found])
    return {"runs": found}


def _row(run: RunDirectory) -> dict[str, Any]:
    result = run.result
    try:
        settings = run.settings
    except SettingsError:
        unknown = dict.fromkeys(("data", "partners", "seed", "rounds", "hidden", "uplift AUPRC"))
        return {"run": run.run_id, "state": "of another version of motet", **unknown}
    state = "finished" if result else "running" if run.is_held else "stopped: `motet run` resumes it"
    uplift = (result or {}).get("consortium", {}).get("uplift_auprc")
    return {
        "run": run.run_id,
        "state": state,
        "data": settings.data + (" (control: permuted labels)" if settings.permuted_labels else ""),
        "partners": settings.partners,
        "seed": settings.seed,
        "rounds": settings.rounds,
        "hidden": settings.hidden,
        "uplift AUPRC": uplift,
    }
