"""Making room in a mailbox: the large bodies of runs that ended long ago.

Why: an append-only board grows for ever. What a run said stays as signed envelopes, and so do its small bodies; the
masked vectors, shares and models of a run go once its coordinator has closed it and a retention time has passed.
Runs: on whoever operates the mailbox; it needs no key. Source: own; mark and sweep.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from data_contracts.envelope import APART_KINDS, Envelope, Kind, Slot
from data_contracts.errors import ProtocolError
from tasks.exchange.board import authentic
from tasks.exchange.https_addresses import BODIES
from tasks.exchange.identity import Roster
from tasks.exchange.shelves import Posted, Shelves

DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Collected:
    """What was found.

    Attributes:
        ended: Runs whose large bodies go or are gone.
        kept: Runs that are unfinished, or were closed too recently.
        removed: How many blobs went.
        n_bytes: How many bytes they had.
    """

    ended: tuple[str, ...]
    kept: tuple[str, ...]
    removed: int
    n_bytes: int


def collect(shelves: Shelves, *, roster: Roster, now: float, keep_days: float) -> Collected:
    """Remove what no run needs any more; nothing of a run that its coordinator has not closed.

    A blob goes if it came before the retention time and is a model of an ended run, or a large body that only ended runs
    announced, or a body that nobody announced (what a broken connection left).

    Args:
        shelves: The mailbox.
        roster: Whose closing counts.
        now: The time, in seconds since 1970.
        keep_days: How long everything stays after a run was closed.

    Returns:
        What was found and removed.
    """
    limit = now - keep_days * DAY_SECONDS
    runs = _by_run(shelves.envelopes())
    ended = {name for name, posted in runs.items() if _ended_before(limit, posted, roster)}
    kept = runs.keys() - ended
    spoken_of = {
        each.body
        for name, posted in runs.items()
        for each in posted
        if name in kept or each.slot.kind not in APART_KINDS
    }
    removed = [
        blob
        for blob in shelves.stored()
        if blob.at < limit
        and (blob.name not in spoken_of if blob.shelf == BODIES else blob.name.partition("/")[0] not in kept)
    ]
    for blob in removed:
        shelves.remove(blob)
    n_bytes = sum(blob.n_bytes for blob in removed)
    return Collected(tuple(sorted(ended)), tuple(sorted(kept)), len(removed), n_bytes)


@dataclass(frozen=True)
class _Spoken:
    """What is remembered of an envelope: a mailbox of months has many, so only closings are kept whole."""

    slot: Slot
    at: float
    body: str
    data: bytes

    @classmethod
    def of(cls, posted: Posted) -> "_Spoken":
        try:  # whatever names a body keeps it, also a message that this version would not count
            body = Envelope.model_validate_json(posted.data).head.body.sha256
        except ValidationError:
            body = ""
        closes = posted.slot.kind is Kind.RUN_CLOSED
        return cls(posted.slot, posted.at, body, posted.data if closes else b"")


def _by_run(envelopes: Iterator[Posted]) -> dict[str, list[_Spoken]]:
    runs: dict[str, list[_Spoken]] = {}
    for posted in envelopes:
        runs.setdefault(posted.slot.run_id, []).append(_Spoken.of(posted))
    return runs


def _ended_before(limit: float, posted: Sequence[_Spoken], roster: Roster) -> bool:
    """Whether the coordinator has closed a run, and everything of it came before the limit."""
    closings = [each for each in posted if each.slot.kind is Kind.RUN_CLOSED]
    return max(each.at for each in posted) < limit and any(_is_authentic(each, roster) for each in closings)


def _is_authentic(closing: _Spoken, roster: Roster) -> bool:
    try:
        authentic(closing.data, slot=closing.slot, roster=roster)
    except ProtocolError:
        return False
    return True
