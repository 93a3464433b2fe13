"""The signed envelope of every message between sites.

Why: a mailbox may be run by anybody, so who said what, in which round, about which bytes, is bound by the
sender's signature. A body is data of a named contract: never code, an import path, a pickle or an address.
Runs: anywhere. Source: own; Ed25519 (RFC 8032) over domain-separated canonical JSON (RFC 8785).
"""

import base64
import hashlib
from enum import StrEnum
from functools import cached_property
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_contracts.canonical_json import canonical_bytes, parse_canonical
from data_contracts.errors import ProtocolError
from data_contracts.frozen import Frozen
from data_contracts.plan import PartyName, RunId
from data_contracts.references import BlobReference

SIGNATURE_DOMAIN = b"motet/envelope/v1\x00"
KIB, GIB = 2**10, 2**30
INLINE_BYTES = 16 * KIB  # a body up to here travels in its envelope: one request to post it, one to read it
MAX_ENVELOPE_BYTES = 32 * KIB


class Kind(StrEnum):
    """What a message may be; each kind has one role that may send it and a size cap."""

    PLAN = "plan"
    ADVERT = "advert"
    ADVERTS_CLOSED = "adverts-closed"
    SHARES = "shares"
    SHARES_CLOSED = "shares-closed"
    MASKED = "masked"
    SURVIVORS = "survivors"
    CONFIRMATION = "confirmation"
    CONFIRMATIONS_CLOSED = "confirmations-closed"
    UNMASKING = "unmasking"
    RESULT = "result"
    ABANDONED = "abandoned"
    RUN_CLOSED = "run-closed"
    RUN_OPENED = "run-opened"
    RUN_ANSWER = "run-answer"
    ROSTER_ACCEPTED = "roster-accepted"
    CONSORTIUM_SECRET = "consortium-secret"  # noqa: S105 - the name of a message, which holds it sealed
    REFUSAL = "refusal"
    PREPARED = "prepared"
    RUN_KEY = "run-key"
    RUN_LEADER = "run-leader"


COORDINATOR_KINDS = frozenset(
    {
        Kind.PLAN,
        Kind.ADVERTS_CLOSED,
        Kind.SHARES_CLOSED,
        Kind.SURVIVORS,
        Kind.CONFIRMATIONS_CLOSED,
        Kind.RESULT,
        Kind.ABANDONED,
        Kind.RUN_CLOSED,
        Kind.RUN_OPENED,
        Kind.RUN_KEY,
        Kind.RUN_LEADER,
    }
)

# Cap on the body, read before the body is: the masked vector may be large, all else is small.
MAX_BODY_BYTES: dict[Kind, int] = dict.fromkeys(Kind, 512 * KIB) | {
    Kind.SHARES: 4096 * KIB,
    Kind.CONSORTIUM_SECRET: 4096 * KIB,  # one seal for each partner
    Kind.RUN_KEY: 4096 * KIB,
    Kind.MASKED: 8 * GIB,
}


# What only repeating a sum needs lies apart however small it is, so that it can be removed when its time is over.
APART_KINDS = frozenset({Kind.MASKED, Kind.SHARES, Kind.UNMASKING})


def is_inline(kind: Kind, n_bytes: int) -> bool:
    """Whether a body travels in its envelope: the message has one form, which nobody on the way can change."""
    return kind not in APART_KINDS and n_bytes <= INLINE_BYTES


class Slot(NamedTuple):
    """The one place of a message: two different messages for one slot are equivocation."""

    run_id: str
    round: int
    attempt: int
    kind: Kind
    sender: str


class Head(Frozen):
    """What the sender signs."""

    v: Literal[1] = 1
    run_id: RunId
    round: int = Field(ge=0, le=100_000)
    attempt: int = Field(ge=0, le=1000)
    kind: Kind
    sender: PartyName
    plan_digest: str = Field(pattern=r"^([0-9a-f]{64})?$")
    body: BlobReference

    @property
    def slot(self) -> Slot:
        """Where this message belongs."""
        return Slot(self.run_id, self.round, self.attempt, self.kind, self.sender)

    @cached_property
    def signed_bytes(self) -> bytes:
        """The bytes under the signature; made once, for every party of a process checks the same head."""
        return SIGNATURE_DOMAIN + canonical_bytes(self.model_dump(mode="json"))


class Envelope(BaseModel):
    """A head, its Ed25519 signature (128 hexadecimal characters), and a small body in base64; others lie apart.

    The signature covers the body through its digest in the head.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: Head
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")
    inline: str | None = Field(default=None, max_length=MAX_ENVELOPE_BYTES)

    def to_bytes(self) -> bytes:
        """Serialize to canonical JSON."""
        return canonical_bytes(self.model_dump(mode="json", exclude_none=True))

    @property
    def body(self) -> bytes | None:
        """The body, if it lies in the envelope."""
        return None if self.inline is None else base64.b64decode(self.inline)

    def holds_its_body(self) -> bool:
        """Whether a body that belongs into the envelope lies there, the announced one in its one spelling, and no other."""
        announced = self.head.body
        if self.inline is None:
            return not is_inline(self.head.kind, announced.bytes)
        try:
            body = base64.b64decode(self.inline, validate=True)
        except ValueError:
            return False
        return (
            is_inline(self.head.kind, len(body))
            and base64.b64encode(body).decode() == self.inline
            and (len(body), hashlib.sha256(body).hexdigest()) == (announced.bytes, announced.sha256)
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, slot: Slot) -> "Envelope":
        """Parse an envelope found at ``slot``; the signature is not yet checked.

        Raises:
            ProtocolError: If it is malformed, too large, or belongs to another slot.
        """
        value = parse_canonical(data, who=slot.sender, max_bytes=MAX_ENVELOPE_BYTES)
        try:
            envelope = cls.model_validate_json(data)
        except ValidationError as exc:
            fields = sorted({str(error["loc"][-1]) for error in exc.errors() if error["loc"]}) or ["envelope"]
            raise ProtocolError(
                f"message '{slot.kind}' of '{slot.sender}' has malformed fields: {', '.join(fields)[:200]}"
            ) from None
        if envelope.head.slot != slot or not isinstance(value, dict) or value.get("inline", "") is None:
            raise ProtocolError(
                f"message at the place of '{slot.sender}' ({slot.kind}, round {slot.round}, attempt {slot.attempt}) "
                f"belongs elsewhere; it was moved or replayed"
            )
        if envelope.head.body.bytes > MAX_BODY_BYTES[slot.kind]:
            raise ProtocolError(
                f"'{slot.kind}' of '{slot.sender}' announces {envelope.head.body.bytes} bytes, "
                f"at most {MAX_BODY_BYTES[slot.kind]} are allowed"
            )
        if not envelope.holds_its_body():
            raise ProtocolError(
                f"'{slot.kind}' of '{slot.sender}' holds a body that is not the announced one; it must be sent again"
            )
        return envelope
