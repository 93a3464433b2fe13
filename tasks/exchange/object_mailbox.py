"""The mailbox in a bucket: object storage with conditional writes, shared by all parties and run by none of them.

Why: companies that have an S3-compatible store in common need no service of their own. Every reader checks signatures
and digests anyway; what is missing is a gatekeeper, so whoever may write there may also fill it.
Runs: on every site. Source: own; first writer wins by ``If-None-Match: *`` (RFC 9110, 13.1.2), through ``obstore``.
"""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store
from typing_extensions import Buffer

from data_contracts.envelope import MAX_ENVELOPE_BYTES, Slot
from data_contracts.errors import ProtocolError, SettingsError
from data_contracts.references import BlobReference
from tasks.exchange.blob_store import READ_BLOCK, BlobStore
from tasks.exchange.https_addresses import BODIES, SEALED
from tasks.exchange.https_mailbox import RUN_NAME
from tasks.exchange.mailbox import equivocation, is_misplaced
from tasks.exchange.mirrored_blobs import Keep, MirroredBlobs, SealedBlobs
from tasks.exchange.outages import OUTAGE_SECONDS, NotReachedError, Pause, until_answered
from tasks.exchange.run_seal import RunSeal
from tasks.exchange.shelves import Posted, Stored, slot_of

SCHEME = "s3://"
MESSAGES = "messages"
CREDENTIALS = ("access_key_id", "secret_access_key", "session_token", "endpoint", "region")

Answer = TypeVar("Answer")


class Bucket:
    """Requests to object storage, repeated until they are answered.

    Args:
        store: A store of ``obstore``, with whatever prefix.
        name: For messages: ``s3://bucket/prefix``.
        outage_seconds: How long to go on trying.
        pause: Waits between two attempts.
    """

    def __init__(
        self, store: Any, *, name: str, outage_seconds: float = OUTAGE_SECONDS, pause: Pause = time.sleep
    ) -> None:
        self.store = store
        self.name = self.address = name
        self._outage_seconds = outage_seconds
        self._pause = pause

    def ask(self, request: Callable[[], Answer]) -> Answer | None:
        """Ask until there is an answer; None if there is no such object.

        Raises:
            SettingsError: If the store refuses this site, or has no such bucket.
            WorkFailed: If it did not answer for ``outage_seconds``.
        """

        def attempt() -> Answer | None:
            try:
                return request()
            except FileNotFoundError as exc:
                if "NoSuchBucket" in str(exc):
                    raise SettingsError(
                        f"there is no bucket behind {self.name}", advice="correct `mailbox` in site.json"
                    ) from None
                return None
            except (PermissionDeniedError, UnauthenticatedError) as exc:
                raise SettingsError(
                    f"{self.name} refuses the credentials of this site ({type(exc).__name__})",
                    advice="see `motet doctor`, and docs/running-a-consortium.md on what a party may do there",
                ) from None
            except (GenericError, OSError) as exc:  # its text may hold an address
                raise NotReachedError(type(exc).__name__) from None

        return until_answered(
            attempt, where=self.name, outage_seconds=self._outage_seconds, pause=self._pause
        )

    def create(self, path: str, data: bytes) -> bool:
        """Write an object unless there is one; False if there was."""

        def put() -> bool:
            try:
                obstore.put(self.store, path, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

        created = self.ask(put)
        if created is None:
            raise SettingsError(f"{self.name} takes no objects", advice="correct `mailbox` in site.json")
        return created

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        """The beginning of an object, no longer than asked for; None if it is not there."""

        def get() -> bytes:
            found = bytearray()
            for block in obstore.get(self.store, path).stream(min_chunk_size=max_bytes):
                found += bytes(block)
                if len(found) >= max_bytes:
                    break
            return bytes(found[:max_bytes])

        return self.ask(get)

    def size(self, path: str) -> int | None:
        """Bytes of an object; None if it is not there."""
        found = self.ask(lambda: obstore.head(self.store, path))
        return None if found is None else int(found["size"])

    def objects(self, prefix: str) -> Iterator[Mapping[str, Any]]:
        """All objects under a prefix: ``path``, ``size``, ``last_modified``."""
        listed = self.ask(lambda: list(obstore.list(self.store, prefix)))
        return itertools.chain.from_iterable(listed or ())

    def folders(self, prefix: str) -> list[str]:
        """Names right under a prefix."""
        listed = self.ask(lambda: obstore.list_with_delimiter(self.store, prefix))
        return [] if listed is None else [path.rpartition("/")[2] for path in listed["common_prefixes"]]

    def remove(self, path: str) -> None:
        """Remove an object, whether or not it is there."""
        self.ask(lambda: obstore.delete(self.store, path))

    def clock(self) -> float:
        """The store's clock, in seconds since 1970, read off an object that this call writes and removes.

        Raises:
            ProtocolError: If the store takes a second object under one name: then nobody's first word stands there.
        """
        path = f"probes/{os.urandom(8).hex()}"
        try:
            if not self.create(path, b"first") or self.create(path, b"second"):
                raise ProtocolError(
                    f"{self.name} overwrites what was written first: it ignores If-None-Match",
                    advice="use a store with conditional writes, or run `motet mailbox`",
                )
            found = self.ask(lambda: obstore.head(self.store, path))
            if found is None:
                raise ProtocolError(f"{self.name} does not show what was written there")
            return float(found["last_modified"].timestamp())
        finally:
            self.remove(path)

    def close(self) -> None:
        """Nothing stays open."""


class ObjectBlobs:
    """A shelf of blobs in a bucket.

    Args:
        bucket: The bucket.
        shelf: Which one.
    """

    def __init__(self, bucket: Bucket, *, shelf: str) -> None:
        self._bucket = bucket
        self._shelf = shelf

    def _path(self, name: str) -> str:
        return f"{self._shelf}/{name}"

    def size(self, name: str) -> int | None:
        """Bytes of a blob; None if it is not there."""
        return self._bucket.size(self._path(name))

    def send(self, name: str, path: Path, *, what: str) -> None:
        """Store a file under a name, in parts if it is large.

        Raises:
            ProtocolError: If the bucket takes nothing.
        """
        if self._bucket.ask(lambda: obstore.put(self._bucket.store, self._path(name), path)) is None:
            raise ProtocolError(f"{self._bucket.name} does not take {what}", advice="see `motet doctor`")

    def fetch(self, name: str, *, size: int, keep: Keep) -> bool | None:
        """Hand a blob to ``keep``; one of another size than expected is not even read. None if it is not there."""

        def get() -> bool:
            found = obstore.get(self._bucket.store, self._path(name))
            if found.meta["size"] != size:
                return False
            return keep(_blocks(found.stream(min_chunk_size=READ_BLOCK)))

        return self._bucket.ask(get)

    def remove(self, name: str) -> None:
        """Remove a blob."""
        self._bucket.remove(self._path(name))


def _blocks(stream: Iterable[Buffer]) -> Iterator[bytes]:
    for block in stream:
        yield bytes(block)


class ObjectMailbox:
    """A mailbox in a bucket.

    Layout: ``messages/<run>/r<round>-a<attempt>/<kind>/<sender>.json``, ``blobs/<sha256>``, ``sealed/<run>/<name>``, so that
    a bucket's policy can let each party write ``messages/*/<its name>.json`` and nobody else's.

    Args:
        bucket: The bucket.
        copies: Directory for copies of blobs.
        seal: Gives the run's key, under which models lie sealed; None where they may lie open.
    """

    def __init__(self, bucket: Bucket, *, copies: Path, seal: Callable[[], RunSeal] | None = None) -> None:
        self.bucket = bucket
        self.bodies: BlobStore = MirroredBlobs(copies, ObjectBlobs(bucket, shelf=BODIES))
        sealed = ObjectBlobs(bucket, shelf=SEALED)
        self.blobs = self.bodies if seal is None else SealedBlobs(copies, sealed, seal)

    def put_body(self, chunks: Sequence[Buffer], *, contract: str) -> BlobReference:
        """Store a body before the envelope that announces it."""
        return self.bodies.put(chunks, contract=contract)

    def post(self, slot: Slot, envelope: bytes) -> None:
        """Write an envelope into its slot; the same bytes again are a no-op.

        Raises:
            Equivocation: If the slot holds another envelope of its own, or what is misplaced there may not be deleted.
        """
        if self.bucket.create(path_of(slot), envelope):
            return
        found = self.read(slot)
        if found is not None and found != envelope and is_misplaced(found, slot):
            with contextlib.suppress(
                SettingsError
            ):  # a partner may not delete there: the slot stays as it is
                self.bucket.remove(path_of(slot))
                self.bucket.create(path_of(slot), envelope)
                found = self.read(slot)
        if found != envelope:
            raise equivocation(slot)

    def read(self, slot: Slot) -> bytes | None:
        """Return the envelope in a slot, or None; never more than a little above the size cap."""
        return self.bucket.read(path_of(slot), max_bytes=MAX_ENVELOPE_BYTES + 1)

    def runs(self) -> tuple[str, ...]:
        """Names under which anything was posted, sorted; what is no name is left out."""
        return tuple(sorted(name for name in self.bucket.folders(MESSAGES) if RUN_NAME.fullmatch(name)))

    def envelopes(self) -> Iterator[Posted]:
        """All messages, as the operator sees them."""
        for found in self.bucket.objects(f"{MESSAGES}/"):
            slot = slot_of(found["path"].removeprefix(f"{MESSAGES}/"))
            if slot is not None:
                yield Posted(slot, found["last_modified"].timestamp(), self.read(slot) or b"")

    def stored(self) -> Iterator[Stored]:
        """All blobs, as the operator sees them."""
        for shelf in (BODIES, SEALED):
            for found in self.bucket.objects(f"{shelf}/"):
                name = found["path"].removeprefix(f"{shelf}/")
                yield Stored(shelf, name, found["last_modified"].timestamp(), found["size"])

    def remove(self, blob: Stored) -> None:
        """Remove a blob."""
        self.bucket.remove(f"{blob.shelf}/{blob.name}")


def path_of(slot: Slot) -> str:
    """Where a message lies."""
    step = f"r{slot.round:05d}-a{slot.attempt}"
    return f"{MESSAGES}/{slot.run_id}/{step}/{slot.kind.value}/{slot.sender}.json"


def open_bucket(url: str, *, credentials: Path, outage_seconds: float) -> Bucket:
    """Open a bucket.

    Args:
        url: ``s3://bucket/prefix``.
        credentials: A file of ``CREDENTIALS`` as JSON, readable by its owner only. Without it the environment counts, as for
            other programs: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``, ``AWS_REGION``.
        outage_seconds: How long the store may be out of reach.

    Raises:
        SettingsError: If the file cannot be used; no message shows what stands in it.
    """
    bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
    given = _credentials(credentials)
    plain = given.get("endpoint", os.environ.get("AWS_ENDPOINT_URL", "")).startswith("http://")
    try:
        store = S3Store(
            bucket,
            prefix=prefix or None,
            client_options={"allow_http": plain},
            retry_config={"max_retries": 0},
            **given,  # type: ignore[arg-type]
        )
    except (BaseError, ValueError) as exc:
        raise SettingsError(f"{url} cannot be opened with these settings ({type(exc).__name__})") from None
    return Bucket(store, name=url, outage_seconds=outage_seconds)


def _credentials(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    if path.stat().st_mode & 0o077:
        raise SettingsError(f"secret file '{path.name}' is readable by others", advice=f"chmod go= {path}")
    try:
        given = json.loads(path.read_bytes())
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(
        name in CREDENTIALS and isinstance(value, str) for name, value in given.items()
    ):
        raise SettingsError(
            f"keys/{path.name} is no object of texts", advice=f"it may name {', '.join(CREDENTIALS)}"
        )
    return given
