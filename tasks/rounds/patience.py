"""Waiting for messages: how often to look, and how long.

Why: the mailbox is passive, so every party polls; one place decides the pace, and looks beside the event loop,
because a mailbox out of reach answers after minutes. Runs: on every site. Source: own.
"""

import asyncio
import contextvars
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from data_contracts.envelope import Kind
from tasks.exchange.arrivals import listening

GROWTH = 1.4  # a message that took a while to come then lies unseen for about a third of it at most, with 2 for half
MAILBOX_THREADS = 4  # each keeps a connection of its own, and a mailbox takes few from each party
_POOL = ThreadPoolExecutor(MAILBOX_THREADS, thread_name_prefix="mailbox")

Found = TypeVar("Found")
Answer = TypeVar("Answer")


async def beside(ask: Callable[[], Answer]) -> Answer:
    """Ask the mailbox in one of its few threads, so that the event loop goes on; logs keep their context."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_POOL, lambda: context.run(ask))


@dataclass(frozen=True)
class Patience:
    """How a party waits.

    Attributes:
        deadline_seconds: Give up after this long.
        first_look_seconds: First pause between two looks; it grows by ``GROWTH`` up to ``last_look_seconds``.
        last_look_seconds: Longest pause between two looks.
    """

    deadline_seconds: float
    first_look_seconds: float = 0.004
    last_look_seconds: float = 0.2

    async def until(self, look: Callable[[], Found | None], *, kinds: Collection[Kind] = ()) -> Found | None:
        """Call ``look``, beside the event loop, until it finds something.

        Args:
            look: Looks once.
            kinds: What it looks for; a message of such a kind that is posted from this process ends the pause.

        Returns:
            What it found, or None if the deadline passed first.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.deadline_seconds
        pause = self.first_look_seconds
        with listening(kinds) as posted:
            while True:
                posted.clear()
                if (found := await beside(look)) is not None:
                    return found
                if (left := deadline - loop.time()) <= 0:
                    return None
                try:
                    async with asyncio.timeout(min(pause, left)):
                        await posted.wait()
                except TimeoutError:
                    pause = min(pause * GROWTH, self.last_look_seconds)
