"""The primitives that keys are made of: derivation, commitment, Diffie-Hellman, sealing.

Why: each use has a label and a context of its own, so no key ever serves two purposes. Runs: anywhere.
Source: HKDF RFC 5869 (SHA-256), X25519 RFC 7748, ChaCha20-Poly1305 RFC 8439, through ``cryptography``.
"""

import hashlib
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from data_contracts.errors import ProtocolError

KEY_BYTES = 32
TAG_BYTES = 16
DOMAIN = b"motet/secure-aggregation/v1\x00"
_ONE_USE_NONCE = bytes(12)  # each key seals one message, so a constant nonce never repeats under a key


def derive(secret: bytes, *, label: str, context: bytes) -> bytes:
    """Derive a 32-byte key: HKDF-SHA256 without salt, ``info = domain | label | 0 | context``.

    Args:
        secret: Input key material.
        label: What the key is for; no two uses share one.
        context: The plan's digest or the transcript, and whom it concerns; of fixed length under one label.
    """
    info = DOMAIN + label.encode() + b"\x00" + context
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


def commitment(value: bytes, *, label: str, context: bytes) -> bytes:
    """Commit to a secret of at least 256 bits of entropy: SHA-256 over domain, label, context and value."""
    return hashlib.sha256(DOMAIN + label.encode() + b"\x00" + context + value).digest()


@dataclass(frozen=True)
class KeyPair:
    """An X25519 key pair made from a 32-byte seed."""

    public: bytes
    _private: X25519PrivateKey = field(repr=False)

    @classmethod
    def from_seed(cls, seed: bytes, *, label: str, context: bytes) -> "KeyPair":
        """Derive the pair; the same seed, label and context give the same pair."""
        private = X25519PrivateKey.from_private_bytes(derive(seed, label=label, context=context))
        return cls(public=private.public_key().public_bytes_raw(), _private=private)

    def shared_with(self, public: bytes, *, who: str) -> bytes:
        """Diffie-Hellman secret with a peer's public key, 32 bytes, to be passed through :func:`derive`.

        Raises:
            ProtocolError: If the peer's key is a point of low order.
        """
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise ProtocolError(
                f"public key of '{who}' is a point of low order; its sender deviates from the protocol"
            ) from None


def seal(plaintext: bytes, *, key: bytes, bound_to: bytes) -> bytes:
    """Encrypt and authenticate one message under a key of its own; 16 bytes longer than the plaintext."""
    return ChaCha20Poly1305(key).encrypt(_ONE_USE_NONCE, plaintext, bound_to)


def unseal(ciphertext: bytes, *, key: bytes, bound_to: bytes, who: str) -> bytes:
    """Open what :func:`seal` made.

    Raises:
        ProtocolError: If it was made under another key or for another place, naming its sender.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(_ONE_USE_NONCE, ciphertext, bound_to)
    except InvalidTag:
        raise ProtocolError(
            f"sealed shares of '{who}' do not open; '{who}' deviates from the protocol or holds another transcript"
        ) from None
