"""``motet up``, ``motet down``, ``motet status``: Prefect, MLflow and the served deployment on this machine.

Why: whoever wants to look closer needs both interfaces at once, and no orphan afterwards.
Runs: on every site. Source: own.
"""

import argparse
from typing import Any

from flows import services
from flows.cli.run_status import show_runs
from flows.cli.tables import print_table
from flows.services import Service


def up(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start what is not running yet, and say where to look."""
    outcome = services.up(
        arguments.home, prefect_port=arguments.prefect_port, mlflow_port=arguments.mlflow_port
    )
    _show(outcome.services)
    print(
        f"\nstart a run from the Prefect page, or:  prefect deployment run {services.deployment_of(arguments.home)}"
    )
    print("stop them all:                          motet down")
    return {"started": list(outcome.changed), "services": _as_json(outcome.services)}


def down(arguments: argparse.Namespace) -> dict[str, Any]:
    """Stop what ``up`` started."""
    outcome = services.down(arguments.home)
    _show(outcome.services)
    return {"stopped": list(outcome.changed), "services": _as_json(outcome.services)}


def status(arguments: argparse.Namespace) -> dict[str, Any]:
    """Say how each service stands, and at a site each run."""
    found = services.status(arguments.home)
    _show(found)
    return {"services": _as_json(found), "runs": show_runs(arguments.home, arguments.run)}


def _show(found: tuple[Service, ...]) -> None:
    rows = [
        [service.name, service.state, str(service.pid or "-"), service.url or "-", str(service.log)]
        for service in found
    ]
    print_table(("service", "state", "pid", "address", "log"), rows)


def _as_json(found: tuple[Service, ...]) -> list[dict[str, Any]]:
    return [
        {
            "name": service.name,
            "state": service.state,
            "pid": service.pid,
            "url": service.url,
            "log": str(service.log),
        }
        for service in found
    ]
