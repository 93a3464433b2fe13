"""A party's view of the mailbox: it posts signed messages and reads only what verifies.

Why: signing, role, size and digest checks stand in one place, so no reader can forget one.
Runs: on every site. Source: own.
"""

import base64
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import Buffer

from data_contracts.canonical_json import canonical_bytes, parse_canonical
from data_contracts.envelope import (
    COORDINATOR_KINDS,
    MAX_BODY_BYTES,
    Envelope,
    Head,
    Kind,
    Slot,
    is_inline,
)
from data_contracts.errors import ProtocolError
from data_contracts.plan import RoundPlan
from data_contracts.references import BlobReference
from tasks.exchange.arrivals import ring
from tasks.exchange.blob_store import reference_to
from tasks.exchange.identity import Identity, Roster
from tasks.exchange.mailbox import Mailbox
from tasks.exchange.quarantine import Quarantine
from tasks.exchange.run_seal import OPEN_KINDS, SEALED_CONTRACT, RunSeal


@dataclass(frozen=True)
class Message:
    """A verified message: its head, and its body as a read-only view."""

    head: Head
    body: memoryview

    def json(self) -> Any:
        """Parse the body as canonical JSON.

        Raises:
            ProtocolError: If it is not.
        """
        return parse_canonical(
            bytes(self.body), who=self.head.sender, max_bytes=MAX_BODY_BYTES[self.head.kind]
        )


@dataclass(frozen=True)
class Board:
    """The mailbox as seen by one party of one run.

    Args:
        mailbox: Where messages lie.
        identity: Who posts here.
        roster: Whose messages count.
        run_id: The run.
        quarantine: Where bytes go that their alleged sender did not sign; they then count as absent. Without one
            they are an error.
        seal: Gives the key under which the run's messages are sealed to its parties. Without one they lie open:
            for one machine, and for what is said before there is a key.
        plans: Plans read so far by round and attempt; a message never changes, and a long run asks for all of them
            in every round.
        vectors: Masked vectors that were counted, by the digest of their plan; likewise.
    """

    mailbox: Mailbox
    identity: Identity
    roster: Roster
    run_id: str
    quarantine: Quarantine | None = None
    seal: Callable[[], RunSeal] | None = None
    plans: dict[tuple[int, int], RoundPlan] = field(default_factory=dict, compare=False, repr=False)
    vectors: dict[str, list[BlobReference]] = field(default_factory=dict, compare=False, repr=False)

    def post(
        self, kind: Kind, chunks: Sequence[Buffer], *, contract: str, plan: RoundPlan | None = None
    ) -> BlobReference:
        """Sign and post one message; posting the same again is a no-op.

        Args:
            kind: What it is.
            chunks: The body, in pieces that are not copied.
            contract: What the body holds, as ``name@version``.
            plan: The round it belongs to; None for a message about the whole run.

        Raises:
            Equivocation: If this party posted something else there before.
        """
        slot = self._slot(kind, self.identity.name, plan)
        if self.seal is not None and kind not in OPEN_KINDS:
            chunks, contract = [self.seal().seal(chunks, slot=slot)], SEALED_CONTRACT
        small = is_inline(kind, sum(memoryview(chunk).nbytes for chunk in chunks))
        head = Head(
            run_id=slot.run_id,
            round=slot.round,
            attempt=slot.attempt,
            kind=kind,
            sender=slot.sender,
            plan_digest=plan.digest if plan else "",
            body=reference_to(chunks, contract=contract)
            if small
            else self.mailbox.put_body(chunks, contract=contract),
        )
        envelope = Envelope(
            head=head,
            signature=self.identity.sign(head.signed_bytes).hex(),
            inline=base64.b64encode(b"".join(chunks)).decode() if small else None,
        )
        self.mailbox.post(head.slot, envelope.to_bytes())
        ring(kind)
        return head.body

    def post_json(self, kind: Kind, value: Any, *, plan: RoundPlan | None = None) -> None:
        """Post a body of canonical JSON."""
        self.post(kind, [canonical_bytes(value)], contract=f"{kind.value}@1", plan=plan)

    def read(self, kind: Kind, sender: str, *, plan: RoundPlan | None = None) -> Message | None:
        """Read one message of the run or of a round, verified.

        Returns:
            The message, or None if it is not there (yet).

        Raises:
            ProtocolError: If something is there that its alleged sender did not say here, or may not say.
        """
        return self.read_slot(self._slot(kind, sender, plan), plan_digest=plan.digest if plan else "")

    def _slot(self, kind: Kind, sender: str, plan: RoundPlan | None) -> Slot:
        return Slot(self.run_id, plan.round if plan else 0, plan.attempt if plan else 0, kind, sender)

    def was_said(self, kind: Kind, sender: str) -> bool:
        """Whether a party has signed a message about the whole run, without opening what it holds."""
        return self._envelope(self._slot(kind, sender, None)) is not None

    def _envelope(self, slot: Slot) -> Envelope | None:
        data = self.mailbox.read(slot)
        if data is None:
            return None
        try:
            return authentic(data, slot=slot, roster=self.roster)
        except ProtocolError as exc:
            if self.quarantine is None:
                raise
            self.quarantine.keep(data, why=str(exc))
            return None

    def read_slot(self, slot: Slot, *, plan_digest: str | None) -> Message | None:
        """Read whatever stands in a slot; ``plan_digest=None`` leaves the digest to the caller."""
        envelope = self._envelope(slot)
        if envelope is None:
            return None
        head = envelope.head
        if plan_digest is not None and head.plan_digest != plan_digest:
            raise ProtocolError(
                f"'{slot.kind}' of '{slot.sender}' belongs to another plan of round {slot.round}"
            )
        inline = envelope.body
        body = self.mailbox.bodies.open(head.body, who=slot.sender) if inline is None else memoryview(inline)
        if self.seal is not None and slot.kind not in OPEN_KINDS:
            body = memoryview(self.seal().open(body, slot=slot))
        return Message(head=head, body=body)


def authentic(data: bytes, *, slot: Slot, roster: Roster) -> Envelope:
    """Parse an envelope that the party of its slot has signed and may send.

    Raises:
        ProtocolError: If it is malformed, belongs elsewhere, or is not its alleged sender's to send.
    """
    envelope = _parsed(data, slot)
    if (slot.kind in COORDINATOR_KINDS) != (slot.sender == roster.coordinator):
        raise ProtocolError(f"'{slot.sender}' may not send '{slot.kind}': it is not its role")
    signature = bytes.fromhex(envelope.signature)
    said = envelope.head.signed_bytes
    if not roster.verifies(slot.sender, signature=signature, message=said):
        if roster.verified_once(slot.sender, signature=signature, message=said):
            raise ProtocolError(
                f"'{slot.kind}' of '{slot.sender}' is signed with a key that it has rotated out; that key counts no more"
            )
        raise ProtocolError(f"'{slot.kind}' at the place of '{slot.sender}' carries no valid signature of it")
    return envelope


@functools.lru_cache(
    maxsize=256
)  # the same message is met by every party of a process, and again in later phases
def _parsed(data: bytes, slot: Slot) -> Envelope:
    return Envelope.from_bytes(data, slot=slot)
