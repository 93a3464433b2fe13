"""Trying again while a mailbox is away.

Why: an outage of minutes must end in nothing but a pause, over HTTPS and over object storage alike. Runs: on every
site. Source: own.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from data_contracts.errors import WorkFailed

OUTAGE_SECONDS = 900.0
FIRST_PAUSE_SECONDS = 0.05
LAST_PAUSE_SECONDS = 5.0

Answer = TypeVar("Answer")
Pause = Callable[[float], None]


class NotReachedError(Exception):
    """One attempt that was not answered; its text says how, without an address or a value."""


def until_answered(
    attempt: Callable[[], Answer], *, where: str, outage_seconds: float, pause: Pause = time.sleep
) -> Answer:
    """Ask until there is an answer.

    Args:
        attempt: Asks once.
        where: The mailbox, for the message.
        outage_seconds: How long to go on trying.
        pause: Waits between two attempts.

    Returns:
        The answer.

    Raises:
        WorkFailed: If the mailbox did not answer for ``outage_seconds``.
    """
    waited, next_pause = 0.0, FIRST_PAUSE_SECONDS
    while True:
        try:
            return attempt()
        except NotReachedError as exc:
            if waited >= outage_seconds:
                raise WorkFailed(
                    f"the mailbox at {where} did not answer for {outage_seconds:g} s ({exc})",
                    advice="see `motet doctor`; once it answers, run the same command again: it resumes",
                ) from None
        pause(next_pause)
        waited, next_pause = waited + next_pause, min(2 * next_pause, LAST_PAUSE_SECONDS)
