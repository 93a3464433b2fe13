"""Prefect's own server, except that its background worker looks and beats every few seconds, not several times a second.

Why: a site idles for weeks beside a partner's other work, and those loops, whose pace Prefect lets nobody set, were two
thirds of what it cost. Runs: on every site, as the factory that uvicorn calls. Source: own, measured: decision 0042.
"""

import functools
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING

from prefect.server.api import background_workers, server

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOK_EVERY = timedelta(seconds=5)
CHECK_EVERY = timedelta(seconds=2)  # also how long a burst of work waits for a free slot
BEAT_EVERY = timedelta(seconds=30)


def create_app() -> "FastAPI":
    """Make Prefect's server; where another version of it knows no such names, unchanged."""
    _calm(background_workers, "Worker", minimum_check_interval=CHECK_EVERY, scheduling_resolution=LOOK_EVERY)
    _calm(server, "Docket", heartbeat_interval=BEAT_EVERY)
    return server.create_app()


def _calm(module: ModuleType, name: str, **paces: timedelta) -> None:
    """Let what a module makes under a name run at other paces than its own."""
    maker = getattr(module, name, None)
    if maker is not None:
        setattr(module, name, functools.partial(maker, **paces))
