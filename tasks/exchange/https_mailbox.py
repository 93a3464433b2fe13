"""The mailbox of others, reached over HTTPS: the same seam as the directory, with a local copy of every blob.

Why: an outage of minutes must end in nothing but a pause: None always means "not posted", never "not reached".
Runs: on every site. Source: own.
"""

import contextlib
import http.client
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

from typing_extensions import Buffer, override

from data_contracts.envelope import MAX_ENVELOPE_BYTES, Slot
from data_contracts.errors import ProtocolError, UpdateMismatch, WorkFailed
from data_contracts.references import BlobReference
from tasks.exchange.blob_store import READ_BLOCK, BlobStore
from tasks.exchange.https_addresses import RUNS, TIME, address_of_blob, address_of_slot
from tasks.exchange.mailbox import equivocation

OUTAGE_SECONDS = 900.0
FIRST_PAUSE_SECONDS = 0.05
LAST_PAUSE_SECONDS = 5.0
ANSWER_SECONDS = 60.0
MAX_LIST_BYTES = 16 * 2**20
_RUN = re.compile(r"[a-z0-9][a-z0-9-]{2,63}")

Answer = TypeVar("Answer")


class MailboxConnection:
    """Requests to the mailbox, repeated until they are answered.

    Args:
        address: ``host:port``.
        tls: The party's key, and the mailbox's certificate.
        outage_seconds: How long to go on trying.
        pause: Waits between two attempts.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: ssl.SSLContext,
        outage_seconds: float = OUTAGE_SECONDS,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.address = address
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._tls = tls
        self._outage_seconds = outage_seconds
        self._pause = pause
        self._of_thread = threading.local()
        self._opened: list[http.client.HTTPSConnection] = []

    def ask(
        self,
        method: str,
        address: str,
        *,
        body: bytes | Path | None = None,
        take: Callable[[http.client.HTTPResponse], Answer],
    ) -> tuple[HTTPStatus, Answer]:
        """Ask until there is an answer.

        Args:
            method: ``GET``, ``HEAD``, ``PUT`` or ``DELETE``.
            address: What is asked for.
            body: What is sent; a file is streamed.
            take: Reads as much of the answer as it expects.

        Returns:
            The status, and what ``take`` made of the body.

        Raises:
            WorkFailed: If the mailbox did not answer for ``outage_seconds``.
        """
        waited, pause = 0.0, FIRST_PAUSE_SECONDS
        while True:
            try:
                status, taken = self._once(method, address, body, take)
                if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    return status, taken
                why = f"status {status.value}"
            except (OSError, http.client.HTTPException, ValueError) as exc:
                self._hang_up()
                why = type(exc).__name__
            if waited >= self._outage_seconds:
                raise WorkFailed(
                    f"the mailbox at {self.address} did not answer for {self._outage_seconds:g} s ({why})",
                    advice="see `motet doctor`; once it answers, run the same command again: it resumes",
                )
            self._pause(pause)
            waited, pause = waited + pause, min(2 * pause, LAST_PAUSE_SECONDS)

    def clock(self) -> float:
        """The mailbox's clock, in seconds since 1970.

        Raises:
            ProtocolError: If it shows none.
        """
        status, data = self.ask("GET", TIME, take=_capped(64))
        _demand_taken(status, "to show its clock")
        try:
            return float(data)
        except ValueError:
            raise ProtocolError(f"the mailbox at {self.address} shows no time") from None

    def close(self) -> None:
        """End the connections of all threads; a later request opens another."""
        for connection in self._opened:
            connection.close()

    def _hang_up(self) -> None:
        """End this thread's connection; the next request opens it again."""
        self._connection().close()

    def _once(
        self,
        method: str,
        address: str,
        body: bytes | Path | None,
        take: Callable[[http.client.HTTPResponse], Answer],
    ) -> tuple[HTTPStatus, Answer]:
        connection = self._connection()
        with contextlib.ExitStack() as open_file:
            headers = {}
            content: object = body
            if isinstance(body, Path):
                content = open_file.enter_context(body.open("rb"))
                headers["Content-Length"] = str(body.stat().st_size)
            with contextlib.suppress(
                BrokenPipeError, ConnectionResetError
            ):  # it may have refused, and said why
                connection.request(method, address, body=content, headers=headers)  # type: ignore[arg-type]
        response = connection.getresponse()
        taken = take(response)
        if response.read(1):
            self._hang_up()  # more than was announced or expected; what follows belongs to no request
        return HTTPStatus(response.status), taken

    def _connection(self) -> http.client.HTTPSConnection:
        found: http.client.HTTPSConnection | None = getattr(self._of_thread, "connection", None)
        if found is None:
            found = http.client.HTTPSConnection(
                self._host, self._port, timeout=ANSWER_SECONDS, context=self._tls, blocksize=READ_BLOCK
            )
            self._of_thread.connection = found
            self._opened.append(found)
        return found


def _capped(max_bytes: int) -> Callable[[http.client.HTTPResponse], bytes]:
    return lambda response: response.read(max_bytes)


class MirroredBlobs(BlobStore):
    """The mailbox's blobs, each kept here too once it was sent or fetched.

    Args:
        root: Directory of the copies.
        connection: To the mailbox.
    """

    def __init__(self, root: Path, connection: MailboxConnection) -> None:
        super().__init__(root)
        self._connection = connection

    @override
    def __contains__(self, reference: object) -> bool:
        if not isinstance(reference, BlobReference):
            return False
        return super().__contains__(reference) or self._is_there(reference)

    def _is_there(self, reference: BlobReference) -> bool:
        address = address_of_blob(reference.sha256)
        status, size = self._connection.ask(
            "HEAD", address, take=lambda response: response.getheader("Content-Length")
        )
        return status == HTTPStatus.OK and size == str(reference.bytes)

    @override
    def put(self, chunks: Sequence[Buffer], *, contract: str) -> BlobReference:
        reference = BlobStore(self.root).put(chunks, contract=contract)
        if not self._is_there(reference):
            address = address_of_blob(reference.sha256)
            status, _ = self._connection.ask("PUT", address, body=self.path(reference), take=_capped(0))
            _demand_taken(status, f"a {contract} of {reference.bytes} bytes")
        return reference

    @override
    def open(self, reference: BlobReference, *, who: str) -> memoryview:
        if not super().__contains__(reference):
            self._fetch(reference, who=who)
        return super().open(reference, who=who)

    def _fetch(self, reference: BlobReference, *, who: str) -> None:
        def take(response: http.client.HTTPResponse) -> bool:
            if response.status != HTTPStatus.OK:
                return False
            blocks = _blocks(response, reference.bytes)
            return self.take_in(blocks, sha256=reference.sha256, size=reference.bytes)

        status, kept = self._connection.ask("GET", address_of_blob(reference.sha256), take=take)
        if status == HTTPStatus.OK and not kept:
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
        self._connection.ask("DELETE", address_of_blob(reference.sha256), take=_capped(0))


def _blocks(response: http.client.HTTPResponse, size: int) -> Iterator[bytes]:
    """At most one byte more than announced; an answer that ends early is an outage, not an answer."""
    if response.getheader("Content-Length") != str(size):
        yield response.read(size + 1)
        return
    left = size
    while left:
        block = response.read(min(left, READ_BLOCK))
        if not block:
            raise ConnectionResetError
        left -= len(block)
        yield block


def _demand_taken(status: HTTPStatus, what: str) -> None:
    if status not in (HTTPStatus.OK, HTTPStatus.CREATED):
        raise ProtocolError(
            f"the mailbox refuses {what}: {status.value} {status.phrase}",
            advice="see `motet doctor`; the mailbox and this site must have pinned the same roster",
        )


class HttpsMailbox:
    """A mailbox run as ``mailbox_service``.

    Args:
        connection: To the mailbox.
        copies: Directory for copies of blobs.
    """

    def __init__(self, connection: MailboxConnection, *, copies: Path) -> None:
        self._connection = connection
        self.blobs: BlobStore = MirroredBlobs(copies, connection)

    def put_body(self, chunks: Sequence[Buffer], *, contract: str) -> BlobReference:
        """Store a body before the envelope that announces it."""
        return self.blobs.put(chunks, contract=contract)

    def post(self, slot: Slot, envelope: bytes) -> None:
        """Write an envelope into its slot; the same bytes again are a no-op.

        Raises:
            Equivocation: If the slot holds different bytes.
            ProtocolError: If the mailbox does not take it.
        """
        status, _ = self._connection.ask("PUT", address_of_slot(slot), body=envelope, take=_capped(0))
        if status == HTTPStatus.CONFLICT:
            raise equivocation(slot)
        _demand_taken(status, f"'{slot.kind}' of '{slot.sender}'")

    def read(self, slot: Slot) -> bytes | None:
        """Return the envelope in a slot, or None; never more than a little above the size cap."""
        status, data = self._connection.ask(
            "GET", address_of_slot(slot), take=_capped(MAX_ENVELOPE_BYTES + 1)
        )
        if status == HTTPStatus.NOT_FOUND:
            return None
        _demand_taken(status, "to show a message")
        return data

    def runs(self) -> tuple[str, ...]:
        """Names under which anything was posted, sorted; what is no name is left out."""
        status, data = self._connection.ask("GET", RUNS, take=_capped(MAX_LIST_BYTES))
        _demand_taken(status, "to list its runs")
        try:
            listed = json.loads(data)
        except ValueError:
            listed = []
        names = listed if isinstance(listed, list) else []
        return tuple(sorted({name for name in names if isinstance(name, str) and _RUN.fullmatch(name)}))
