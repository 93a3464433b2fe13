"""A copy of a run's messages, for whoever verifies it later and without the mailbox.

Why: a mailbox drops old masked vectors and ended models; an auditor that copies while the run lasts can repeat all of it.
Runs: on an auditor; anywhere that the mailbox can be read. Source: own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from data_contracts.envelope import COORDINATOR_KINDS, Envelope, Kind, Slot
from data_contracts.errors import ProtocolError
from data_contracts.references import BlobReference
from tasks.exchange.blob_store import BlobStore
from tasks.exchange.board import Board, authentic
from tasks.exchange.mailbox import DirectoryMailbox
from tasks.rounds.committed import plan_at

NAMING_BLOBS = (Kind.PLAN, Kind.RESULT, Kind.RUN_CLOSED)
COPIED = "copied@1"


@dataclass(frozen=True)
class Copied:
    """What a copy holds.

    Attributes:
        rounds: Rounds that have a plan.
        messages: Messages copied now.
        blob_bytes: Bytes of bodies and models copied now.
        missing: Bodies and models that the mailbox does not hold (any more).
        refused: Messages that their alleged sender did not sign.
    """

    rounds: int
    messages: int
    blob_bytes: int
    missing: int
    refused: int


class Transcript:
    """Copies one run.

    Args:
        board: The mailbox as its reader sees it.
        copy: Where the copy lies; what it holds is not fetched again.
    """

    def __init__(self, board: Board, copy: DirectoryMailbox) -> None:
        self._board = board
        self._copy = copy
        self._messages = self._blob_bytes = self._missing = self._refused = 0

    def take(self) -> Copied:
        """Copy what the copy does not hold yet."""
        rounds = 0
        self._copy_step(0, 0)
        while self._copy_round(rounds):
            rounds += 1
        return Copied(rounds, self._messages, self._blob_bytes, self._missing, self._refused)

    def _copy_round(self, round_number: int) -> bool:
        attempt = 0
        while plan_at(self._board, round_number, attempt) is not None:
            self._copy_step(round_number, attempt)
            attempt += 1
        return attempt > 0

    def _copy_step(self, round_number: int, attempt: int) -> None:
        roster = self._board.roster
        for kind in Kind:
            for sender in (roster.coordinator,) if kind in COORDINATOR_KINDS else roster.partners:
                self._copy_message(Slot(self._board.run_id, round_number, attempt, kind, sender))

    def _copy_message(self, slot: Slot) -> None:
        data = self._copy.read(slot)
        if data is None:
            data = self._board.mailbox.read(slot)
            if data is None:
                return
            try:
                authentic(data, slot=slot, roster=self._board.roster)
            except ProtocolError:
                self._refused += 1
                return
            self._copy.post(slot, data)
            self._messages += 1
            self._blob_bytes += len(Envelope.from_bytes(data, slot=slot).body or b"")
        mailbox = self._board.mailbox
        envelope = authentic(data, slot=slot, roster=self._board.roster)
        here = envelope.inline is not None or self._copy_blob(
            envelope.head.body, source=mailbox.bodies, who=slot.sender
        )
        if here and slot.kind in NAMING_BLOBS:
            message = self._board.read_slot(slot, plan_digest=None)
            for reference in named_blobs(message.json() if message is not None else None):
                self._copy_blob(reference, source=mailbox.blobs, who=slot.sender)

    def _copy_blob(self, reference: BlobReference, *, source: BlobStore, who: str) -> bool:
        """Copy a body as it lies in the mailbox, or a model as it is read."""
        if reference in self._copy.blobs:
            return True
        try:
            found = source.open(reference, who=who)
        except ProtocolError:
            self._missing += 1
            return False
        self._copy.blobs.put([found], contract=reference.contract)
        self._blob_bytes += reference.bytes
        return True


def named_blobs(value: Any) -> Iterator[BlobReference]:
    """Every blob that a plan or an outcome names, also as a pair of ``<name>_sha256`` and ``<name>_bytes``."""
    if isinstance(value, list):
        for item in value:
            yield from named_blobs(item)
    if not isinstance(value, dict):
        return
    candidates = [value]
    for name, digest in value.items():
        if name.endswith("_sha256") and digest:
            size = value.get(f"{name.removesuffix('_sha256')}_bytes")
            candidates.append({"sha256": digest, "bytes": size, "contract": COPIED})
    for candidate in candidates:
        try:
            yield BlobReference.model_validate(candidate)
        except ValidationError:
            continue
    for item in value.values():
        yield from named_blobs(item)
