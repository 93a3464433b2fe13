"""Who is who: a party's signing key, and the roster of public keys that all have pinned.

Why: a message counts only under a key of the roster. Runs: anywhere.
Source: Ed25519, RFC 8032, through the ``cryptography`` package.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_contracts.errors import SettingsError
from data_contracts.plan import PartyName
from tasks.exchange.durable_files import SCRAP_PREFIX, create_once

KEY_BYTES = 32
MOST_ANSWERS = 1024


def secret_file(path: Path) -> bytes:
    """Read a 32-byte secret that only its owner can read, creating it from the system's generator at first.

    Of several that create it at once all read the same; a kill leaves no file or a whole one.

    Raises:
        SettingsError: If the file has another size or is readable by others.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        create_once(path, [os.urandom(KEY_BYTES)])
    found = path.stat()
    if found.st_nlink > 1:
        _remove_second_names(path, found)
    if found.st_mode & 0o077:
        raise SettingsError(f"secret file '{path.name}' is readable by others; run: chmod 600 {path}")
    secret = path.read_bytes()
    if len(secret) != KEY_BYTES:
        raise SettingsError(f"secret file '{path.name}' has {len(secret)} bytes, expected {KEY_BYTES}")
    return secret


def _remove_second_names(path: Path, found: os.stat_result) -> None:
    """Remove what a kill left of a secret's making: whoever removes the secret must not leave it under another name."""
    for scrap in path.parent.glob(f"{SCRAP_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            if os.path.samestat(scrap.stat(), found):
                scrap.unlink()


class Identity:
    """A party's name and Ed25519 signing key.

    Args:
        name: The party.
        seed: The 32-byte private key.
    """

    def __init__(self, name: str, seed: bytes) -> None:
        self.name = name
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    def sign(self, message: bytes) -> bytes:
        """Sign bytes that begin with a domain of their own; 64 bytes."""
        return self._key.sign(message)

    @property
    def public_key(self) -> bytes:
        """Raw public key, 32 bytes."""
        return self._key.public_key().public_bytes_raw()


class Roster(BaseModel):
    """The parties of a consortium and their pinned public keys (hexadecimal).

    Attributes:
        coordinator: Who leads.
        public_keys: The one key of each party that counts.
        retired_keys: Keys that parties had before and have rotated out; they count no more, and errors say so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    coordinator: PartyName
    public_keys: dict[PartyName, str] = Field(min_length=3)
    retired_keys: dict[PartyName, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _keys_are_distinct(self) -> Self:
        if self.coordinator not in self.public_keys:
            raise ValueError("the coordinator has no key")
        if len(set(self.public_keys.values())) != len(self.public_keys):
            raise ValueError("two parties have the same key")
        if any(len(key) != 2 * KEY_BYTES for key in self.public_keys.values()):
            raise ValueError("a public key is not 32 bytes")
        return self

    @property
    def partners(self) -> tuple[str, ...]:
        """Names of all partners, sorted."""
        return tuple(sorted(set(self.public_keys) - {self.coordinator}))

    @property
    def partner_keys(self) -> Mapping[str, bytes]:
        """Raw public keys of the partners by name."""
        return {name: bytes.fromhex(self.public_keys[name]) for name in self.partners}

    def verifies(self, sender: str, *, signature: bytes, message: bytes) -> bool:
        """Whether ``sender`` is on the roster and signed ``message``."""
        key = self.public_keys.get(sender)
        return key is not None and signature_holds(key, signature=signature, message=message)

    def verified_once(self, sender: str, *, signature: bytes, message: bytes) -> bool:
        """Whether a key that ``sender`` has rotated out signed ``message``."""
        keys = self.retired_keys.get(sender, ())
        return any(signature_holds(key, signature=signature, message=message) for key in keys)


def signature_holds(public_key: str, *, signature: bytes, message: bytes) -> bool:
    """Whether a message was signed with the private half of a raw Ed25519 key (hexadecimal).

    Answers are remembered by the message's digest: every party of a process meets the same messages, and what they say
    must not outlive its round in memory.
    """
    asked = (public_key, signature, hashlib.sha256(message).digest())
    holds = _ANSWERS.get(asked)
    if holds is None:
        if len(_ANSWERS) >= MOST_ANSWERS:
            _ANSWERS.clear()
        holds = _ANSWERS[asked] = _verify(*asked[:2], message)
    return holds


def _verify(public_key: str, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


_ANSWERS: dict[tuple[str, bytes, bytes], bool] = {}
