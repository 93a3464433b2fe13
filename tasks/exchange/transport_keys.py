"""A party's transport key and certificate: how the mailbox knows who calls, and callers know the mailbox.

Why: both ends pin each other's certificate from the roster, so no certificate authority can vouch for a stranger.
Runs: on every site. Source: own; self-signed Ed25519 certificates (RFC 8410), TLS 1.3 (RFC 8446).
"""

import os
import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from data_contracts.errors import SettingsError

VALID_DAYS = 3650
EARLIER = timedelta(days=2)  # another site's clock may be behind


def make_transport_key(path: Path, *, name: str, now: datetime) -> str:
    """Make a key and its self-signed certificate, once, in a file that only its owner reads.

    Args:
        path: PEM file of both.
        name: The party.
        now: The time from which the certificate holds.

    Returns:
        The certificate as PEM.
    """
    key = Ed25519PrivateKey.generate()
    # OpenSSL finds a pinned certificate by its subject, so no two may share one, not even of one party.
    own = x509.NameAttribute(NameOID.SERIAL_NUMBER, os.urandom(16).hex())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), own])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, None)
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = certificate.public_bytes(Encoding.PEM)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private + public)
    return public.decode()


def certificate_bytes(certificate: str) -> bytes:
    """The DER form of a PEM certificate: what a TLS connection shows of its peer.

    Raises:
        SettingsError: If it is none.
    """
    try:
        return ssl.PEM_cert_to_DER_cert(certificate)
    except ValueError:
        raise SettingsError(
            "a certificate of the roster is no PEM certificate; its owner must enrol anew"
        ) from None


def subject_of(certificate: str) -> str:
    """The subject of a PEM certificate; what is none is its own subject."""
    try:
        return x509.load_pem_x509_certificate(certificate.encode()).subject.rfc4514_string()
    except ValueError:
        return certificate


def mailbox_context(key: Path, *, parties: Sequence[str]) -> ssl.SSLContext:
    """TLS of the mailbox: it answers nobody who does not hold the key of one of these certificates.

    Args:
        key: The mailbox's own PEM file.
        parties: Certificates of all parties, PEM.
    """
    return _context(ssl.PROTOCOL_TLS_SERVER, key, pinned=parties)


def party_context(key: Path, *, mailbox: str) -> ssl.SSLContext:
    """TLS of a party: it talks to nobody but the holder of the key of the mailbox's certificate."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, key, pinned=[mailbox])


def _context(protocol: int, key: Path, *, pinned: Sequence[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the certificate itself is pinned; a name would add nothing
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(key)
        context.load_verify_locations(cadata="\n".join(pinned))
    except (OSError, ssl.SSLError):
        raise SettingsError(
            f"the transport key '{key.name}' or a certificate of the roster cannot be used",
            advice="restore the key from a backup, or enrol anew with `motet init`",
        ) from None
    return context
