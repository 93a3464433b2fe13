"""Keys of one attempt: everything derives from one root secret, the plan and the transcript.

Why: fresh keys each attempt, bound to what was agreed; a restart with the same root repeats every byte.
Runs: on the partner; the coordinator rebuilds the mask keys of partners that dropped out.
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


@dataclass(frozen=True)
class AttemptSecrets:
    """A partner's secrets for one attempt.

    Attributes:
        cipher: Key pair that shares are sealed under; its secret half is never shared.
        mask: Key pair of the pairwise masks.
        mask_seed: What ``mask`` derives from; shared among the holders, to remove this partner's pairwise
            masks should it drop out.
        self_seed: Key of the self mask; shared among the holders, to remove it once this partner survived.
        polynomial_keys: Keys of the two sharing polynomials, for ``self_seed`` and ``mask_seed``.
    """

    cipher: KeyPair = field(repr=False)
    mask: KeyPair = field(repr=False)
    mask_seed: bytes = field(repr=False)
    self_seed: bytes = field(repr=False)
    polynomial_keys: tuple[bytes, bytes] = field(repr=False)

    @classmethod
    def from_root(cls, root: bytes, *, plan_digest: bytes) -> "AttemptSecrets":
        """Derive all secrets of an attempt.

        Args:
            root: 32 secret bytes, used for one attempt only.
            plan_digest: SHA-256 of the plan, 32 bytes.

        Raises:
            ValueError: If the root has another size.
        """
        if len(root) != KEY_BYTES:
            raise ValueError(f"the attempt's root has {len(root)} bytes, expected {KEY_BYTES}")
        mask_seed = derive(root, label="mask-seed", context=plan_digest)
        return cls(
            cipher=KeyPair.from_seed(root, label="cipher-key", context=plan_digest),
            mask=mask_key_pair(mask_seed, plan_digest=plan_digest),
            mask_seed=mask_seed,
            self_seed=derive(root, label="self-seed", context=plan_digest),
            polynomial_keys=(
                derive(root, label="self-polynomial", context=plan_digest),
                derive(root, label="mask-polynomial", context=plan_digest),
            ),
        )


def mask_key_pair(mask_seed: bytes, *, plan_digest: bytes) -> KeyPair:
    """Rebuild the key pair of a partner's pairwise masks from its seed."""
    return KeyPair.from_seed(mask_seed, label="mask-key", context=plan_digest)


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
