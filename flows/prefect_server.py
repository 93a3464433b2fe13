"""Prefect's own server, except that its background worker looks and beats every few seconds, not several times a second.

Why: a site idles for weeks beside a partner's other work, and those loops, whose pace Prefect lets nobody set, were two
thirds of what it cost. Runs: on every site, as the factory that uvicorn calls. Source: own, measured: decision 0042.
"""

import asyncio
import contextlib
import functools
import importlib
import queue
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any

import uvicorn
from prefect.server.api import background_workers, server

if TYPE_CHECKING:
    from fastapi import FastAPI

Wait = Callable[[Any, float | None], Awaitable[Any]]

LOOK_EVERY = timedelta(seconds=5)
CHECK_EVERY = timedelta(seconds=2)  # also how long a burst of work waits for a free slot
BEAT_EVERY = timedelta(seconds=30)
LISTEN_EVERY_SECONDS = 1.0  # for word that a piece of background work is to be cancelled
TICK_EVERY_SECONDS = 1.0  # how long the server takes to hear that it shall end


def create_app() -> "FastAPI":
    """Make Prefect's server; where another version of it knows no such names, unchanged."""
    _calm(background_workers, "Worker", minimum_check_interval=CHECK_EVERY, scheduling_resolution=LOOK_EVERY)
    _calm(server, "Docket", heartbeat_interval=BEAT_EVERY)
    with contextlib.suppress(ImportError, AttributeError):
        # What docket listens to in one process.
        listener = importlib.import_module("burner_redis.pubsub").PubSub
        listener._queue_get = _listening_calmly(listener._queue_get)  # noqa: SLF001 - its pace is fixed in it
    if hasattr(uvicorn.Server, "main_loop") and hasattr(uvicorn.Server, "on_tick"):
        uvicorn.Server.main_loop = _tick  # type: ignore[method-assign,assignment]  # ten ticks a second otherwise
    return server.create_app()


async def _tick(serving: uvicorn.Server) -> None:
    """Uvicorn's loop beside its requests: whether it shall end, and the date that its answers bear."""
    while not await serving.on_tick(0):  # noqa: ASYNC110 - a signal sets what it looks at, not an event
        await asyncio.sleep(TICK_EVERY_SECONDS)


def _listening_calmly(waiting_in_a_thread: Wait) -> Wait:
    """Look for a message now and then instead of sending a thread to wait for it ten times a second.

    None is said after the seconds asked for, rounded up to whole paces.
    """

    @functools.wraps(waiting_in_a_thread)
    async def next_message(messages: Any, seconds: float | None) -> Any:
        arrived = getattr(messages, "_queue", None)
        if not isinstance(arrived, queue.Queue):  # not the listener that this was written for
            return await waiting_in_a_thread(messages, seconds)
        deadline = time.monotonic() + (float("inf") if seconds is None else seconds)
        while True:
            with contextlib.suppress(queue.Empty):
                return arrived.get_nowait()
            if time.monotonic() >= deadline:
                return None
            await asyncio.sleep(LISTEN_EVERY_SECONDS)

    return next_message


def _calm(module: ModuleType, name: str, **paces: timedelta) -> None:
    """Let what a module makes under a name run at other paces than its own."""
    maker = getattr(module, name, None)
    if maker is not None:
        setattr(module, name, functools.partial(maker, **paces))
