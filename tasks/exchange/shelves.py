"""A mailbox as its operator sees it: envelopes, blobs, when they came, and nothing that they hold.

Why: making room needs no key and no trust. Runs: on whoever operates the mailbox. Source: own.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from data_contracts.envelope import Kind, Slot


class Posted(NamedTuple):
    """An envelope as it lies in a mailbox: its slot, when it came (seconds since 1970), its bytes."""

    slot: Slot
    at: float
    data: bytes


class Stored(NamedTuple):
    """A blob as it lies in a mailbox: shelf, name (a sealed one's begins with its run), when it came, its size."""

    shelf: str
    name: str
    at: float
    n_bytes: int


class Shelves(Protocol):
    """A mailbox as its operator sees it."""

    def envelopes(self) -> Iterator[Posted]:
        """All messages."""
        ...

    def stored(self) -> Iterator[Stored]:
        """All blobs."""
        ...

    def remove(self, blob: Stored) -> None:
        """Remove a blob."""
        ...


def slot_of(path: str) -> Slot | None:
    """The slot of ``<run>/r<round>-a<attempt>/<kind>/<sender>.json``; None if the path is no message's."""
    try:
        run_id, step, kind, name = path.split("/")
        round_text, attempt_text = step.removeprefix("r").split("-a")
        return Slot(run_id, int(round_text), int(attempt_text), Kind(kind), name.removesuffix(".json"))
    except ValueError:
        return None
