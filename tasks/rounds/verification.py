"""Anybody repeats a round that the mailbox still holds: from its messages to the outcome that was announced.

Why: a partner or an auditor need not trust the coordinator's arithmetic, nor that it summed whom it says it did.
Runs: anywhere; it reads the mailbox and needs no secret. Source: own: proved in tests/rounds.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_contracts.canonical_json import canonical_bytes
from data_contracts.envelope import Kind
from data_contracts.errors import ProtocolError, SettingsError, UpdateMismatch
from data_contracts.plan import RoundPlan
from data_contracts.references import BlobReference
from tasks.exchange.board import Board
from tasks.rounds.committed import latest_plan, named_senders
from tasks.rounds.coordinator import BLINDED_SUM_CONTRACT
from tasks.rounds.retention import vector_reference
from tasks.rounds.study import CoordinatorInputs, Study, combine
from tasks.secure_aggregation.vector import SecureSum
from tasks.secure_aggregation.verification import RoundMessages, replay, replay_blinded

CLOSED_BY = {
    Kind.ADVERT: Kind.ADVERTS_CLOSED,
    Kind.SHARES: Kind.SHARES_CLOSED,
    Kind.MASKED: Kind.SURVIVORS,
    Kind.CONFIRMATION: Kind.CONFIRMATIONS_CLOSED,
}


@dataclass(frozen=True)
class FinishedRound:
    """A round as the mailbox holds it.

    Attributes:
        plan: Its plan, of the attempt that was finished.
        messages: Every message that it counted.
        outcome: What the coordinator announced.
    """

    plan: RoundPlan
    messages: RoundMessages
    outcome: dict[str, Any]

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whose vectors were summed."""
        return tuple(self.messages.masked)

    @property
    def n_bytes(self) -> int:
        """Bytes of all masked vectors."""
        return sum(memoryview(vector).nbytes for vector in self.messages.masked.values())


def read_round(board: Board, round_number: int) -> FinishedRound:
    """Read all that a finished round counted.

    Args:
        board: A view of the mailbox; whose makes no difference.
        round_number: The round.

    Raises:
        SettingsError: If the round is not finished, or its masked vectors have been dropped since.
        ProtocolError: If a message is not what its sender signed, or a counted one is missing.
    """
    _, plan = latest_plan(board, round_number)
    result = board.read(Kind.RESULT, board.roster.coordinator, plan=plan) if plan else None
    if plan is None or result is None:
        raise SettingsError(
            f"run '{board.run_id}' has no finished round {round_number}",
            advice="see `motet runs` for the run's name, and count its rounds from 0",
        )
    _demand_kept(board, plan)
    counted: dict[Kind, dict[str, memoryview]] = {}
    allowed: tuple[str, ...] = plan.cohort
    for kind, closing in CLOSED_BY.items():
        counted[kind] = _counted(board, plan, kind, closing, allowed=allowed)
        allowed = tuple(counted[kind])
    unmaskings = {
        sender: message.body
        for sender in counted[Kind.MASKED]
        if (message := board.read(Kind.UNMASKING, sender, plan=plan)) is not None
    }
    return FinishedRound(
        plan=plan,
        messages=RoundMessages(
            adverts=counted[Kind.ADVERT],
            shares=counted[Kind.SHARES],
            masked=counted[Kind.MASKED],
            confirmations=counted[Kind.CONFIRMATION],
            unmaskings=unmaskings,
        ),
        outcome=dict(result.json()),
    )


def _counted(
    board: Board, plan: RoundPlan, kind: Kind, closing: Kind, *, allowed: tuple[str, ...]
) -> dict[str, memoryview]:
    closed = board.read(closing, board.roster.coordinator, plan=plan)
    if closed is None:
        raise ProtocolError(
            f"'{board.roster.coordinator}' announced round {plan.round} without '{closing}': it cannot be repeated"
        )
    bodies = {}
    for sender in named_senders(closed, allowed=allowed, threshold=plan.threshold):
        message = board.read(kind, sender, plan=plan)
        if message is None:
            raise ProtocolError(
                f"the mailbox lost '{kind}' of '{sender}' in round {plan.round}, which counted"
            )
        bodies[sender] = message.body
    return bodies


def _demand_kept(board: Board, plan: RoundPlan) -> None:
    """First of all: where the vectors went, shares of masks may have gone with them."""
    closed = board.read(Kind.SURVIVORS, board.roster.coordinator, plan=plan)
    if closed is None:
        return
    for sender in named_senders(closed, allowed=plan.cohort, threshold=plan.threshold):
        vector = vector_reference(board, plan, sender)
        if vector is None or vector in board.mailbox.bodies:
            continue
        raise SettingsError(
            f"the masked vector of '{sender}' in round {plan.round} is no longer in the mailbox, which keeps those of the "
            f"newest rounds only; its signed digest stays",
            advice="verify a newer round, or verify each round before the next ones end",
        )


def repeat_sum(
    found: FinishedRound, *, identities: Mapping[str, bytes], workers: int = 1
) -> SecureSum | BlobReference:
    """Repeat a round's sum; every signature, commitment and digest is checked anew.

    Args:
        found: The round.
        identities: Pinned Ed25519 public keys (32 bytes) by partner.
        workers: How many threads.

    Returns:
        The sum, or the reference of the blinded sum where only the partners open it.

    Raises:
        ProtocolError: If a message does not verify, naming its sender.
        TooFewPartners: If too few messages verify.
        UpdateMismatch: If the coordinator announced other survivors.
    """
    plan, messages = found.plan, found.messages
    announced = found.outcome.get("survivors")
    if announced != list(found.survivors):
        raise UpdateMismatch(
            f"round {plan.round}: the outcome names other survivors than the {len(found.survivors)} whose vectors counted"
        )
    if plan.opened_by == "coordinator":
        return replay(plan, messages, identities=identities, workers=workers)
    blinded = replay_blinded(plan, messages, identities=identities, workers=workers)
    digest = hashlib.sha256(blinded).hexdigest()
    return BlobReference(sha256=digest, bytes=len(blinded), contract=BLINDED_SUM_CONTRACT)


def check_outcome(
    found: FinishedRound,
    total: SecureSum | BlobReference,
    *,
    study: Study[Any, CoordinatorInputs, dict[str, Any]],
    inputs: CoordinatorInputs,
) -> None:
    """Repeat what the study does with the sum, and compare with what the coordinator announced, to the last bit.

    Args:
        found: The round.
        total: What :func:`repeat_sum` returned.
        study: The round's study.
        inputs: What the study needs on the coordinator.

    Raises:
        UpdateMismatch: If the announced outcome is another, naming the fields that differ.
    """
    if isinstance(total, SecureSum):
        repeated = combine(found.plan, total, study=study, inputs=inputs)
    else:
        repeated = {"blinded_sum": total.model_dump(), "survivors": list(found.survivors)}
    if canonical_bytes(repeated) != canonical_bytes(found.outcome):
        names = sorted(set(repeated) | set(found.outcome))
        differ = [name for name in names if repeated.get(name) != found.outcome.get(name)]
        raise UpdateMismatch(
            f"round {found.plan.round}: the announced outcome is not the one that the messages give; fields that differ: "
            f"{', '.join(differ)}"
        )
