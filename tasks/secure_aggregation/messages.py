"""The five messages of secure aggregation: fixed layouts, one byte string per content, signed by their sender.

Why: a fixed layout leaves a parser nothing to interpret; what does not have the exact length, plan, sender and
signature is refused before any field is used. Runs: anywhere. Source: own; Ed25519 RFC 8032.

Every message is ``domain (28) | kind (1) | plan digest (32) | sender (2) | payload | signature (64)``, integers
big-endian, and the signature covers all before it. A masked vector's body follows its signed header.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NoReturn

from typing_extensions import Buffer

from data_contracts.errors import ProtocolError, UpdateMismatch
from tasks.exchange.identity import signature_holds
from tasks.secure_aggregation.attempt_secrets import PublicKeys
from tasks.secure_aggregation.graph import Graph
from tasks.secure_aggregation.key_encapsulation import KEM_CIPHERTEXT_BYTES, KEM_PUBLIC_BYTES
from tasks.secure_aggregation.keys import DOMAIN, KEY_BYTES, TAG_BYTES
from tasks.secure_aggregation.protocol import Attempt, Messages, commit_pair_secret, wrap_pair_secret
from tasks.secure_aggregation.shamir import SHARE_BYTES, in_range
from tasks.secure_aggregation.vector import body_digest

Signer = Callable[[bytes], bytes]

DIGEST_BYTES = 32
SIGNATURE_BYTES = 64
HEAD_BYTES = len(DOMAIN) + 1 + DIGEST_BYTES + 2
SEALED_BYTES = 2 * SHARE_BYTES + TAG_BYTES
GIVEN_BYTES = KEM_CIPHERTEXT_BYTES + KEY_BYTES + DIGEST_BYTES
MASKED_PADDING = 1
MASKED_HEADER_BYTES = (
    HEAD_BYTES + 2 * DIGEST_BYTES + MASKED_PADDING + SIGNATURE_BYTES
)  # 192: keeps the body aligned


class Kind(IntEnum):
    """Phase that a message belongs to; part of the signed bytes."""

    ADVERT = 1
    SHARES = 2
    MASKED = 3
    CONFIRMATION = 4
    UNMASKING = 5


@dataclass(frozen=True)
class Advert:
    """Phase 1: a partner's two fresh public keys, for seals and for masks."""

    cipher: PublicKeys
    mask: PublicKeys

    def pack(self) -> bytes:
        """Payload bytes."""
        return self.cipher.dh + self.mask.dh + self.cipher.kem + self.mask.kem

    @classmethod
    def parse(cls, message: Buffer, attempt: Attempt, *, sender: str) -> "Advert":
        """Verify and parse; raises ``ProtocolError`` naming the sender."""
        kem_bytes = KEM_PUBLIC_BYTES if attempt.is_hybrid else 0
        size = 2 * (KEY_BYTES + kem_bytes)
        payload = _open(message, attempt, kind=Kind.ADVERT, sender=sender, payload_bytes=size)
        dh = (payload[:KEY_BYTES], payload[KEY_BYTES : 2 * KEY_BYTES])
        kem = payload[2 * KEY_BYTES :]
        return cls(
            cipher=PublicKeys(dh=dh[0], kem=kem[:kem_bytes]), mask=PublicKeys(dh=dh[1], kem=kem[kem_bytes:])
        )

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All keys it shows."""
        return tuple(key for pair in (self.cipher, self.mask) for key in (pair.dh, pair.kem) if key)


@dataclass(frozen=True)
class Dealt:
    """What one holder gets of a dealer: a sealed pair of shares, commitments to both, and half of the seal's key.

    ``encapsulated`` carries the ML-KEM secret in the seal's key; it is empty where the plan has none.
    """

    sealed: bytes
    self_share_commitment: bytes
    mask_share_commitment: bytes
    encapsulated: bytes

    def pack(self) -> bytes:
        """Its bytes in a payload."""
        return self.sealed + self.self_share_commitment + self.mask_share_commitment + self.encapsulated


@dataclass(frozen=True)
class Given:
    """The secret of a pair as its giver sends it: an ML-KEM ciphertext, the wrapped secret, a commitment to it."""

    encapsulated: bytes
    wrapped: bytes
    commitment: bytes

    def pack(self) -> bytes:
        """Its bytes in a payload."""
        return self.encapsulated + self.wrapped + self.commitment

    def unwrap(self, kem_secret: bytes, attempt: Attempt, *, giver: str, taker: str) -> bytes:
        """Unwrap the pair secret and check it against its giver's commitment.

        Raises:
            ProtocolError: If it is another one, naming the giver.
        """
        value = wrap_pair_secret(self.wrapped, kem_secret, attempt, giver=giver, taker=taker)
        if commit_pair_secret(value, attempt, giver=giver, taker=taker) != self.commitment:
            raise ProtocolError(f"'{giver}' gave '{taker}' a pair secret that it did not commit to")
        return value


@dataclass(frozen=True)
class Shares:
    """Phase 2: the adverts' transcript, a commitment to the self seed, entries per holder and per taker in order."""

    transcript: bytes
    self_seed_commitment: bytes
    dealt: tuple[Dealt, ...]
    given: tuple[Given, ...]

    def pack(self) -> bytes:
        """Payload bytes."""
        dealt = b"".join(entry.pack() for entry in self.dealt)
        given = b"".join(entry.pack() for entry in self.given)
        return self.transcript + self.self_seed_commitment + dealt + given

    @classmethod
    def parse(
        cls, message: Buffer, attempt: Attempt, *, sender: str, transcript: bytes, graph: Graph
    ) -> "Shares":
        """Verify and parse; raises ``ProtocolError`` naming the sender."""
        n_holders, n_takers = len(graph.holders(sender)), len(attempt.takers(graph, sender))
        sizes = (SEALED_BYTES, DIGEST_BYTES, DIGEST_BYTES, KEM_CIPHERTEXT_BYTES if attempt.is_hybrid else 0)
        size = 2 * DIGEST_BYTES + n_holders * sum(sizes) + n_takers * GIVEN_BYTES
        payload = _open(message, attempt, kind=Kind.SHARES, sender=sender, payload_bytes=size)
        _demand_transcript(payload[:DIGEST_BYTES], transcript, sender=sender, phase="shares")
        read = _Reader(payload, at=2 * DIGEST_BYTES)
        return cls(
            transcript=transcript,
            self_seed_commitment=payload[DIGEST_BYTES : 2 * DIGEST_BYTES],
            dealt=tuple(Dealt(*map(read, sizes)) for _ in range(n_holders)),
            given=tuple(
                Given(*map(read, (KEM_CIPHERTEXT_BYTES, KEY_BYTES, DIGEST_BYTES))) for _ in range(n_takers)
            ),
        )


class _Reader:
    """Takes a payload apart, whose length has been checked."""

    def __init__(self, payload: bytes, *, at: int) -> None:
        self._payload, self._at = payload, at

    def __call__(self, size: int) -> bytes:
        piece = self._payload[self._at : self._at + size]
        self._at += size
        return piece


@dataclass(frozen=True)
class MaskedHeader:
    """Phase 3: the transcript of phases 1 and 2, and the digest of the body that follows."""

    transcript: bytes
    body_digest: bytes

    def pack(self) -> bytes:
        """Payload bytes, padded so that the body starts on a cache line."""
        return self.transcript + self.body_digest + bytes(MASKED_PADDING)

    @classmethod
    def parse(cls, message: Buffer, attempt: Attempt, *, sender: str, transcript: bytes) -> "MaskedHeader":
        """Verify and parse the header of a masked vector, and check the size of its body, not its digest.

        Raises:
            ProtocolError: Naming the sender.
        """
        view = memoryview(message).cast("B")
        expected = MASKED_HEADER_BYTES + attempt.layout.n_bytes
        if len(view) != expected:
            _refuse(Kind.MASKED, sender, f"has {len(view)} bytes, expected {expected}")
        header, size = view[:MASKED_HEADER_BYTES], 2 * DIGEST_BYTES + MASKED_PADDING
        payload = _open(header, attempt, kind=Kind.MASKED, sender=sender, payload_bytes=size)
        _demand_transcript(payload[:DIGEST_BYTES], transcript, sender=sender, phase="masked")
        if any(payload[2 * DIGEST_BYTES :]):
            _refuse(Kind.MASKED, sender, "has padding that is not zero")
        return cls(transcript=transcript, body_digest=payload[DIGEST_BYTES : 2 * DIGEST_BYTES])

    def check_body(self, body: memoryview, attempt: Attempt, *, sender: str, workers: int) -> None:
        """Check the body's digest.

        Raises:
            UpdateMismatch: If the body is not the one its sender signed.
        """
        if body_digest(attempt.layout, body, workers=workers) != self.body_digest:
            raise UpdateMismatch(
                f"masked vector of '{sender}' is not the one that '{sender}' signed; it was altered on its way"
            )


@dataclass(frozen=True)
class Confirmation:
    """Phase 4: the survivors that a partner was shown; its signature is evidence if others saw different ones."""

    transcript: bytes
    survivors: bytes

    def pack(self) -> bytes:
        """Payload bytes."""
        return self.transcript + self.survivors

    @classmethod
    def parse(
        cls, message: Buffer, attempt: Attempt, *, sender: str, transcript: bytes, survivors: bytes
    ) -> "Confirmation":
        """Verify and parse; ``survivors`` is the one bitmap that is accepted.

        Raises:
            ProtocolError: Naming the sender.
        """
        size = DIGEST_BYTES + attempt.bitmap_bytes
        payload = _open(message, attempt, kind=Kind.CONFIRMATION, sender=sender, payload_bytes=size)
        _demand_transcript(payload[:DIGEST_BYTES], transcript, sender=sender, phase="confirmation")
        if payload[DIGEST_BYTES:] != survivors:
            _refuse(
                Kind.CONFIRMATION, sender, "signs another set of survivors: two sets were shown in one round"
            )
        return cls(transcript=transcript, survivors=survivors)


@dataclass(frozen=True)
class Unmasking:
    """Phase 5: for each dealer in order one share, of its self seed if it survived, else of its mask seed."""

    transcript: bytes
    survivors: bytes
    shares: tuple[bytes, ...]

    def pack(self) -> bytes:
        """Payload bytes."""
        return self.transcript + self.survivors + b"".join(self.shares)

    @classmethod
    def parse(
        cls,
        message: Buffer,
        attempt: Attempt,
        *,
        sender: str,
        transcript: bytes,
        survivors: bytes,
        n_dealers: int,
    ) -> "Unmasking":
        """Verify and parse; raises ``ProtocolError`` naming the sender."""
        start = DIGEST_BYTES + attempt.bitmap_bytes
        size = start + n_dealers * SHARE_BYTES
        payload = _open(message, attempt, kind=Kind.UNMASKING, sender=sender, payload_bytes=size)
        _demand_transcript(payload[:DIGEST_BYTES], transcript, sender=sender, phase="unmasking")
        if payload[DIGEST_BYTES:start] != survivors:
            _refuse(Kind.UNMASKING, sender, "answers for another set of survivors")
        shares = tuple(payload[at : at + SHARE_BYTES] for at in range(start, size, SHARE_BYTES))
        if not all(in_range(share) for share in shares):
            _refuse(Kind.UNMASKING, sender, "holds a share outside the field")
        return cls(transcript=transcript, survivors=survivors, shares=shares)


def sign(payload: bytes, attempt: Attempt, *, kind: Kind, sender: str, signer: Signer) -> bytes:
    """Make a message: head, payload, and the sender's signature over both."""
    signed = _head(attempt, kind=kind, sender=sender) + payload
    return signed + signer(signed)


def parse_adverts(attempt: Attempt, adverts: Messages) -> dict[str, Advert]:
    """Verify and parse all adverts, in the cohort's order.

    Raises:
        ProtocolError: If one does not verify or a public key occurs twice, naming who deviates.
    """
    parsed: dict[str, Advert] = {}
    owner: dict[bytes, str] = {}

    def check(sender: str) -> None:
        advert = Advert.parse(adverts[sender], attempt, sender=sender)
        claim_keys(advert, owner, sender=sender)
        parsed[sender] = advert

    collect_refusals(attempt.in_order(adverts), check)
    return parsed


def claim_keys(advert: Advert, owner: dict[bytes, str], *, sender: str) -> None:
    """Record whose keys these are.

    Raises:
        ProtocolError: If one of them has been advertised before.
    """
    for key in advert.keys:
        if key in owner:
            _refuse(Kind.ADVERT, sender, f"repeats a public key that '{owner[key]}' has advertised")
        owner[key] = sender


def collect_refusals(senders: Iterable[str], check: Callable[[str], None]) -> None:
    """Check every sender's message and raise one error that names all that deviate.

    Raises:
        ProtocolError: If any check did.
    """
    refusals = []
    for sender in senders:
        try:
            check(sender)
        except ProtocolError as exc:
            refusals.append(exc)
    if len(refusals) == 1:
        raise refusals[0]
    if refusals:
        raise ProtocolError("; ".join(str(refusal) for refusal in refusals))


def _head(attempt: Attempt, *, kind: Kind, sender: str) -> bytes:
    return DOMAIN + bytes([kind]) + attempt.digest + attempt.position(sender).to_bytes(2, "big")


def _open(message: Buffer, attempt: Attempt, *, kind: Kind, sender: str, payload_bytes: int) -> bytes:
    """Return a message's payload once its length, head and signature are right."""
    view = memoryview(message).cast("B")
    head = _head(attempt, kind=kind, sender=sender)
    expected = len(head) + payload_bytes + SIGNATURE_BYTES
    if len(view) != expected:
        _refuse(kind, sender, f"has {len(view)} bytes, expected {expected}")
    data = bytes(view)
    if not data.startswith(head):
        _refuse(
            kind, sender, "was made for another plan, phase or sender: a replay, or a plan shown differently"
        )
    signed, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
    if not signature_holds(attempt.identities[sender].hex(), signature=signature, message=signed):
        _refuse(kind, sender, "carries no valid signature of its pinned key")
    return signed[len(head) :]


def _demand_transcript(got: bytes, expected: bytes, *, sender: str, phase: str) -> None:
    if got != expected:
        raise ProtocolError(
            f"{phase} message of '{sender}' follows another transcript: not all were shown the same messages before"
        )


def _refuse(kind: Kind, sender: str, why: str) -> NoReturn:
    raise ProtocolError(f"{kind.name.lower()} message of '{sender}' {why}")
