"""A bell for parties that share a process: who waits for a message need not sleep on when it was posted from here.

Why: on one machine several parties wait for each other a dozen times a round, and each pause between two looks is lost.
What counts is the look at the mailbox; the bell only says when. Runs: anywhere. Source: own.
"""

import asyncio
import contextlib
import threading
from collections.abc import Collection, Iterator
from typing import TypeAlias

from data_contracts.envelope import Kind

_Listener: TypeAlias = tuple[asyncio.AbstractEventLoop, asyncio.Event]
_LISTENERS: dict[Kind, set[_Listener]] = {}
_LOCK = threading.Lock()


@contextlib.contextmanager
def listening(kinds: Collection[Kind]) -> Iterator[asyncio.Event]:
    """An event of the running loop that is set whenever this process has posted a message of one of the kinds."""
    event = asyncio.Event()
    listener = (asyncio.get_running_loop(), event)
    with _LOCK:
        for kind in kinds:
            _LISTENERS.setdefault(kind, set()).add(listener)
    try:
        yield event
    finally:
        with _LOCK:
            for kind in kinds:
                _LISTENERS[kind].discard(listener)


def ring(kind: Kind) -> None:
    """Say, from any thread, that a message of a kind now lies in some mailbox."""
    with _LOCK:
        listeners = tuple(_LISTENERS.get(kind, ()))
    for loop, event in listeners:
        with contextlib.suppress(RuntimeError):  # its loop has closed
            loop.call_soon_threadsafe(event.set)
