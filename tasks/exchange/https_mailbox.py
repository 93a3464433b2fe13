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
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

from typing_extensions import Buffer

from data_contracts.envelope import MAX_ENVELOPE_BYTES, Slot
from data_contracts.errors import ProtocolError, WorkFailed
from data_contracts.references import BlobReference
from tasks.exchange.blob_store import READ_BLOCK, BlobStore
from tasks.exchange.https_addresses import BODIES, RUNS, SEALED, TIME, address_of_blob, address_of_slot
from tasks.exchange.mailbox import equivocation
from tasks.exchange.mirrored_blobs import Keep, MirroredBlobs, SealedBlobs
from tasks.exchange.outages import OUTAGE_SECONDS, NotReachedError, until_answered
from tasks.exchange.run_seal import RunSeal

ANSWER_SECONDS = 60.0
MAX_LIST_BYTES = 16 * 2**20
RUN_NAME = re.compile(r"[a-z0-9][a-z0-9-]{2,63}")

Answer = TypeVar("Answer")


class MailboxConnection:
    """Requests to the mailbox, repeated until they are answered.

    Args:
        address: ``host:port``.
        tls: The party's key, and the mailbox's certificate.
        outage_seconds: How long to go on trying.
        pause: Waits between two attempts; None waits until then or until ``close``.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: ssl.SSLContext,
        outage_seconds: float = OUTAGE_SECONDS,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self.address = address
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._tls = tls
        self._outage_seconds = outage_seconds
        self._pause = pause
        self._closed = threading.Event()
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
            WorkFailed: If the mailbox did not answer for ``outage_seconds``, or ``close`` was called meanwhile.
        """

        def attempt() -> tuple[HTTPStatus, Answer]:
            try:
                status, taken = self._once(method, address, body, take)
            except (OSError, http.client.HTTPException, ValueError) as exc:
                self._hang_up()
                raise NotReachedError(type(exc).__name__) from None
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise NotReachedError(f"status {status.value}")
            return status, taken

        return until_answered(
            attempt, where=self.address, outage_seconds=self._outage_seconds, pause=self._wait
        )

    def _wait(self, seconds: float) -> None:
        """Wait between two attempts; a thread that waits out an outage would otherwise outlive its command."""
        closed = self._closed
        (self._pause or closed.wait)(seconds)
        if closed.is_set():
            raise WorkFailed(
                f"the connection to the mailbox at {self.address} was closed while it did not answer"
            )

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
        """End the connections and waits of all threads; a later request opens another."""
        self._closed.set()
        self._closed = threading.Event()
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


class HttpsBlobs:
    """A shelf of the service, reached over HTTPS.

    Args:
        connection: To the mailbox.
        shelf: Which one.
    """

    def __init__(self, connection: MailboxConnection, *, shelf: str = BODIES) -> None:
        self._connection = connection
        self._shelf = shelf

    def _ask(
        self,
        method: str,
        name: str,
        *,
        take: Callable[[http.client.HTTPResponse], Answer],
        body: Path | None = None,
    ) -> tuple[HTTPStatus, Answer]:
        return self._connection.ask(method, address_of_blob(name, shelf=self._shelf), body=body, take=take)

    def size(self, name: str) -> int | None:
        """Bytes of a blob; None if it is not there."""
        status, size = self._ask("HEAD", name, take=lambda response: response.getheader("Content-Length", ""))
        return int(size) if status == HTTPStatus.OK and size.isdecimal() else None

    def send(self, name: str, path: Path, *, what: str) -> None:
        """Store a file under a name.

        Raises:
            ProtocolError: If it is not taken.
        """
        status, _ = self._ask("PUT", name, body=path, take=_capped(0))
        _demand_taken(status, what)

    def fetch(self, name: str, *, size: int, keep: Keep) -> bool | None:
        """Hand a blob to ``keep``, never more than one byte above ``size``; None if it is not there."""

        def take(response: http.client.HTTPResponse) -> bool:
            return response.status == HTTPStatus.OK and keep(_blocks(response, size))

        status, kept = self._ask("GET", name, take=take)
        return kept if status == HTTPStatus.OK else None

    def remove(self, name: str) -> None:
        """Remove a blob."""
        self._ask("DELETE", name, take=_capped(0))


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
        seal: Gives the run's key, under which models lie sealed; None where they may lie open.
    """

    def __init__(
        self, connection: MailboxConnection, *, copies: Path, seal: Callable[[], RunSeal] | None = None
    ) -> None:
        self._connection = connection
        self.bodies: BlobStore = MirroredBlobs(copies, HttpsBlobs(connection))
        self.blobs = (
            self.bodies if seal is None else SealedBlobs(copies, HttpsBlobs(connection, shelf=SEALED), seal)
        )

    def put_body(self, chunks: Sequence[Buffer], *, contract: str) -> BlobReference:
        """Store a body before the envelope that announces it."""
        return self.bodies.put(chunks, contract=contract)

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
        return tuple(sorted({name for name in names if isinstance(name, str) and RUN_NAME.fullmatch(name)}))
