"""Running a flow from the command line: its log lines, its cause of failure, and Prefect's last records.

Why: `motet run`, `motet lead` and `motet join` end in the same way. Runs: on every site. Source: own.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from flows.causes import named_cause

DRAIN_SECONDS = 30.0


def perform(flow_run: Callable[[], Coroutine[Any, Any, Any]], *, verbose: bool) -> Any:
    """Run a flow to its end; to be called once Prefect's environment stands.

    Args:
        flow_run: Imports Prefect and calls the flow.
        verbose: Show Prefect's own lines too.
    """
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "ERROR")
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


def log_to_terminal(*, verbose: bool) -> None:
    """Show motet's own lines."""
    logger = logging.getLogger("motet")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
