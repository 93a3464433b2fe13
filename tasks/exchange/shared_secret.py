"""One secret that a party makes and seals to each of the others, so that all can tell that all got the same.

Why: the partners' secret and the key of a run pass through a mailbox that others run. Runs: on every site.
Source: own.
"""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_contracts.canonical_json import canonical_bytes
from data_contracts.errors import ProtocolError
from tasks.exchange.board import Message
from tasks.exchange.enrolment import SignedRoster
from tasks.exchange.identity import KEY_BYTES
from tasks.exchange.sealing import SealingKey, derive_secret, seal


class SharedSecret(BaseModel):
    """A secret, sealed to each of those who share it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sealed: dict[str, str] = Field(max_length=1025)
    confirmation: str = Field(pattern=r"^[0-9a-f]{64}$")

    @classmethod
    def make(
        cls, secret: bytes, *, names: Iterable[str], roster: SignedRoster, context: bytes
    ) -> "SharedSecret":
        """Seal a secret to parties of a roster.

        Args:
            secret: 32 bytes.
            names: To whom.
            roster: Where their sealing keys stand.
            context: What the secret is for; it opens in the same context only.
        """
        sealed = {}
        for name in names:
            statement = roster.statement(name)
            assert statement is not None  # noqa: S101 - it is on the roster
            public, own = bytes.fromhex(statement.sealing_key), context + name.encode()
            sealed[name] = seal(secret, public=public, context=own, who=name).hex()
        return cls(sealed=sealed, confirmation=confirmation_of(secret, context))

    @classmethod
    def read(cls, message: Message) -> "SharedSecret":
        """Parse what a party shared.

        Raises:
            ProtocolError: If it is malformed.
        """
        try:
            return cls.model_validate_json(canonical_bytes(message.json()))
        except ValidationError:
            raise ProtocolError(f"the secret that '{message.head.sender}' shared is malformed") from None

    def open(self, key: SealingKey, *, name: str, context: bytes, sender: str) -> bytes:
        """Open the secret with a party's own key.

        Raises:
            ProtocolError: If it was not sealed to this party, or is not the one that all got.
        """
        try:
            sealed = bytes.fromhex(self.sealed.get(name, ""))
        except ValueError:
            sealed = b""
        secret = key.open(sealed, context=context + name.encode(), who=sender)
        if len(secret) != KEY_BYTES or confirmation_of(secret, context) != self.confirmation:
            raise ProtocolError(f"'{sender}' sealed to '{name}' another secret than to all")
        return secret


def confirmation_of(secret: bytes, context: bytes) -> str:
    """What shows, without showing the secret, that two parties hold the same one."""
    return derive_secret(secret, b"confirmation\x00" + context, length=32).hex()
