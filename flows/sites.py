"""A site: one party's own directory, keys and stores.

Why: on one machine as on many, a party reads its own directory and the mailbox, nothing else.
Runs: on every site. Source: own; key derivation HKDF-SHA256, RFC 5869.
"""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tasks.exchange.blob_store import BlobStore
from tasks.exchange.board import Board
from tasks.exchange.durable_files import create_once
from tasks.exchange.identity import Identity, Roster, secret_file
from tasks.exchange.mailbox import DirectoryMailbox
from tasks.rounds.attempts import AttemptVault

COORDINATOR = "coordinator"


def derive_key(secret: bytes, label: str) -> bytes:
    """Derive 32 bytes for one purpose from a 32-byte secret."""
    return HKDF(
        algorithm=hashes.SHA256(), length=32, salt=None, info=b"motet/site/v1\x00" + label.encode()
    ).derive(secret)


@dataclass(frozen=True)
class Site:
    """One party's directory.

    Attributes:
        name: The party.
        root: Its directory for one run; nothing of another party lies in it.
        home: Its directory for all runs, with keys and prepared data; None where there is one run.
    """

    name: str
    root: Path
    home: Path | None = None

    @property
    def lasting(self) -> Path:
        """Directory of what outlives a run."""
        return self.home or self.root

    @property
    def prepared(self) -> Path:
        """Directory of the prepared data."""
        return self.lasting / "prepared"

    def secret_path(self, name: str) -> Path:
        """File of a 32-byte secret."""
        return self.lasting / "keys" / name

    @property
    def identity(self) -> Identity:
        """The party's signing identity; its key is made at first."""
        return Identity(self.name, secret_file(self.secret_path("identity")))

    @property
    def store(self) -> BlobStore:
        """The party's private blobs; their digests never leave the site."""
        return BlobStore(self.root / "store")

    @property
    def vault(self) -> AttemptVault:
        """The root secrets of open secure sums."""
        return AttemptVault(self.lasting / "attempts")

    @property
    def results(self) -> Path:
        """Directory of the party's own tables and pictures."""
        return self.root / "results"

    def key(self, label: str) -> bytes:
        """Derive a private 32-byte key for one purpose."""
        return derive_key(secret_file(self.secret_path("site_secret")), label)

    def seed(self, label: str) -> int:
        """Derive a private non-negative 62-bit seed for one purpose."""
        return int.from_bytes(self.key(label)[:8], "big") >> 2

    def install_secret(self, name: str, secret: bytes) -> None:
        """Write a secret into the key directory unless one is there."""
        path = self.secret_path(name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        create_once(path, [secret])
        path.chmod(0o600)

    def board(self, *, mailbox: Path, roster: Roster, run_id: str) -> Board:
        """Open the mailbox as this party."""
        return Board(mailbox=DirectoryMailbox(mailbox), identity=self.identity, roster=roster, run_id=run_id)
