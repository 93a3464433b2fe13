"""How a run stands, read from its messages: round, phase, who is awaited, and what each party has sent.

Why: the mailbox is the one place where the truth stands; a page and a terminal show the same of it.
Runs: on every site; a partner sees all phases and its own bytes. Source: own.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from data_contracts.envelope import COORDINATOR_KINDS, Kind, Slot
from data_contracts.errors import ProtocolError
from data_contracts.plan import RoundPlan
from tasks.exchange.board import Board, authentic
from tasks.rounds.committed import MAX_ATTEMPTS, latest_plan, named_senders, plan_at

# What partners send, what closes that phase, and what the phase is called.
PHASES = (
    (Kind.ADVERT, Kind.ADVERTS_CLOSED, "keys"),
    (Kind.SHARES, Kind.SHARES_CLOSED, "shares"),
    (Kind.MASKED, Kind.SURVIVORS, "computing and masking"),
    (Kind.CONFIRMATION, Kind.CONFIRMATIONS_CLOSED, "confirmation"),
    (Kind.UNMASKING, Kind.RESULT, "unmasking"),
)


@dataclass(frozen=True)
class RoundStanding:
    """One round.

    Attributes:
        round: Its number.
        study: Its study.
        attempt: The newest attempt.
        phase: What goes on, or how it ended.
        cohort: Who was asked.
        survivors: Whose vectors were summed; empty before.
        awaited: Who has not spoken in the phase that goes on.
        metrics: The consortium's figures, which are secure sums.
        masked_bytes: Bytes of all masked vectors.
    """

    round: int
    study: str
    attempt: int
    phase: str
    cohort: tuple[str, ...]
    survivors: tuple[str, ...] = ()
    awaited: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    masked_bytes: int = 0


@dataclass(frozen=True)
class RunStanding:
    """One run.

    Attributes:
        run_id: The run.
        phase: What goes on.
        awaited: Who is awaited.
        rounds: All rounds that have a plan.
    """

    run_id: str
    phase: str
    awaited: tuple[str, ...]
    rounds: tuple[RoundStanding, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Sent:
    """One message that a party has sent.

    Attributes:
        round: The round; None for a message about the whole run.
        kind: What it was.
        bytes: Of the envelope and its body.
    """

    round: int | None
    kind: str
    bytes: int


class Watch:
    """Reads one run again and again; what a finished round has left does not change and is not read twice.

    Args:
        board: A party's view of the run.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._done: list[RoundStanding] = []
        self._sent: list[list[Sent]] = []

    def standing(self) -> RunStanding:
        """How the run stands."""
        board, coordinator = self._board, self._board.roster.coordinator
        rounds = list(self._done)
        while (found := _round(board, len(rounds))) is not None:
            rounds.append(found)
            if found.phase == "done":
                self._done.append(found)
        if board.read(Kind.RUN_CLOSED, coordinator) is not None:
            refused = tuple(name for name, accepts in _answers(board).items() if accepts is False)
            return RunStanding(board.run_id, "refused" if refused else "closed", refused, tuple(rounds))
        if rounds:
            awaited = rounds[-1].awaited or (coordinator,)
            return RunStanding(board.run_id, rounds[-1].phase, awaited, tuple(rounds))
        if board.read(Kind.RUN_OPENED, coordinator) is None:
            return RunStanding(board.run_id, "not opened", (coordinator,), ())
        missing = tuple(name for name, accepts in _answers(board).items() if accepts is None)
        phase = "partners answer" if missing else "before the first round"
        return RunStanding(board.run_id, phase, missing or (coordinator,), ())

    def sent(self, name: str) -> list[Sent]:
        """All that a party has sent, in the order of the rounds: what has left its building."""
        board = self._board
        found = _sent_in(board, None, None, (name,))
        number = 0
        while plan_at(board, number, 0) is not None:
            if number < len(self._sent):
                found += self._sent[number]
            else:
                of_round = _sent_in_round(board, number, name)
                found += of_round
                if number < len(self._done) and number == len(self._sent):
                    self._sent.append(of_round)
            number += 1
        return found


def _answers(board: Board) -> dict[str, bool | None]:
    """What each partner has answered to the run; None if it has not."""
    found: dict[str, bool | None] = {}
    for name in board.roster.partners:
        message = board.read(Kind.RUN_ANSWER, name)
        value = message.json() if message is not None else None
        found[name] = bool(value.get("accepts")) if isinstance(value, dict) else None
    return found


def _round(board: Board, number: int) -> RoundStanding | None:
    attempt, plan = latest_plan(board, number)
    if plan is None:
        if attempt == 0:
            return None
        plan = plan_at(board, number, attempt - 1)
        assert plan is not None  # noqa: S101 - it was abandoned, so it is there
        return RoundStanding(
            number, plan.study, attempt - 1, "abandoned", plan.cohort, awaited=(board.roster.coordinator,)
        )
    result = board.read(Kind.RESULT, board.roster.coordinator, plan=plan)
    survivors = _named(board, plan, Kind.SURVIVORS) or ()
    phase, awaited = ("done", ()) if result is not None else _phase(board, plan)
    return RoundStanding(
        number,
        plan.study,
        plan.attempt,
        phase,
        plan.cohort,
        survivors,
        awaited,
        _metrics(result.json()) if result is not None else {},
        sum(sent.bytes for sent in _sent_in(board, plan, Kind.MASKED, survivors or plan.cohort)),
    )


def _metrics(outcome: Any) -> dict[str, float]:
    found = outcome.get("metrics") if isinstance(outcome, dict) else None
    if not isinstance(found, dict):
        return {}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def _phase(board: Board, plan: RoundPlan) -> tuple[str, tuple[str, ...]]:
    """The first phase that is not closed, and who has not spoken in it."""
    candidates = plan.cohort
    for kind, closing, name in PHASES:
        if board.read(closing, board.roster.coordinator, plan=plan) is None:
            silent = tuple(each for each in candidates if not _sent_in(board, plan, kind, (each,)))
            return name, silent or (board.roster.coordinator,)
        if closing is not Kind.RESULT:
            candidates = _named(board, plan, closing) or ()
    return "done", ()


def _named(board: Board, plan: RoundPlan, closing: Kind) -> tuple[str, ...] | None:
    message = board.read(closing, board.roster.coordinator, plan=plan)
    if message is None:
        return None
    return named_senders(message, allowed=plan.cohort, threshold=plan.threshold)


def _sent_in_round(board: Board, number: int, name: str) -> list[Sent]:
    found = []
    for attempt in range(MAX_ATTEMPTS):
        plan = plan_at(board, number, attempt)
        if plan is None:
            break
        found += _sent_in(board, plan, None, (name,))
    return found


def _sent_in(board: Board, plan: RoundPlan | None, only: Kind | None, names: tuple[str, ...]) -> list[Sent]:
    """Sizes as the signed heads say, so that a body that went meanwhile still counts."""
    found = []
    for name in names:
        for kind in Kind if only is None else (only,):
            if (kind in COORDINATOR_KINDS) != (name == board.roster.coordinator):
                continue
            slot = Slot(board.run_id, plan.round if plan else 0, plan.attempt if plan else 0, kind, name)
            data = board.mailbox.read(slot)
            if data is None:
                continue
            try:
                envelope = authentic(data, slot=slot, roster=board.roster)
            except ProtocolError:
                continue
            if envelope.head.plan_digest == (plan.digest if plan else ""):
                apart = 0 if envelope.inline is not None else envelope.head.body.bytes
                found.append(Sent(plan.round if plan else None, kind.value, len(data) + apart))
    return found
