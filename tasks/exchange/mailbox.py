"""The mailbox: an append-only board of immutable messages, here as a seam and as a directory.

Why: partners connect outwards only, and crash safety rests on messages that are written once. Whoever runs
the mailbox may delay or drop a message, but forges nothing: readers check signatures and digests.
Runs: anywhere. Source: own; first writer wins by ``link(2)``.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from typing_extensions import Buffer

from data_contracts.envelope import MAX_ENVELOPE_BYTES, Envelope, Slot
from data_contracts.errors import Equivocation, ProtocolError
from data_contracts.references import BlobReference
from tasks.exchange.blob_store import BlobStore
from tasks.exchange.durable_files import SCRAP_PREFIX, create_once
from tasks.exchange.https_addresses import BODIES, SEALED
from tasks.exchange.shelves import Posted, Stored, slot_of


class Mailbox(Protocol):
    """Where messages lie: a directory, or a service that others run (``https_mailbox``)."""

    @property
    def bodies(self) -> BlobStore:
        """Bodies of messages by digest, as they were posted."""
        ...

    @property
    def blobs(self) -> BlobStore:
        """Models and lists that plans and outcomes refer to; sealed on the way where the run has a seal."""
        ...

    def put_body(self, chunks: Sequence[Buffer], *, contract: str) -> BlobReference:
        """Store a body before the envelope that announces it."""
        ...

    def post(self, slot: Slot, envelope: bytes) -> None:
        """Write an envelope into its slot; the same bytes again are a no-op.

        Raises:
            Equivocation: If the slot holds another envelope of its own; what is misplaced there gives way.
        """
        ...

    def read(self, slot: Slot) -> bytes | None:
        """Return the envelope in a slot, or None; never more than a little above the size cap."""
        ...

    def runs(self) -> tuple[str, ...]:
        """Names under which anything was posted, sorted."""
        ...


def equivocation(slot: Slot) -> Equivocation:
    """The error of a second, different message."""
    return Equivocation(
        f"'{slot.sender}' has already posted a different '{slot.kind}' for round {slot.round}, "
        f"attempt {slot.attempt}; the first one stands"
    )


def is_misplaced(data: bytes, slot: Slot) -> bool:
    """Whether what lies in a slot is no envelope of that slot: garbage, or another message moved there.

    No reader counts it, so it gives way to the sender's own word; whose signature does not hold is not looked at here.
    """
    try:
        Envelope.from_bytes(data, slot=slot)
    except ProtocolError:
        return True
    return False


def _beginning(path: str | Path) -> bytes:
    """What a file holds, as far as an envelope could reach and one byte more.

    Four system calls where a file object makes nine: each lets another thread run, and waits for it.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        data = b""  # some file systems give less than there is
        while piece := os.read(handle, MAX_ENVELOPE_BYTES + 1 - len(data)):
            data += piece
        return data
    finally:
        os.close(handle)


class DirectoryMailbox:
    """A mailbox in a directory that all parties can reach (one machine, or a shared file system).

    Layout: ``messages/<run>/r<round>-a<attempt>/<kind>/<sender>.json`` and ``blobs/<sha256>``.

    Args:
        root: Directory of the mailbox; created on the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bodies = self.blobs = BlobStore(root / "blobs")

    def _path(self, slot: Slot) -> str:
        step = f"r{slot.round:05d}-a{slot.attempt}"
        return f"{self.root}/messages/{slot.run_id}/{step}/{slot.kind.value}/{slot.sender}.json"

    def put_body(self, chunks: Sequence[Buffer], *, contract: str) -> BlobReference:
        """Store a body before the envelope that announces it."""
        return self.bodies.put(chunks, contract=contract)

    def post(self, slot: Slot, envelope: bytes) -> None:
        """Write an envelope into its slot; the same bytes again are a no-op.

        Raises:
            Equivocation: If the slot holds another envelope of its own; what is misplaced there gives way.
        """
        path = Path(self._path(slot))
        if create_once(path, [envelope]):
            return
        found = self.read(slot)
        if found is not None and found != envelope and is_misplaced(found, slot):
            self._set_aside(path, slot)
            create_once(path, [envelope])
            found = self.read(slot)
        if found != envelope:
            raise equivocation(slot)

    def _set_aside(self, path: Path, slot: Slot) -> None:
        """Make room in a slot, unless its own message has come meanwhile; what lay there stays beside it as evidence."""
        aside = path.with_name(f"{slot.sender}.misplaced-{os.urandom(8).hex()}")
        try:
            path.rename(aside)
        except FileNotFoundError:  # another thread of the sender was faster
            return
        if not is_misplaced(_beginning(aside), slot):
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
            aside.unlink()

    def read(self, slot: Slot) -> bytes | None:
        """Return the envelope in a slot, or None; never more than a little above the size cap."""
        try:
            return _beginning(self._path(slot))
        except FileNotFoundError:
            return None

    def runs(self) -> tuple[str, ...]:
        """Names under which anything was posted, sorted."""
        return tuple(sorted(path.name for path in (self.root / "messages").glob("*") if path.is_dir()))

    def envelopes(self) -> Iterator[Posted]:
        """All messages, as the operator sees them."""
        messages = self.root / "messages"
        for path in messages.rglob("*.json"):
            slot = slot_of(path.relative_to(messages).as_posix())
            if slot is not None:
                yield Posted(slot, path.stat().st_mtime, self.read(slot) or b"")

    def stored(self) -> Iterator[Stored]:
        """All blobs, as the operator sees them."""
        for shelf in (BODIES, SEALED):
            for path in (self.root / shelf).rglob("*"):
                if path.is_file() and not path.name.startswith(SCRAP_PREFIX):
                    found = path.stat()
                    name = path.relative_to(self.root / shelf).as_posix()
                    yield Stored(shelf, name, found.st_mtime, found.st_size)

    def remove(self, blob: Stored) -> None:
        """Remove a blob."""
        (self.root / blob.shelf / blob.name).unlink(missing_ok=True)
