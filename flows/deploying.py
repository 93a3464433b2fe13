"""Register the deployments of a home with its Prefect, as ``deployments/<role>/prefect.yaml`` says.

Why: one file says where and when; a served flow runs the code installed here, while a worker would run whatever
the server names. Runs: on every site, for a moment, started by `motet up`; then the same process becomes ``flows.serving``,
without what the flows import. Source: own; background/prefect_mlflow.md §2.
"""

import importlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # PyYAML ships no types
from prefect import Flow
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Schedule
from prefect.types.entrypoint import EntrypointType

import deployments
from data_contracts.errors import MotetError, SettingsError
from flows.automations import ROUND_SECONDS, install
from flows.site_directory import open_site
from flows.site_settings import role_at

logger = logging.getLogger("motet")

DEPLOYMENTS = Path(deployments.__path__[0])


def prefect_yaml(home: Path) -> Path:
    """The file that says what a home serves: that of its role, or of everybody on one machine."""
    return DEPLOYMENTS / (role_at(home) or "single_machine") / "prefect.yaml"


def read_deployments(path: Path) -> list[dict[str, Any]]:
    """Read the deployments of a ``prefect.yaml``.

    Raises:
        SettingsError: If a deployment pulls code from elsewhere; a site runs what is installed there.
    """
    content = yaml.safe_load(path.read_text())
    if content.get("pull") != []:
        raise SettingsError(
            f"'{path.name}' of '{path.parent.name}' must say `pull: []`: code is never pulled"
        )
    return list(content["deployments"])


def flow_of(entrypoint: str) -> Flow[..., Any]:
    """Import the flow behind an entrypoint such as ``flows/consortium.py:consortium``.

    Raises:
        SettingsError: If it names no flow of this package.
    """
    file, _, name = entrypoint.partition(":")
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    flow = getattr(module, name, None)
    if not isinstance(flow, Flow):
        raise SettingsError(f"entrypoint '{entrypoint}' of a prefect.yaml names no flow")
    return flow


def make_deployment(described: dict[str, Any], *, parameters: dict[str, Any]) -> RunnerDeployment:
    """Make one deployment.

    Args:
        described: Its part of a ``prefect.yaml``.
        parameters: Further parameters, such as this machine's home.

    Returns:
        What Prefect serves.
    """
    deployment = flow_of(described["entrypoint"]).to_deployment(
        name=described["name"],
        description=described.get("description"),
        tags=described.get("tags"),
        version=described.get("version"),
        parameters={**described.get("parameters", {}), **parameters},
        schedules=[Schedule(**schedule) for schedule in described.get("schedules", [])],
        concurrency_limit=ConcurrencyLimitConfig.model_validate(described["concurrency_limit"]),
        entrypoint_type=EntrypointType.MODULE_PATH,  # a file path would show this machine's directories
    )
    if not isinstance(deployment, RunnerDeployment):  # a coroutine, had an event loop been running
        raise TypeError("deployments are made outside of an event loop")
    return deployment


def _install_automations(home: Path) -> None:
    """Install what the site's Prefect does by itself; without it the site still serves."""
    try:
        site = open_site(home).settings if role_at(home) else None
        block, seconds = (site.notification_block, site.alarm_seconds) if site else (None, ROUND_SECONDS)
        logger.info(
            "automations brought up to date: %s", install(notification_block=block, round_seconds=seconds)
        )
    except Exception as exc:  # noqa: BLE001 - a site serves without them
        logger.warning(
            "automations are not installed: %s", exc if isinstance(exc, MotetError) else type(exc).__name__
        )


def main(arguments: list[str]) -> None:
    """Register, then serve: ``python -m flows.deploying HOME``."""
    (home,) = arguments
    os.umask(0o077)
    own = {"site": home} if role_at(Path(home)) else {"home": home}
    made = [make_deployment(each, parameters=own) for each in read_deployments(prefect_yaml(Path(home)))]
    _install_automations(Path(home))
    known = [
        {"name": each.name, "flow_name": each.flow_name, "registered_as": str(each.apply())} for each in made
    ]
    os.execv(sys.executable, [sys.executable, "-P", "-m", "flows.serving", json.dumps(known)])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
