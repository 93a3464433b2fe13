"""Sealing a short secret to one party: only the holder of its sealing key opens it.

Why: what partners share must pass through a mailbox that others run, and what is recorded today must stay closed.
Runs: on the partner. Source: own; X25519 (RFC 7748) and ML-KEM-768 (FIPS 203) into one HKDF-SHA256 (RFC 5869),
so that either alone protects, then ChaCha20-Poly1305 (RFC 8439).
"""

import os

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from data_contracts.errors import ProtocolError, SettingsError

X25519_BYTES = 32
KEM_PUBLIC_BYTES = 1184
KEM_CIPHERTEXT_BYTES = 1088
TAG_BYTES = 16
SEALING_PUBLIC_BYTES = X25519_BYTES + KEM_PUBLIC_BYTES
OVERHEAD_BYTES = X25519_BYTES + KEM_CIPHERTEXT_BYTES + TAG_BYTES
_DOMAIN = b"motet/seal/v1\x00"
_NONCE = bytes(12)  # every key is used once


class SealingKey:
    """A party's private sealing key.

    Args:
        secret: 32 bytes from the system's generator; both halves derive from it.

    Raises:
        SettingsError: If this installation's cryptographic library has no ML-KEM.
    """

    def __init__(self, secret: bytes) -> None:
        self._x25519 = X25519PrivateKey.from_private_bytes(derive_secret(secret, b"x25519", length=32))
        try:
            self._kem = MLKEM768PrivateKey.from_seed_bytes(derive_secret(secret, b"ml-kem-768", length=64))
        except UnsupportedAlgorithm:
            raise SettingsError(
                "the cryptographic library of this site has no ML-KEM-768",
                advice="install the wheels of `cryptography` 50 (OpenSSL 3.5 or later)",
            ) from None

    @property
    def public(self) -> bytes:
        """Both public keys, 1216 bytes."""
        return self._x25519.public_key().public_bytes_raw() + self._kem.public_key().public_bytes_raw()

    def open(self, sealed: bytes, *, context: bytes, who: str) -> bytes:
        """Open what was sealed to this key in this context.

        Raises:
            ProtocolError: If it was not, naming who sealed it.
        """
        ephemeral, rest = sealed[:X25519_BYTES], sealed[X25519_BYTES:]
        ciphertext, body = rest[:KEM_CIPHERTEXT_BYTES], rest[KEM_CIPHERTEXT_BYTES:]
        try:
            first = self._x25519.exchange(X25519PublicKey.from_public_bytes(ephemeral))
            second = self._kem.decapsulate(ciphertext)
            key = _key(first, second, public=self.public, ephemeral=ephemeral, ciphertext=ciphertext)
            return ChaCha20Poly1305(key).decrypt(_NONCE, body, _DOMAIN + context)
        except (InvalidTag, ValueError):
            raise ProtocolError(
                f"what '{who}' sealed does not open with the key of this site; it must be sealed anew to the key on "
                f"the roster"
            ) from None


def seal(secret: bytes, *, public: bytes, context: bytes, who: str) -> bytes:
    """Seal a secret to a party's sealing key.

    Args:
        secret: What to seal; short.
        public: The recipient's public sealing key, 1216 bytes.
        context: What the secret is for; it opens in the same context only.
        who: The recipient, for the error message.

    Returns:
        ``OVERHEAD_BYTES`` more than the secret.

    Raises:
        ProtocolError: If the key is none.
    """
    try:
        recipient = X25519PublicKey.from_public_bytes(public[:X25519_BYTES])
        private = X25519PrivateKey.from_private_bytes(os.urandom(X25519_BYTES))
        first = private.exchange(recipient)
        second, ciphertext = MLKEM768PublicKey.from_public_bytes(public[X25519_BYTES:]).encapsulate()
    except ValueError:
        raise ProtocolError(f"the sealing key of '{who}' is malformed; it must enrol anew") from None
    ephemeral = private.public_key().public_bytes_raw()
    key = _key(first, second, public=public, ephemeral=ephemeral, ciphertext=ciphertext)
    return ephemeral + ciphertext + ChaCha20Poly1305(key).encrypt(_NONCE, secret, _DOMAIN + context)


def _key(first: bytes, second: bytes, *, public: bytes, ephemeral: bytes, ciphertext: bytes) -> bytes:
    transcript = hashes.Hash(hashes.SHA256())
    for part in (public, ephemeral, ciphertext):
        transcript.update(part)
    return derive_secret(first + second, transcript.finalize(), length=32)


def derive_secret(secret: bytes, label: bytes, *, length: int) -> bytes:
    """Derive bytes for one purpose from a secret (HKDF-SHA256)."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=_DOMAIN + label).derive(secret)
