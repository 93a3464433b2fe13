"""ML-KEM-768 beside X25519: what is recorded today must not open when elliptic curves fall.

Why: masked vectors and sealed shares lie in a mailbox for years, and compounds stay secret for longer.
Runs: on the partner; the coordinator rebuilds the keys of partners that dropped out.
Source: FIPS 203 through ``cryptography``; both secrets enter one HKDF, so either alone protects.
"""

from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

from data_contracts.errors import AgreementViolation, ProtocolError
from tasks.secure_aggregation.keys import derive

KEM_PUBLIC_BYTES = 1184
KEM_CIPHERTEXT_BYTES = 1088


@dataclass(frozen=True)
class KemPair:
    """An ML-KEM-768 key pair made from a 32-byte seed."""

    public: bytes
    _private: MLKEM768PrivateKey = field(repr=False)

    @classmethod
    def from_seed(cls, seed: bytes, *, label: str, context: bytes) -> "KemPair":
        """Derive the pair; the same seed, label and context give the same pair.

        Raises:
            AgreementViolation: If this installation's cryptographic library has no ML-KEM.
        """
        both = b"".join(derive(seed, label=f"{label}-{half}", context=context) for half in ("d", "z"))
        try:
            private = MLKEM768PrivateKey.from_seed_bytes(both)
        except UnsupportedAlgorithm:
            raise AgreementViolation(
                "the plan asks for ML-KEM-768, which the cryptographic library of this site does not have",
                advice="install the wheels of `cryptography` 50 (OpenSSL 3.5 or later), or plan for x25519 alone",
            ) from None
        return cls(public=private.public_key().public_bytes_raw(), _private=private)

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return the 32-byte secret of a ciphertext of 1088 bytes; one made for another key gives another secret."""
        return self._private.decapsulate(ciphertext)


def encapsulate(public: bytes, *, who: str) -> tuple[bytes, bytes]:
    """Make a secret that only the holder of a key can recover. The one step that draws fresh randomness.

    Returns:
        The 32-byte secret, and the ciphertext (1088 bytes) that carries it.

    Raises:
        ProtocolError: If the peer's key is none.
    """
    try:
        return MLKEM768PublicKey.from_public_bytes(public).encapsulate()
    except ValueError:
        raise ProtocolError(
            f"ML-KEM key of '{who}' is malformed; its sender deviates from the protocol"
        ) from None
