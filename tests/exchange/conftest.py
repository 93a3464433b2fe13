"""A small consortium's identities, and its mailbox as a directory and as the service."""

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from obstore.store import LocalStore, MemoryStore, S3Store

from tasks.exchange.board import Board
from tasks.exchange.enrolment import Enrolment, SignedRoster, Statement
from tasks.exchange.https_mailbox import HttpsMailbox, MailboxConnection
from tasks.exchange.identity import Identity
from tasks.exchange.mailbox import DirectoryMailbox
from tasks.exchange.mailbox_service import MailboxService
from tasks.exchange.object_mailbox import Bucket, ObjectMailbox, path_of
from tasks.exchange.sealing import SealingKey
from tasks.exchange.transport_keys import make_transport_key, party_context
from tests.exchange.s3_server import make_bucket, serving_s3

RUN = "run-1"
SPEAKING = ("coordinator", "partner-a", "partner-b", "partner-c")
PARTIES = (*SPEAKING, "mailbox")
STARTED = datetime(2026, 11, 1, tzinfo=UTC)


def identity_of(name):
    return Identity(name, bytes([PARTIES.index(name) + 1]) * 32)


def sealing_key_of(name):
    return SealingKey(bytes([PARTIES.index(name) + 101]) * 32)


@dataclass
class Parties:
    """Everybody's keys and enrolment; transport keys lie in files."""

    root: Path
    certificates: dict = field(default_factory=dict)

    def __post_init__(self):
        for name in PARTIES:
            self.certificates[name] = make_transport_key(self.key(name), name=name, now=STARTED)

    def key(self, name):
        return self.root / name / "transport.pem"

    def statement(self, name, **changed):
        role = "partner" if name.startswith("partner") else name
        said = {
            "role": role,
            "name": name,
            "public_key": identity_of(name).public_key.hex(),
            "sealing_key": sealing_key_of(name).public.hex(),
            "certificate": self.certificates[name],
            "address": "127.0.0.1:8443" if role == "mailbox" else None,
        }
        return Statement(**(said | changed))

    def enrolment(self, name, **changed):
        return Enrolment.make(self.statement(name, **changed), identity_of(name))

    @property
    def signed_roster(self):
        return SignedRoster.make(tuple(map(self.enrolment, PARTIES)), identity_of("coordinator"))


@pytest.fixture(scope="session")
def parties(tmp_path_factory):
    return Parties(tmp_path_factory.mktemp("parties"))


class Store:
    """A mailbox as every party reaches it, and the directory below it as its operator does."""

    def __init__(self, root, parties):
        self.root, self.parties = root, parties
        self.below = DirectoryMailbox(root / "mailbox")

    def mailbox(self, name):
        assert name in PARTIES
        return self.below

    def board(self, name, **changed):
        return self._board(self.mailbox(name), name, **changed)

    def operator(self, name, **changed):
        """A board that writes past all checks of the mailbox."""
        return self._board(self.below, name, **changed)

    def _board(self, mailbox, name, *, identity=None, quarantine=None):
        roster = self.parties.signed_roster.roster
        return Board(mailbox, identity or identity_of(name), roster, RUN, quarantine)

    def place(self, slot):
        """Where the operator reads and overwrites a message."""
        return Path(self.below._path(slot))

    def spoil(self, reference, data):
        """Overwrite a blob, as only the operator can."""
        self.below.blobs.path(reference).write_bytes(data)

    def close(self):
        """Nothing to end."""


class ServiceStore(Store):
    """The same behind the service."""

    def __init__(self, root, parties, **limits):
        super().__init__(root, parties)
        self.service, self.limits, self.reached = None, limits, {}
        self.port = 0
        self.start()

    def start(self):
        self.service = MailboxService(
            self.root / "mailbox",
            address=("127.0.0.1", self.port),
            key=self.parties.key("mailbox"),
            roster=self.parties.signed_roster,
            **self.limits,
        )
        self.port = self.service.port
        self.thread = threading.Thread(target=self.service.serve_forever, args=(0.02,))
        self.thread.start()

    def connection(self, name, **settings):
        tls = party_context(self.parties.key(name), mailbox=self.parties.certificates["mailbox"])
        return MailboxConnection(f"127.0.0.1:{self.port}", tls=tls, **settings)

    def mailbox(self, name):
        if name not in self.reached:
            self.reached[name] = HttpsMailbox(self.connection(name), copies=self.root / name / "copies")
        return self.reached[name]

    def close(self):
        for mailbox in self.reached.values():
            mailbox._connection.close()
        self.stop()

    def stop(self):
        if self.service is not None:
            self.service.shutdown()
            self.service.server_close()
            self.thread.join()
            self.service = None


@dataclass
class ObjectPlace:
    """An object as a file."""

    storage: object
    path: str

    def read_bytes(self):
        return bytes(self.storage.get(self.path).bytes())

    def write_bytes(self, data):
        self.storage.put(self.path, data)


class ObjectStore(Store):
    """The same in object storage: a bucket as every party reaches it."""

    def __init__(self, root, parties, storage):
        super().__init__(root, parties)
        self.storage = storage
        self.below = ObjectMailbox(self.bucket(), copies=root / "operator")

    def bucket(self, **settings):
        return Bucket(self.storage, name="s3://motet/ours", pause=lambda _: None, **settings)

    def mailbox(self, name):
        assert name in PARTIES
        return ObjectMailbox(self.bucket(), copies=self.root / name / "copies")

    def place(self, slot):
        return ObjectPlace(self.storage, path_of(slot))

    def spoil(self, reference, data):
        self.storage.put(f"blobs/{reference.sha256}", data)


@pytest.fixture(scope="session")
def s3():
    """A real S3-compatible server: its address."""
    with serving_s3() as address:
        yield address


@pytest.fixture
def s3_store(s3, request):
    """A bucket of its own on it."""
    name = make_bucket(s3, request.node.nodeid)
    return S3Store(
        name,
        prefix="ours",
        endpoint=s3,
        region="us-east-1",
        access_key_id="a-party",
        secret_access_key="its-secret",  # noqa: S106 - the server of the tests takes any
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


@pytest.fixture(params=["directory", "https", "memory", "files", "s3"])
def store(request, tmp_path, parties):
    if request.param in ("directory", "https"):
        made = {"directory": Store, "https": ServiceStore}[request.param](tmp_path, parties)
    elif request.param == "memory":
        made = ObjectStore(tmp_path, parties, MemoryStore())
    elif request.param == "files":
        made = ObjectStore(tmp_path, parties, LocalStore(tmp_path / "bucket", mkdir=True))
    else:
        made = ObjectStore(tmp_path, parties, request.getfixturevalue("s3_store"))
    yield made
    made.close()


@pytest.fixture
def service(tmp_path, parties):
    made = ServiceStore(tmp_path, parties, max_blob_bytes=2**20)
    yield made
    made.close()
