"""Blobs of a mailbox that others run, each kept here too once it was sent or fetched; sealed on the way where asked.

Why: what is mapped into memory must lie here, and what the mailbox's operator must not read must not lie there.
Runs: on every site. Source: own.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from typing_extensions import Buffer, override

from data_contracts.errors import UpdateMismatch
from data_contracts.references import BlobReference
from tasks.exchange.blob_store import READ_BLOCK, BlobStore
from tasks.exchange.durable_files import SCRAP_PREFIX
from tasks.exchange.run_seal import RunSeal

Keep = Callable[[Iterable[bytes]], bool]


class RemoteBlobs(Protocol):
    """A shelf of blobs elsewhere; every call goes on trying until it is answered."""

    def size(self, name: str) -> int | None:
        """Bytes of a blob; None if it is not there."""
        ...

    def send(self, name: str, path: Path, *, what: str) -> None:
        """Store a file under a name.

        Raises:
            ProtocolError: If it is not taken; ``what`` says of what.
        """
        ...

    def fetch(self, name: str, *, size: int, keep: Keep) -> bool | None:
        """Hand a blob to ``keep``, never more than one byte above ``size``.

        Returns:
            What ``keep`` said; None if it is not there.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a blob."""
        ...


class MirroredBlobs(BlobStore):
    """Blobs that lie elsewhere under their own digest.

    Args:
        root: Directory of the copies.
        remote: Where they lie.
    """

    def __init__(self, root: Path, remote: RemoteBlobs) -> None:
        super().__init__(root)
        self._remote = remote

    @override
    def __contains__(self, reference: object) -> bool:
        if not isinstance(reference, BlobReference):
            return False
        return super().__contains__(reference) or self._is_there(reference)

    def _is_there(self, reference: BlobReference) -> bool:
        return self._remote.size(self._name(reference)) == self._remote_size(reference)

    @override
    def put(self, chunks: Sequence[Buffer], *, contract: str) -> BlobReference:
        reference = BlobStore(self.root).put(chunks, contract=contract)
        if not self._is_there(reference):
            self._send(reference)
        return reference

    @override
    def open(self, reference: BlobReference, *, who: str) -> memoryview:
        if not super().__contains__(reference):
            self._fetch(reference, who=who)
        return super().open(reference, who=who)

    def _fetch(self, reference: BlobReference, *, who: str) -> None:
        def keep(blocks: Iterable[bytes]) -> bool:
            arrived = self._arrived(blocks, reference, who=who)
            return self.take_in(arrived, sha256=reference.sha256, size=reference.bytes)

        size = self._remote_size(reference)
        if self._remote.fetch(self._name(reference), size=size, keep=keep) is False:
            raise UpdateMismatch(
                f"the mailbox's copy of the {reference.contract} of '{who}' has bytes that do not match their digest; "
                f"expected {reference.bytes} bytes as announced"
            )

    @override
    def forget(self, reference: BlobReference) -> None:
        super().discard(reference)

    @override
    def discard(self, reference: BlobReference) -> None:
        super().discard(reference)
        self._remote.remove(self._name(reference))

    def _name(self, reference: BlobReference) -> str:
        return reference.sha256

    def _remote_size(self, reference: BlobReference) -> int:
        return reference.bytes

    def _send(self, reference: BlobReference) -> None:
        what = f"a {reference.contract} of {reference.bytes} bytes"
        self._remote.send(self._name(reference), self.path(reference), what=what)

    def _arrived(self, blocks: Iterable[bytes], reference: BlobReference, *, who: str) -> Iterator[bytes]:  # noqa: ARG002 - a sealed one needs them
        return iter(blocks)


class SealedBlobs(MirroredBlobs):
    """Blobs that lie elsewhere sealed under a run's key, by names that say nothing; here they lie open.

    Args:
        root: Directory of the copies.
        remote: Where they lie.
        seal: Gives the run's key, which may have to be read from the mailbox first.
    """

    def __init__(self, root: Path, remote: RemoteBlobs, seal: Callable[[], RunSeal]) -> None:
        super().__init__(root, remote)
        self._seal = seal

    @override
    def _name(self, reference: BlobReference) -> str:
        return self._seal().name_of(reference)

    @override
    def _remote_size(self, reference: BlobReference) -> int:
        return self._seal().sealed_size(reference.bytes)

    @override
    def _send(self, reference: BlobReference) -> None:
        with tempfile.NamedTemporaryFile(dir=self.root, prefix=SCRAP_PREFIX) as file:
            with self.path(reference).open("rb") as plain:
                for piece in self._seal().sealed(iter(lambda: plain.read(READ_BLOCK), b""), reference):
                    file.write(piece)
            file.flush()
            what = f"a {reference.contract} of {reference.bytes} bytes"
            self._remote.send(self._name(reference), Path(file.name), what=what)

    @override
    def _arrived(self, blocks: Iterable[bytes], reference: BlobReference, *, who: str) -> Iterator[bytes]:
        return self._seal().opened(blocks, reference, who=who)
