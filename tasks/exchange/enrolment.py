"""Enrolment files and the signed roster that they make: who takes part, under which keys.

Why: every later signature, seal and connection is checked against keys that all parties have seen and pinned.
Runs: anywhere; the coordinator assembles, everybody checks. Source: own; Ed25519, RFC 8032.
"""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_contracts.canonical_json import canonical_bytes, digest_of
from data_contracts.errors import ProtocolError
from data_contracts.plan import MAX_PARTNERS, PartyName
from tasks.exchange.identity import Identity, Roster, signature_holds
from tasks.exchange.sealing import SEALING_PUBLIC_BYTES
from tasks.exchange.transport_keys import subject_of

ENROLMENT_DOMAIN = b"motet/enrolment/v1\x00"
ROSTER_DOMAIN = b"motet/roster/v1\x00"
ROTATION_DOMAIN = b"motet/rotation/v1\x00"
DEPARTURE_DOMAIN = b"motet/departure/v1\x00"
MAX_ENROLMENT_BYTES = 16 * 2**10
MAX_ROSTER_BYTES = 16 * 2**20
MIN_PARTNERS = 3
MAX_AUDITORS = 64

Role = Literal["coordinator", "partner", "mailbox", "auditor"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
Read = TypeVar("Read", bound=BaseModel)


class Statement(BaseModel):
    """What a party says of itself.

    Attributes:
        role: What it is in the consortium.
        name: Its name on every message.
        public_key: Raw Ed25519 key, hexadecimal: its signature counts.
        sealing_key: Raw X25519 and ML-KEM-768 keys, hexadecimal: only it opens what is sealed to them.
        certificate: PEM certificate that it shows and expects on connections.
        address: Of a mailbox, ``host:port``; of others None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Literal[1] = 1
    role: Role
    name: PartyName
    public_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    sealing_key: str = Field(pattern=rf"^[0-9a-f]{{{2 * SEALING_PUBLIC_BYTES}}}$")
    certificate: str = Field(max_length=4096)
    address: str | None = Field(default=None, pattern=r"^[A-Za-z0-9.-]{1,253}:[0-9]{1,5}$")

    @model_validator(mode="after")
    def _only_a_mailbox_has_an_address(self) -> Self:
        if (self.address is not None) != (self.role == "mailbox"):
            raise ValueError("a mailbox, and nobody else, has an address")
        return self

    @property
    def signed_bytes(self) -> bytes:
        """The bytes under the signature."""
        return ENROLMENT_DOMAIN + canonical_bytes(self.model_dump(mode="json"))


class Enrolment(BaseModel):
    """A statement, signed with the key that it names: who enrols a key holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    statement: Statement
    signature: Signature

    @classmethod
    def make(cls, statement: Statement, identity: Identity) -> "Enrolment":
        """Sign a statement."""
        return cls(statement=statement, signature=identity.sign(statement.signed_bytes).hex())

    @model_validator(mode="after")
    def _is_signed(self) -> Self:
        key, said = self.statement.public_key, self.statement.signed_bytes
        if not signature_holds(key, signature=bytes.fromhex(self.signature), message=said):
            raise ValueError(f"the enrolment of '{self.statement.name}' is not signed with its own key")
        return self


class Rotation(BaseModel):
    """New keys of a party: an enrolment signed with the new key, and the old key's word for it.

    Attributes:
        enrolment: What the party says of itself from now on; its own signature proves that it holds the new key.
        previous: Digest of the roster that the old key stands on.
        signature: By the old key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enrolment: Enrolment
    previous: Digest
    signature: Signature

    @classmethod
    def make(cls, enrolment: Enrolment, *, previous: str, old: Identity) -> "Rotation":
        """Let the old key vouch for the new ones."""
        signature = old.sign(_rotation_bytes(enrolment, previous)).hex()
        return cls(enrolment=enrolment, previous=previous, signature=signature)

    def is_signed_with(self, old_key: str) -> bool:
        """Whether a public key, hexadecimal, vouches for it."""
        said = _rotation_bytes(self.enrolment, self.previous)
        return signature_holds(old_key, signature=bytes.fromhex(self.signature), message=said)


class Departure(BaseModel):
    """A party's word that it leaves, signed with its key of the previous roster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PartyName
    previous: Digest
    signature: Signature

    @classmethod
    def make(cls, *, previous: str, leaver: Identity) -> "Departure":
        """Sign one's own departure."""
        signature = leaver.sign(_departure_bytes(leaver.name, previous)).hex()
        return cls(name=leaver.name, previous=previous, signature=signature)

    def is_signed_with(self, old_key: str) -> bool:
        """Whether a public key, hexadecimal, signed it."""
        said = _departure_bytes(self.name, self.previous)
        return signature_holds(old_key, signature=bytes.fromhex(self.signature), message=said)


class Succession(BaseModel):
    """What ties a roster to the one before.

    Attributes:
        version: Its number; the first roster of a consortium is 1.
        previous: Digest of the roster before.
        previous_until: Runs planned under the roster before may go on until then.
        joined: Names that were not on the roster before.
        rotations: Parties with new keys.
        departures: Parties that have said that they leave.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(ge=2, le=100_000)
    previous: Digest
    previous_until: AwareDatetime
    joined: tuple[PartyName, ...] = Field(default=(), max_length=MAX_PARTNERS)
    rotations: tuple[Rotation, ...] = Field(default=(), max_length=MAX_PARTNERS)
    departures: tuple[Departure, ...] = Field(default=(), max_length=MAX_PARTNERS)


class SignedRoster(BaseModel):
    """All enrolments of a consortium, signed by its coordinator; parties compare and pin its digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Literal[1] = 1
    enrolments: tuple[Enrolment, ...] = Field(max_length=MAX_PARTNERS + MAX_AUDITORS + 2)
    succession: Succession | None = None
    signature: Signature

    @classmethod
    def make(
        cls,
        enrolments: tuple[Enrolment, ...],
        coordinator: Identity,
        *,
        succession: Succession | None = None,
    ) -> "SignedRoster":
        """Sort the enrolments by name and sign them.

        Raises:
            ProtocolError: If they do not make a consortium.
        """
        inside = tuple(sorted(enrolments, key=lambda each: each.statement.name))
        signature = coordinator.sign(_roster_bytes(inside, succession)).hex()
        content = {**_content(inside, succession), "signature": signature}
        return parse(cls, canonical_bytes(content), what="the roster")

    @model_validator(mode="after")
    def _is_a_consortium(self) -> Self:
        said = [enrolment.statement for enrolment in self.enrolments]
        names = [statement.name for statement in said]
        roles = [statement.role for statement in said]
        if names != sorted(set(names)):
            raise ValueError("its parties are not sorted, or two have one name")
        for what in ("public_key", "sealing_key", "certificate"):
            if len({getattr(statement, what) for statement in said}) != len(said):
                raise ValueError(f"two of its parties have the same {what.replace('_', ' ')}")
        if len({subject_of(statement.certificate) for statement in said}) != len(said):
            raise ValueError("two of its parties have certificates of one subject")
        if (
            roles.count("coordinator") != 1
            or roles.count("mailbox") > 1
            or roles.count("partner") < MIN_PARTNERS
        ):
            raise ValueError(
                f"it needs one coordinator, at least {MIN_PARTNERS} partners, and one mailbox or object storage"
            )
        (coordinator,) = (statement for statement in said if statement.role == "coordinator")
        signature = bytes.fromhex(self.signature)
        message = _roster_bytes(self.enrolments, self.succession)
        if not signature_holds(coordinator.public_key, signature=signature, message=message):
            raise ValueError(f"it is not signed by its coordinator '{coordinator.name}'")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over all enrolments, hexadecimal: what parties compare by telephone."""
        return digest_of(_content(self.enrolments, self.succession))

    @property
    def version(self) -> int:
        """Its number in the chain."""
        return 1 if self.succession is None else self.succession.version

    @property
    def roster(self) -> Roster:
        """Whose messages count: an auditor reads and says nothing."""
        said = [each.statement for each in self.enrolments]
        speaking = [statement for statement in said if statement.role in ("coordinator", "partner")]
        (coordinator,) = (statement.name for statement in speaking if statement.role == "coordinator")
        return Roster(
            coordinator=coordinator,
            public_keys={statement.name: statement.public_key for statement in speaking},
        )

    @property
    def auditors(self) -> tuple[str, ...]:
        """Who reads and says nothing."""
        return tuple(each.statement.name for each in self.enrolments if each.statement.role == "auditor")

    @property
    def mailbox(self) -> Statement | None:
        """Who runs the mailbox; None if messages lie in object storage."""
        return next((each.statement for each in self.enrolments if each.statement.role == "mailbox"), None)

    def statement(self, name: str) -> Statement | None:
        """What a party said of itself; None if it is not on the roster."""
        return next((each.statement for each in self.enrolments if each.statement.name == name), None)


def parse(model: type[Read], data: bytes, *, what: str) -> Read:
    """Parse an enrolment or a roster that somebody sent.

    Raises:
        ProtocolError: If it is malformed or a signature does not hold; says what is wrong, never a value.
    """
    limit = MAX_ROSTER_BYTES if model is SignedRoster else MAX_ENROLMENT_BYTES
    if len(data) > limit:
        raise ProtocolError(f"{what} has {len(data)} bytes, at most {limit} are allowed")
    try:
        return model.model_validate_json(data)
    except ValidationError as exc:
        reasons = sorted({_reason(error) for error in exc.errors(include_url=False, include_input=False)})
        raise ProtocolError(
            f"{what} is refused: {'; '.join(reasons)[:300]}", advice="ask its sender for another one"
        ) from None


def _reason(error: object) -> str:
    assert isinstance(error, dict)  # noqa: S101 - pydantic's own
    if error["type"] == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    return ".".join(map(str, error["loc"])) or "it is no JSON object"


def _content(enrolments: tuple[Enrolment, ...], succession: Succession | None) -> dict[str, object]:
    first = {"v": 1, "enrolments": [each.model_dump(mode="json") for each in enrolments]}
    return first if succession is None else {**first, "succession": succession.model_dump(mode="json")}


def _roster_bytes(enrolments: tuple[Enrolment, ...], succession: Succession | None) -> bytes:
    return ROSTER_DOMAIN + canonical_bytes(_content(enrolments, succession))


def _rotation_bytes(enrolment: Enrolment, previous: str) -> bytes:
    said = {"previous": previous, "statement": enrolment.statement.model_dump(mode="json")}
    return ROTATION_DOMAIN + canonical_bytes(said)


def _departure_bytes(name: str, previous: str) -> bytes:
    return DEPARTURE_DOMAIN + canonical_bytes({"name": name, "previous": previous})
