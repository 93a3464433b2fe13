"""How long masked vectors stay: the newest rounds, as many as fit a budget, can be repeated by anybody.

Why: a round stays verifiable as long as its vectors lie in the mailbox, and a training keeps no room for all of
them: ten partners and twenty million parameters make 400 MB a round. Runs: on the coordinator. Source: own.
"""

from collections.abc import Iterator

from data_contracts.envelope import Envelope, Kind, Slot
from data_contracts.plan import RoundPlan
from data_contracts.references import BlobReference
from tasks.exchange.board import Board
from tasks.rounds.committed import named_senders, plan_at

VECTOR_BUDGET_BYTES = 2**30


def discard_old_vectors(board: Board, plan: RoundPlan, *, budget_bytes: int = VECTOR_BUDGET_BYTES) -> None:
    """Drop the masked vectors of old rounds that a budget has no room for.

    The finished round's own vectors always stay. The signed messages that name the vectors stay for good.

    Args:
        board: The coordinator's board.
        plan: The attempt that has just ended.
        budget_bytes: How much the kept vectors may occupy together.
    """
    kept = sum(vector.bytes for vector in _vectors(board, plan))
    beyond: list[BlobReference] = []
    for round_number in range(plan.round - 1, -1, -1):
        vectors = [vector for other in _plans(board, round_number) for vector in _vectors(board, other)]
        kept += sum(vector.bytes for vector in vectors)
        if kept > budget_bytes:
            there = [vector for vector in vectors if vector in board.mailbox.bodies]
            if not there:
                break  # older ones went before
            beyond += there
    for vector in reversed(
        beyond
    ):  # oldest first, so that a crash leaves none behind the one that stops the search
        board.mailbox.bodies.discard(vector)


def _plans(board: Board, round_number: int) -> Iterator[RoundPlan]:
    attempt = 0
    while (plan := plan_at(board, round_number, attempt)) is not None:
        yield plan
        attempt += 1


def _vectors(board: Board, plan: RoundPlan) -> list[BlobReference]:
    """References of the vectors that an attempt counted: what was never checked may name any blob at all."""
    if plan.digest not in board.vectors:
        closed = board.read(Kind.SURVIVORS, board.roster.coordinator, plan=plan)
        if closed is None:
            return []
        senders = named_senders(closed, allowed=plan.cohort, threshold=plan.threshold)
        announced = [vector_reference(board, plan, sender) for sender in senders]
        found = [vector for vector in announced if vector is not None]
        if len(found) < len(senders):
            return found  # the others may be out of reach for a while
        board.vectors[plan.digest] = found
    return board.vectors[plan.digest]


def vector_reference(board: Board, plan: RoundPlan, sender: str) -> BlobReference | None:
    """The blob that a partner announced as its masked vector, whether or not it is still there.

    Raises:
        ProtocolError: If the announcement is malformed.
    """
    slot = Slot(board.run_id, plan.round, plan.attempt, Kind.MASKED, sender)
    data = board.mailbox.read(slot)
    return None if data is None else Envelope.from_bytes(data, slot=slot).head.body
