"""The mailbox as a small HTTPS service: put once, get, list, blobs by digest.

Why: companies share no file system. It knows every caller by a pinned certificate, checks size and signature
before it keeps anything, and still needs no trust: readers check all of it again. Runs: on the mailbox.
Source: own; HTTP/1.1 (RFC 9112) by the standard library, mutual TLS 1.3 (RFC 8446).
"""

import contextlib
import errno
import http.server
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from typing_extensions import override

from data_contracts.envelope import GIB, KIB, MAX_ENVELOPE_BYTES, Slot
from data_contracts.errors import Equivocation, ProtocolError
from tasks.exchange.blob_store import BlobStore
from tasks.exchange.board import authentic
from tasks.exchange.durable_files import SCRAP_PREFIX
from tasks.exchange.enrolment import SignedRoster, Statement
from tasks.exchange.https_addresses import BODIES, RUNS, SEALED, TIME, blob_at, slot_at
from tasks.exchange.mailbox import DirectoryMailbox
from tasks.exchange.quarantine import Quarantine
from tasks.exchange.succession import with_retired_keys
from tasks.exchange.transport_keys import certificate_bytes, mailbox_context

logger = logging.getLogger("motet")

MAX_BLOB_BYTES = 8 * GIB
CONNECTIONS_FOR_EACH_PARTY = 8
HANDSHAKE_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # a caller that sends nothing for so long is hung up on
MAX_DRAINED_BYTES = 64 * KIB * KIB  # read and dropped after a refusal, so that the caller gets to read it
BLOCK = 2**18
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class MailboxService(http.server.ThreadingHTTPServer):
    """The service: one thread per connection, as few connections as the consortium needs.

    Args:
        root: Directory of the mailbox.
        address: Where it listens: host and port; port 0 takes a free one.
        key: PEM file of the mailbox's transport key.
        roster: Who may call.
        earlier: Rosters before it, each with the time until which runs planned under it may go on.
        max_blob_bytes: Largest blob that is taken.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        root: Path,
        *,
        address: tuple[str, int],
        key: Path,
        roster: SignedRoster,
        earlier: Sequence[tuple[SignedRoster, datetime]] = (),
        max_blob_bytes: int = MAX_BLOB_BYTES,
    ) -> None:
        self.mailbox = DirectoryMailbox(root)
        self.shelves = {BODIES: self.mailbox.bodies, SEALED: BlobStore(root / SEALED)}
        remove_scraps(root)
        self.quarantine = Quarantine(root / "quarantine")
        self._earlier = [(each.roster, until) for each, until in earlier]
        self.roster = with_retired_keys(roster, earlier=[each for each, _ in earlier])
        self.readers = frozenset(roster.auditors)
        self.max_blob_bytes = max_blob_bytes
        self._names: dict[bytes, tuple[str, datetime | None]] = {}
        for each, until in ((roster, None), *earlier):
            for caller in _callers(each):
                self._names.setdefault(certificate_bytes(caller.certificate), (caller.name, until))
        certificates = {
            caller.certificate for each in (roster, *(old for old, _ in earlier)) for caller in _callers(each)
        }
        self._tls = mailbox_context(key, parties=sorted(certificates))
        self._free = threading.BoundedSemaphore(CONNECTIONS_FOR_EACH_PARTY * len(_callers(roster)))
        self._open: set[ssl.SSLSocket] = set()
        super().__init__(address, _Conversation)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    @override
    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands in the caller's own thread, so that nobody keeps the others waiting."""
        try:
            request.settimeout(HANDSHAKE_SECONDS)
            with contextlib.suppress(OSError), self._tls.wrap_socket(request, server_side=True) as secured:
                secured.settimeout(SILENCE_SECONDS)
                self._open.add(secured)
                super().process_request_thread(secured, client_address)
                self._open.discard(secured)
        finally:
            self._free.release()

    @override
    def server_close(self) -> None:
        """Stop listening, and hang up on everybody."""
        super().server_close()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.warning("a connection ended with an error; the mailbox goes on")

    def name_of(self, certificate: bytes | None) -> str | None:
        """Who showed this certificate (DER); None if nobody on the roster."""
        name, until = self._names.get(certificate or b"", (None, None))
        return name if until is None or datetime.now(UTC) < until else None

    def check(self, data: bytes, *, slot: Slot) -> None:
        """Accept an envelope under the newest roster, or an earlier one whose runs may still go on.

        Raises:
            ProtocolError: If its alleged sender did not sign it, or has rotated the key out.
        """
        try:
            authentic(data, slot=slot, roster=self.roster)
        except ProtocolError:
            for roster, until in self._earlier:
                with contextlib.suppress(ProtocolError):
                    if datetime.now(UTC) < until:
                        authentic(data, slot=slot, roster=roster)
                        return
            raise


def _callers(roster: SignedRoster) -> list[Statement]:
    return [each.statement for each in roster.enrolments if each.statement.role != "mailbox"]


def remove_scraps(root: Path) -> None:
    """Remove what a kill left of files that were being written; to be called where nobody else writes."""
    for scrap in root.rglob(f"{SCRAP_PREFIX}*"):
        scrap.unlink()


class _Conversation(http.server.BaseHTTPRequestHandler):
    """One connection of one party."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "motet", ""
    server: MailboxService
    connection: ssl.SSLSocket
    caller: str

    @override
    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.caller = self.server.name_of(self.connection.getpeercert(binary_form=True)) or ""

    @override
    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("%s: %s", self.caller, format % args)

    def do_GET(self) -> None:
        slot, blob = slot_at(self.path), blob_at(self.path)
        if not self.caller:
            self._answer(HTTPStatus.FORBIDDEN)
        elif self.path == TIME:
            self._answer(HTTPStatus.OK, json.dumps(time.time()).encode())
        elif self.path == RUNS:
            self._answer(HTTPStatus.OK, json.dumps(self.server.mailbox.runs()).encode())
        elif slot is not None:
            found = self.server.mailbox.read(slot)
            self._answer(HTTPStatus.NOT_FOUND if found is None else HTTPStatus.OK, found or b"")
        elif blob is not None:
            self._send_blob(self._path(*blob))
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        slot, blob, size = slot_at(self.path), blob_at(self.path), self._announced_size()
        refusal = self._refusal(slot, blob, size)
        if refusal is not None:
            self._refuse(refusal, unread=size or 0)
        elif slot is not None:
            self._keep_message(slot, self.rfile.read(size or 0))
        elif blob is not None:
            self._keep_blob(*blob, size or 0)

    def _path(self, shelf: str, name: str) -> Path:
        return self.server.shelves[shelf].root / name

    def _refusal(
        self, slot: Slot | None, blob: tuple[str, str] | None, size: int | None
    ) -> HTTPStatus | None:
        """Why a body is not even read."""
        may_write = self.caller and self.caller not in self.server.readers
        if not may_write or (slot is not None and slot.sender != self.caller):
            return HTTPStatus.FORBIDDEN
        if slot is None and blob is None:
            return HTTPStatus.NOT_FOUND
        if size is None:
            return HTTPStatus.LENGTH_REQUIRED
        largest = MAX_ENVELOPE_BYTES if slot is not None else self.server.max_blob_bytes
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if size > largest else None

    def do_DELETE(self) -> None:
        blob = blob_at(self.path)
        if self.caller != self.server.roster.coordinator or blob is None:
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        self._path(*blob).unlink(missing_ok=True)
        self._answer(HTTPStatus.NO_CONTENT)

    def _keep_message(self, slot: Slot, data: bytes) -> None:
        try:
            self.server.check(data, slot=slot)
            self.server.mailbox.post(slot, data)
        except Equivocation as exc:
            self.server.quarantine.keep(data, why=str(exc))
            self._answer(HTTPStatus.CONFLICT)
        except ProtocolError as exc:
            self.server.quarantine.keep(data, why=f"'{self.caller}' put what is refused: {exc}")
            self._answer(HTTPStatus.UNPROCESSABLE_ENTITY)
        except OSError as exc:
            self._demand_full(exc)
            self._answer(HTTPStatus.INSUFFICIENT_STORAGE)
        else:
            self._answer(HTTPStatus.CREATED)

    def _keep_blob(self, shelf: str, name: str, size: int) -> None:
        """A sealed blob's name is no digest: only who holds the run's key can tell that it is the one."""
        digest = name if shelf == BODIES else None
        try:
            kept = self.server.shelves[shelf].take_in(self._body(size), sha256=digest, size=size, name=name)
        except OSError as exc:
            self._demand_full(exc)
            self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, unread=size)
            return
        if kept:
            self._answer(HTTPStatus.CREATED)
        else:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY)

    @staticmethod
    def _demand_full(exc: OSError) -> None:
        """A full disk is the caller's to wait for; any other fault ends the connection."""
        if exc.errno not in DISK_FULL:
            raise exc

    def _body(self, size: int) -> Iterator[bytes]:
        while size > 0 and (block := self.rfile.read(min(size, BLOCK))):
            size -= len(block)
            yield block

    def _send_blob(self, path: Path) -> None:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        with file:
            size = path.stat().st_size
            self._start(HTTPStatus.OK, size)
            while self.command == "GET" and size > 0 and (block := file.read(min(size, BLOCK))):
                size -= len(block)
                self.wfile.write(block)

    def _announced_size(self) -> int | None:
        text = self.headers.get("Content-Length", "")
        plain = text.isascii() and text.isdecimal() and len(text) <= 16  # noqa: PLR2004 - digits of 8 PB
        return int(text) if plain and "Transfer-Encoding" not in self.headers else None

    def _refuse(self, status: HTTPStatus, *, unread: int = 0) -> None:
        """Answer without having used the body; the connection cannot go on."""
        self.close_connection = True
        self._answer(status)
        self.wfile.flush()
        for _ in self._body(min(unread, MAX_DRAINED_BYTES)):
            pass

    def _answer(self, status: HTTPStatus, body: bytes = b"") -> None:
        self._start(status, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _start(self, status: HTTPStatus, size: int) -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(size))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
