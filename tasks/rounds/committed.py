"""The coordinator's committed decisions, as both sides read them.

Why: who is in, who is late and what comes next is decided once, in a signed write-once message, so that a
restarted coordinator or partner meets the same decisions. Runs: on every site. Source: own.
"""

from collections.abc import Collection

from pydantic import ValidationError

from data_contracts.envelope import MAX_BODY_BYTES, Kind, Slot
from data_contracts.errors import ProtocolError
from data_contracts.plan import RoundPlan
from tasks.exchange.board import Board, Message
from tasks.rounds.releases import query_digest

MAX_ATTEMPTS = 1000


def named_senders(message: Message, *, allowed: Collection[str], threshold: int) -> tuple[str, ...]:
    """Parse the body of a closing message: whom the coordinator counts in a phase.

    Raises:
        ProtocolError: If it names strangers, repeats a name, or names fewer than the threshold.
    """
    value = message.json()
    senders = value.get("senders") if isinstance(value, dict) and set(value) == {"senders"} else None
    if (
        not isinstance(senders, list)
        or not all(isinstance(name, str) for name in senders)
        or senders != sorted(set(senders))
        or not set(senders) <= set(allowed)
        or len(senders) < threshold
    ):
        raise ProtocolError(
            f"'{message.head.sender}' closed '{message.head.kind}' of round {message.head.round} with a list that is "
            f"not at least {threshold} sorted names of the phase before"
        )
    return tuple(senders)


def is_abandoned(board: Board, plan: RoundPlan) -> bool:
    """Whether the coordinator gave this attempt up."""
    return board.read(Kind.ABANDONED, board.roster.coordinator, plan=plan) is not None


def latest_plan(board: Board, round_number: int) -> tuple[int, RoundPlan | None]:
    """Find the newest attempt at a round that was not abandoned.

    Returns:
        The attempt's number, and its plan if it has been published.

    Raises:
        ProtocolError: If a plan is malformed, or is not what its signed head says.
    """
    for attempt in range(MAX_ATTEMPTS):
        plan = plan_at(board, round_number, attempt)
        if plan is None or not is_abandoned(board, plan):
            return attempt, plan
    raise ProtocolError(f"round {round_number} was abandoned {MAX_ATTEMPTS} times; start a new run")


def named_before(board: Board, round_number: int, attempt: int) -> tuple[str, ...] | None:
    """The survivors that the newest earlier attempt at a round had named, if one got as far."""
    for earlier in range(attempt - 1, -1, -1):
        plan = plan_at(board, round_number, earlier)
        closed = board.read(Kind.SURVIVORS, board.roster.coordinator, plan=plan) if plan else None
        if plan is not None and closed is not None:
            return named_senders(closed, allowed=plan.cohort, threshold=plan.threshold)
    return None


def summed_before(board: Board, plan: RoundPlan) -> list[tuple[str, ...]]:
    """Whose vectors this run has summed, or was about to, in answer to the same question as a plan's.

    Returns:
        The survivors of every other attempt, of this round and those before, that got as far.
    """
    cohorts = []
    for round_number in range(plan.round + 1):
        for attempt in range(MAX_ATTEMPTS):
            other = plan_at(board, round_number, attempt)
            if other is None:
                break
            if other != plan and _may_ask_the_same(other, plan) and query_digest(other) == query_digest(plan):
                closed = board.read(Kind.SURVIVORS, board.roster.coordinator, plan=other)
                if closed is not None:
                    cohorts.append(named_senders(closed, allowed=other.cohort, threshold=other.threshold))
    return cohorts


def _may_ask_the_same(one: RoundPlan, other: RoundPlan) -> bool:
    """Whether two plans can have one query digest; cheap, because a long run compares all its rounds."""
    models = (one.model_in, other.model_in)
    return one.study == other.study and len({model.sha256 if model else "" for model in models}) == 1


def plan_at(board: Board, round_number: int, attempt: int) -> RoundPlan | None:
    """Read the plan of one attempt; None if none was published.

    Raises:
        ProtocolError: If it is malformed, or is not what its signed head says.
    """
    if (round_number, attempt) in board.plans:
        return board.plans[round_number, attempt]
    coordinator = board.roster.coordinator
    slot = Slot(board.run_id, round_number, attempt, Kind.PLAN, coordinator)
    message = board.read_slot(slot, plan_digest=None)
    if message is None:
        return None
    message.json()  # canonical, or refused
    try:
        plan = RoundPlan.model_validate_json(bytes(message.body[: MAX_BODY_BYTES[Kind.PLAN]]))
    except ValidationError as exc:
        fields = sorted({".".join(map(str, error["loc"])) or "plan" for error in exc.errors()})
        raise ProtocolError(
            f"plan of '{coordinator}' for round {round_number} is refused at: {', '.join(fields)}"
        ) from None
    here = (plan.run_id, plan.round, plan.attempt) == (board.run_id, round_number, attempt)
    if (
        not here
        or plan.digest != message.head.plan_digest
        or not set(plan.cohort) <= set(board.roster.partners)
    ):
        raise ProtocolError(
            f"plan of '{coordinator}' for round {round_number} is for another run, round, attempt or roster"
        )
    board.plans[round_number, attempt] = plan
    return plan
