"""A partner's answer to a run that was opened: by its policy, or by its data steward's signature.

Why: nothing is computed and nothing is said before the answer stands; waiting may take days, and survives a kill.
Runs: on the partner; ``await_answers`` on the coordinator. Source: own; background/prefect_mlflow.md, human approval.
"""

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from prefect import asuspend_flow_run, get_client
from prefect.events.worker import EventsWorker
from prefect.exceptions import ObjectNotFound
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_contracts.canonical_json import canonical_bytes
from data_contracts.envelope import Kind
from data_contracts.errors import AgreementViolation, Equivocation, ProtocolError, TooFewPartners
from flows.approvals import MAX_SET_ASIDE, Asked, Request, Requests, take
from flows.site_directory import SiteDirectory
from flows.site_settings import RunOpening, check_opening
from tasks.exchange.board import Board
from tasks.exchange.durable_files import replace_whole
from tasks.local_training.parameters import vector_length
from tasks.local_training.shared_model import shared_layout
from tasks.rounds.patience import Patience, beside
from tasks.studies.phases import MEASURED

logger = logging.getLogger("motet")

DRAIN_SECONDS = 30.0
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.1, 2.0  # at the file of a decision


class RunAnswer(BaseModel):
    """What a partner says to a run: once and for all.

    Attributes:
        opening: Digest of what the run was opened with.
        accepts: Whether it takes part.
        reason: Why not; never what a steward wrote for its own site.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Literal[1] = 1
    opening: str = Field(pattern=r"^[0-9a-f]{64}$")
    accepts: bool
    reason: str = Field(default="", max_length=2000)


class StewardDecision(RunInput):
    """The form on the page of a suspended run."""

    decision: Literal["approve", "refuse"] = Field(description="A refusal holds at once.")
    signature: str = Field(
        default="",
        description="To approve: the line that `motet approve REQUEST --print` shows to the holder of the steward's key.",
    )


class Elsewhere(Exception):
    """The request waits on the page of another, suspended flow run."""


def asked_of(home: SiteDirectory, board: Board, opening: RunOpening) -> Asked | None:
    """What the steward would have to approve; None where the policy alone grants the run."""
    studies = home.policy.for_the_steward(opening.settings.data)
    if not studies:
        return None
    return Asked(
        site=home.name,
        coordinator=board.roster.coordinator,
        run_id=board.run_id,
        roster=opening.roster,
        opening=opening.digest,
        studies=studies,
    )


def demand_approval(home: SiteDirectory, board: Board, opening: RunOpening) -> None:
    """Refuse whatever needs the steward's signature and has none that holds now.

    Raises:
        AgreementViolation: If there is none, it has expired, or the steward has refused meanwhile.
    """
    asked = asked_of(home, board, opening)
    if asked is None:
        return
    standing = requests_of(home).standing(asked, steward_key=home.settings.steward_key, now=datetime.now(UTC))
    if standing != "approved":
        raise AgreementViolation(
            f"'{home.name}' refuses run '{board.run_id}': no approval of its data steward holds now",
            advice=f"the steward looks at it with: motet requests show {asked.id}",
        )


def requests_of(home: SiteDirectory) -> Requests:
    """The requests of a site."""
    return Requests(home.path / "requests")


async def answer_run(home: SiteDirectory, board: Board, opening: RunOpening) -> None:
    """Answer a run, after the policy, and where it says so the data steward, have had their say.

    Raises:
        AgreementViolation: If the run is refused; the coordinator is told, without the steward's reason.
        Elsewhere: If another flow run waits for the same decision.
    """
    try:
        check_opening(
            opening,
            run_id=board.run_id,
            policy=home.policy,
            roster=home.roster_of(board.run_id).digest,
            who=home.name,
            now=datetime.now(UTC),
        )
        if (asked := asked_of(home, board, opening)) is not None:
            await _await_steward(home, _ask(home, board, opening, asked))
    except AgreementViolation as exc:
        with suppress(Equivocation):  # it has answered before; that stands
            await _say(board, RunAnswer(opening=opening.digest, accepts=False, reason=str(exc)))
        raise
    try:
        await _say(board, RunAnswer(opening=opening.digest, accepts=True))
    except Equivocation:
        raise AgreementViolation(
            f"'{home.name}' has refused run '{board.run_id}' before",
            advice="an answer stands: the coordinator leads a run of another name",
        ) from None


async def _say(board: Board, answer: RunAnswer) -> None:
    await beside(lambda: board.post_json(Kind.RUN_ANSWER, answer.model_dump()))


def _ask(home: SiteDirectory, board: Board, opening: RunOpening, asked: Asked) -> Request:
    return requests_of(home).ask(
        asked,
        opening,
        partners=board.roster.partners,
        leaves=what_leaves(opening),
        now=datetime.now(UTC),
        timeout_seconds=home.policy.approval_timeout_seconds,
    )


def what_leaves(opening: RunOpening) -> tuple[str, ...]:
    """What would leave the building in a run, in the words of the steward."""
    run = opening.settings
    shared = opening.n_listed if run.catalogue_heads else 0
    n_bits = run.rules.structures.fingerprint.n_bits
    layout = shared_layout(run.hidden, n_catalogue=shared, n_layers=run.layers, n_bits=n_bits)
    megabytes = vector_length(layout) * run.ring_bits / 8e6
    vector = "gradient of one minibatch" if run.algorithm == "fedsgd" else "update"
    return (
        f"round 0: one masked bit for each of {opening.n_listed} listed endpoints; only their sums are opened",
        f"each of {run.rounds} rounds: one masked {vector}, at most {megabytes:.1f} MB; only the sum is opened",
        "with it, masked: the loss, and metrics of the validation fold where the phase measures it; likewise",
        f"evaluations after them: {len(MEASURED[run.phase])}, each masked sums of metrics",
        "beside all this: keys, shares and signatures of the protocol, and keyed digests of public reference molecules",
        "never: a structure, an identifier, an activity, a head row that is not shared, a figure of this site alone",
    )


async def _await_steward(home: SiteDirectory, request: Request) -> None:
    """Wait for the steward: on a page of Prefect where a deployment runs this, else at the file of the decision."""
    requests = requests_of(home)

    def standing() -> str:
        return requests.standing(request.asked, steward_key=home.settings.steward_key, now=datetime.now(UTC))

    if standing() == "waiting":
        logger.info(
            "%s: run %s waits for the data steward until %s: motet requests show %s",
            home.name, request.asked.run_id, f"{request.answer_by:%Y-%m-%d %H:%M %Z}", request.asked.id,
        )  # fmt: skip
    while standing() == "waiting":
        left = (request.answer_by - datetime.now(UTC)).total_seconds()
        if left <= 0:
            requests.refuse(request.asked, by="its data steward approved nothing in time")
        elif requests.n_set_aside(request.asked) >= MAX_SET_ASIDE:
            requests.refuse(request.asked, by=f"{MAX_SET_ASIDE} false approvals were given")
        elif deployment.id:
            await _ask_on_page(home, request, seconds=left)
        else:
            patience = Patience(left, FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS)
            await patience.until(lambda: None if standing() == "waiting" else True)


async def _ask_on_page(home: SiteDirectory, request: Request, *, seconds: float) -> None:
    """Suspend this flow run until somebody has filled in its form; a click without a signature grants nothing."""
    requests, asked = requests_of(home), request.asked
    waiting = home.path / "requests" / f"{asked.id}.flow-run"
    if waiting.exists() and waiting.read_text() != flow_run.id and await _is_suspended(waiting.read_text()):
        raise Elsewhere
    replace_whole(waiting, [str(flow_run.id).encode()])
    # A heartbeat that arrives behind the suspension would look like a run that has died since.
    await asyncio.to_thread(EventsWorker.drain_all, timeout=DRAIN_SECONDS)
    given: Any = await asuspend_flow_run(
        wait_for_input=StewardDecision.with_initial_data(description=as_markdown(request)),
        timeout=max(1, int(seconds)),
        key=f"{asked.id}-{requests.n_set_aside(asked)}",
    )
    if given.decision == "refuse":
        requests.refuse(asked, by="its data steward refused on the page of the run")
    elif not take(
        requests,
        request,
        given.signature,
        steward_key=home.settings.steward_key,
        now=datetime.now(UTC),
    ):
        logger.warning("%s: that was no approval of request %s; it still waits", home.name, asked.id)


async def _is_suspended(flow_run_id: str) -> bool:
    """Whether another flow run still waits; one that was cancelled or crashed makes way."""
    async with get_client() as client:
        try:
            other = await client.read_flow_run(UUID(flow_run_id))
        except (ObjectNotFound, ValueError):
            return False
        return other.state is not None and other.state.is_paused()


def as_markdown(request: Request) -> str:
    """The request as the head of the form."""
    rows = "\n".join(f"| {heading} | {text} |" for heading, text in request.lines)
    return (
        f"## {request.asked.site}: may this run use our data?\n\n| | |\n|---|---|\n{rows}\n\n"
        f"Who may say yes holds the steward's key: `motet approve {request.asked.id}` signs and goes on by itself; "
        f"with `--print` it shows a line to paste below. A click without it grants nothing."
    )


async def await_answers(home: SiteDirectory, board: Board, opening: RunOpening) -> None:
    """On the coordinator: wait until every partner takes part; a run that one refuses is closed.

    Raises:
        AgreementViolation: If partners refuse; names them, with what they chose to say.
        TooFewPartners: If partners have not answered in time; the run stays open.
    """
    answers: dict[str, RunAnswer] = {}

    def look() -> bool | None:
        for name in board.roster.partners:
            if name not in answers and (answer := read_answer(board, name, opening)) is not None:
                answers[name] = answer
        refused = any(not answer.accepts for answer in answers.values())
        return True if refused or len(answers) == len(board.roster.partners) else None

    patience = Patience(home.settings.answer_seconds, last_look_seconds=LAST_LOOK_SECONDS)
    found = await patience.until(look)
    refused = {name: answer.reason for name, answer in sorted(answers.items()) if not answer.accepts}
    if refused:
        with suppress(Equivocation):
            await asyncio.to_thread(board.post_json, Kind.RUN_CLOSED, {"refused_by": sorted(refused)})
        raise AgreementViolation(
            f"run '{board.run_id}' is closed: {'; '.join(refused.values())}",
            advice="agree with the named partners, then lead a run of another name",
        )
    if found is None:
        missing = sorted(set(board.roster.partners) - set(answers))
        raise TooFewPartners(
            f"these partners have not answered run '{board.run_id}' within {patience.deadline_seconds:g} s: "
            f"{', '.join(missing)}",
            advice="their data stewards may still have to approve it; run the same command again: it goes on waiting",
        )


def read_answer(board: Board, name: str, opening: RunOpening) -> RunAnswer | None:
    """A partner's answer to a run; None if it has not answered yet.

    Raises:
        ProtocolError: If it is malformed, or answers another opening.
    """
    message = board.read(Kind.RUN_ANSWER, name)
    if message is None:
        return None
    try:
        answer = RunAnswer.model_validate_json(canonical_bytes(message.json()))
    except ValidationError:
        raise ProtocolError(f"the answer of '{name}' to run '{board.run_id}' is malformed") from None
    if answer.opening != opening.digest:
        raise ProtocolError(f"'{name}' has answered another opening of run '{board.run_id}'")
    return answer
