"""A content-addressed store of immutable blobs.

Why: between Prefect tasks and between sites only small references travel; the bytes lie here under their
SHA-256. Runs: anywhere. Source: own; content addressing as in git and OCI.
"""

import hashlib
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from typing_extensions import Buffer

from data_contracts.errors import ProtocolError, UpdateMismatch
from data_contracts.references import BlobReference
from tasks.exchange.durable_files import create_once

READ_BLOCK = 2**20


class BlobStore:
    """Blobs in one directory, each named by its SHA-256.

    Args:
        root: Directory; created on the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, reference: BlobReference) -> Path:
        """Where a blob lies, whether or not it is there."""
        return self.root / reference.sha256

    def __contains__(self, reference: BlobReference) -> bool:
        """Whether a blob of the right size is there (its digest is checked when it is opened)."""
        try:
            return self.path(reference).stat().st_size == reference.bytes
        except FileNotFoundError:
            return False

    def put(self, chunks: Sequence[Buffer], *, contract: str) -> BlobReference:
        """Store the concatenation of ``chunks`` durably; storing the same bytes again is a no-op.

        Args:
            chunks: Buffers, in order; none is copied or joined in memory.
            contract: What the blob holds, as ``name@version``.

        Returns:
            The reference under which it is found again.
        """
        reference = reference_to(chunks, contract=contract)
        if reference not in self:
            self.path(reference).unlink(missing_ok=True)  # a torn file of another size, after a power cut
            create_once(self.path(reference), chunks)
        return reference

    def take_in(
        self, chunks: Iterable[Buffer], *, sha256: str | None, size: int, name: str | None = None
    ) -> bool:
        """Store bytes that somebody announced, as they come; never more than announced, and none that differ.

        Args:
            chunks: The bytes, each piece used once.
            sha256: Announced digest, hexadecimal; None where only whoever opens the bytes can tell.
            size: Announced number of bytes.
            name: Under which name they are stored; by default their digest.

        Returns:
            Whether they were the announced ones; if not, nothing is stored.
        """
        path = self.root / (name or sha256 or "")
        if path.exists() and path.stat().st_size != size:
            path.unlink()  # a torn file of another size, after a power cut
        try:
            create_once(path, _as_announced(chunks, sha256=sha256, size=size))
        except _NotAsAnnouncedError:
            return False
        return True

    def open(self, reference: BlobReference, *, who: str) -> memoryview:
        """Map a blob into memory and check its digest.

        Args:
            reference: What is expected.
            who: The party that announced it, for the error message.

        Returns:
            A read-only view, shape ``(reference.bytes,)``; the file stays mapped while the view lives.

        Raises:
            ProtocolError: If the blob is not there.
            UpdateMismatch: If its bytes are not the announced ones.
        """
        try:
            with self.path(reference).open("rb") as file:
                data = (
                    memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                    if reference.bytes and self.path(reference).stat().st_size
                    else memoryview(b"")
                )
        except FileNotFoundError:
            raise ProtocolError(
                f"the {reference.contract} that '{who}' announced is not in the store; it must be sent again"
            ) from None
        digest = hashlib.sha256()
        for start in range(0, len(data), READ_BLOCK):
            digest.update(data[start : start + READ_BLOCK])
        if len(data) != reference.bytes or digest.hexdigest() != reference.sha256:
            raise UpdateMismatch(
                f"the {reference.contract} of '{who}' has {len(data)} bytes that do not match their digest; "
                f"expected {reference.bytes} bytes as announced"
            )
        return data

    def discard(self, reference: BlobReference) -> None:
        """Remove a blob that no later round needs; its reference stays valid evidence of what it was."""
        self.path(reference).unlink(missing_ok=True)

    def forget(self, reference: BlobReference) -> None:
        """Drop this party's own copy of a blob that the mailbox has; where this store is the mailbox there is none."""
        del reference


def reference_to(chunks: Sequence[Buffer], *, contract: str) -> BlobReference:
    """The reference to the concatenation of chunks, whether or not it is stored anywhere."""
    digest = hashlib.sha256()
    size = 0
    for chunk in chunks:
        digest.update(chunk)
        size += memoryview(chunk).nbytes
    return BlobReference(sha256=digest.hexdigest(), bytes=size, contract=contract)


class _NotAsAnnouncedError(Exception):
    """Bytes are not those of their digest."""


def _as_announced(chunks: Iterable[Buffer], *, sha256: str | None, size: int) -> Iterator[Buffer]:
    digest, left = hashlib.sha256(), size
    for chunk in chunks:
        left -= memoryview(chunk).nbytes
        if left < 0:
            raise _NotAsAnnouncedError
        digest.update(chunk)
        yield chunk
    if left or sha256 not in (None, digest.hexdigest()):
        raise _NotAsAnnouncedError
