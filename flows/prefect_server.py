"""Prefect's own server, except that its background worker looks for work every few seconds, not four times a second.

Why: a site idles for weeks beside a partner's other work, and that one loop, which Prefect lets nobody set, was two thirds
of what it cost. Runs: on every site, as the factory that uvicorn calls. Source: own, measured: decision 0042.
"""

import functools
from datetime import timedelta
from typing import TYPE_CHECKING

from prefect.server.api import background_workers
from prefect.server.api.server import create_app as create_prefect

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOK_EVERY = timedelta(seconds=5)


def create_app() -> "FastAPI":
    """Make Prefect's server; where another version of it knows no such worker, unchanged."""
    worker = getattr(background_workers, "Worker", None)
    if worker is not None:
        calmer = functools.partial(
            worker, minimum_check_interval=LOOK_EVERY, scheduling_resolution=LOOK_EVERY
        )
        setattr(background_workers, "Worker", calmer)  # noqa: B010 - a name of another package
    return create_prefect()
