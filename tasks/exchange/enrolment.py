"""Enrolment files and the signed roster that they make: who takes part, under which keys.

Why: every later signature, seal and connection is checked against keys that all parties have seen and pinned.
Runs: anywhere; the coordinator assembles, everybody checks. Source: own; Ed25519, RFC 8032.
"""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_contracts.canonical_json import canonical_bytes, digest_of
from data_contracts.errors import ProtocolError
from data_contracts.plan import MAX_PARTNERS, PartyName
from tasks.exchange.identity import Identity, Roster, signature_holds
from tasks.exchange.sealing import SEALING_PUBLIC_BYTES

ENROLMENT_DOMAIN = b"motet/enrolment/v1\x00"
ROSTER_DOMAIN = b"motet/roster/v1\x00"
MAX_ENROLMENT_BYTES = 16 * 2**10
MAX_ROSTER_BYTES = 16 * 2**20
MIN_PARTNERS = 3

Role = Literal["coordinator", "partner", "mailbox"]
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


class SignedRoster(BaseModel):
    """All enrolments of a consortium, signed by its coordinator; parties compare and pin its digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Literal[1] = 1
    enrolments: tuple[Enrolment, ...] = Field(max_length=MAX_PARTNERS + 2)
    signature: Signature

    @classmethod
    def make(cls, enrolments: tuple[Enrolment, ...], coordinator: Identity) -> "SignedRoster":
        """Sort the enrolments by name and sign them.

        Raises:
            ProtocolError: If they do not make a consortium.
        """
        inside = tuple(sorted(enrolments, key=lambda each: each.statement.name))
        signature = coordinator.sign(_roster_bytes(inside)).hex()
        return parse(cls, canonical_bytes({**_content(inside), "signature": signature}), what="the roster")

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
        if (
            roles.count("coordinator") != 1
            or roles.count("mailbox") > 1
            or roles.count("partner") < MIN_PARTNERS
        ):
            raise ValueError(
                f"it needs one coordinator, at least {MIN_PARTNERS} partners, and one mailbox or object storage"
            )
        (coordinator,) = (statement for statement in said if statement.role == "coordinator")
        signature, message = bytes.fromhex(self.signature), _roster_bytes(self.enrolments)
        if not signature_holds(coordinator.public_key, signature=signature, message=message):
            raise ValueError(f"it is not signed by its coordinator '{coordinator.name}'")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over all enrolments, hexadecimal: what parties compare by telephone."""
        return digest_of(_content(self.enrolments))

    @property
    def roster(self) -> Roster:
        """Whose messages count."""
        speaking = [each.statement for each in self.enrolments if each.statement.role != "mailbox"]
        (coordinator,) = (statement.name for statement in speaking if statement.role == "coordinator")
        return Roster(
            coordinator=coordinator,
            public_keys={statement.name: statement.public_key for statement in speaking},
        )

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


def _content(enrolments: tuple[Enrolment, ...]) -> dict[str, object]:
    return {"v": 1, "enrolments": [each.model_dump(mode="json") for each in enrolments]}


def _roster_bytes(enrolments: tuple[Enrolment, ...]) -> bytes:
    return ROSTER_DOMAIN + canonical_bytes(_content(enrolments))
