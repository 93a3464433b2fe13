"""Running a flow from the command line: its log lines, its cause of failure, and Prefect's last records.

Why: `motet run`, `motet lead` and `motet join` end in the same way. Runs: on every site. Source: own.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.causes import named_cause
from flows.services import prefect_server

DRAIN_SECONDS = 30.0


def perform(flow_run: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a flow to its end; to be called within ``prefect_with``.

    Args:
        flow_run: Calls the flow.
    """
    try:
        return asyncio.run(flow_run())
    except BaseExceptionGroup as group:
        raise named_cause(group) from None
    finally:
        _tell_prefect_all()


def _tell_prefect_all() -> None:
    """Hand the last states and log lines to the Prefect server, which may stop with this command."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=DRAIN_SECONDS)
    APILogWorker.drain_all(timeout=DRAIN_SECONDS)


@contextlib.contextmanager
def prefect_with(home: Path, flows: str, *, verbose: bool) -> Iterator[None]:
    """Have a Prefect server in the environment; a module of flows is imported while it starts.

    Args:
        home: The site's home.
        flows: Name of the module; what it imports takes seconds, and must find the environment set.
        verbose: Show Prefect's own lines too.
    """

    def load(environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "ERROR")
        importlib.import_module(flows)

    with prefect_server(home, meanwhile=load):
        yield


def log_to_terminal(*, verbose: bool) -> None:
    """Show motet's own lines."""
    logger = logging.getLogger("motet")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
