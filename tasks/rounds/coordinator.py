"""The coordinator's side of a round: publish the plan, relay the phases, open nothing but the sum.

Why: each decision (who is in, who survived) is posted before it is acted on, so a restart repeats it; a
message that does not verify counts as absent and is kept as evidence. Runs: on the coordinator.
Source: own, around the protocol of ``tasks.secure_aggregation``.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from data_contracts.envelope import Kind
from data_contracts.errors import ProtocolError, SettingsError, TooFewPartners
from data_contracts.plan import RoundPlan
from data_contracts.references import BlobReference
from tasks.exchange.board import Board, Message
from tasks.rounds.committed import latest_plan, named_senders
from tasks.rounds.patience import Patience
from tasks.rounds.study import CoordinatorInputs, Study
from tasks.secure_aggregation import coordinator as secure_sum
from tasks.secure_aggregation.vector import SecureSum

logger = logging.getLogger(__name__)

Check = Callable[[str, memoryview], None]


def publish_plan(board: Board, draft: RoundPlan) -> RoundPlan:
    """Publish a round's plan, or find the one published before a restart.

    Args:
        board: The coordinator's board.
        draft: The plan; its attempt number is replaced by the next free one.

    Returns:
        The published plan.

    Raises:
        SettingsError: If a different plan was already published for this round of this run.
    """
    attempt, published = latest_plan(board, draft.round)
    plan = draft.model_copy(update={"attempt": attempt})
    if published is not None and published != plan:
        raise SettingsError(
            f"run '{board.run_id}' has already published a different plan for round {draft.round}",
            advice="a run keeps its settings: start a new run for other settings",
        )
    board.post_json(Kind.PLAN, plan.model_dump(mode="json"), plan=plan)
    return plan


@dataclass
class RoundConductor:
    """Conducts one attempt at one round.

    Attributes:
        board: The coordinator's board.
        plan: The published plan.
        refused: Who sent something that does not verify, and why; evidence for the round's report.
    """

    board: Board
    plan: RoundPlan
    refused: dict[str, str] = field(default_factory=dict)
    _vectors: list[BlobReference] = field(default_factory=list)

    async def secure_sum(self) -> SecureSum:
        """Run the protocol to the exact sum of the survivors.

        Returns:
            Sums per lane, and the survivors.

        Raises:
            TooFewPartners: If a phase fell below the threshold; the attempt is abandoned, nothing released.
        """
        plan = self.plan
        opened = secure_sum.begin(plan, identities=self.board.roster.partner_keys)
        adverts = await self._phase(Kind.ADVERT, Kind.ADVERTS_CLOSED, plan.cohort, check=opened.check_advert)
        advertised = opened.adverts(adverts)
        shares = await self._phase(Kind.SHARES, Kind.SHARES_CLOSED, adverts, check=advertised.check_shares)
        shared = advertised.shares(shares)
        masked = await self._phase(Kind.MASKED, Kind.SURVIVORS, shares, check=shared.check_masked)
        survived = shared.masked(masked)
        confirmations = await self._phase(
            Kind.CONFIRMATION, Kind.CONFIRMATIONS_CLOSED, masked, check=survived.check_confirmation
        )
        confirmed = survived.confirmations(confirmations)
        unmaskings = await self._gather(
            Kind.UNMASKING, tuple(masked), check=confirmed.check_unmasking, enough=plan.threshold
        )
        self._demand(unmaskings, Kind.UNMASKING)
        return await asyncio.to_thread(confirmed.unmask, unmaskings)

    def announce(self, outcome: dict[str, Any]) -> None:
        """Post the round's public outcome, then drop the masked vectors that nobody needs any more."""
        self.board.post_json(Kind.RESULT, outcome, plan=self.plan)
        for vector in self._vectors:
            self.board.mailbox.blobs.discard(vector)

    async def _phase(
        self, kind: Kind, closing: Kind, candidates: Iterable[str], *, check: Check
    ) -> dict[str, memoryview]:
        """Collect one message per candidate and commit to whom is counted."""
        candidates = tuple(candidates)
        coordinator = self.board.roster.coordinator
        committed = self.board.read(closing, coordinator, plan=self.plan)
        if committed is None:
            arrived = await self._gather(kind, candidates, check=check, enough=len(candidates))
            self._demand(arrived, kind)
            self.board.post_json(closing, {"senders": sorted(arrived)}, plan=self.plan)
            return dict(sorted(arrived.items()))
        counted = named_senders(committed, allowed=candidates, threshold=self.plan.threshold)
        arrived = await self._gather(kind, counted, check=check, enough=len(counted))
        if len(arrived) < len(counted):
            raise ProtocolError(
                f"the mailbox lost '{kind}' messages of round {self.plan.round} that were counted"
            )
        return dict(sorted(arrived.items()))

    async def _gather(
        self, kind: Kind, candidates: tuple[str, ...], *, check: Check, enough: int
    ) -> dict[str, memoryview]:
        """Wait for messages until ``enough`` are valid, all have spoken, or the deadline has passed."""
        arrived: dict[str, memoryview] = {}
        spoken: set[str] = set()

        def look() -> bool | None:
            for sender in candidates:
                if sender not in spoken:
                    message = self._arrived(kind, sender, check=check)
                    if message is not None:
                        arrived[sender] = message.body
                    if message is not None or sender in self.refused:
                        spoken.add(sender)
            return True if len(arrived) >= enough or len(spoken) == len(candidates) else None

        await Patience(deadline_seconds=self.plan.deadline_seconds).until(look)
        return arrived

    def _arrived(self, kind: Kind, sender: str, *, check: Check) -> Message | None:
        try:
            message = self.board.read(kind, sender, plan=self.plan)
            if message is not None:
                check(sender, message.body)
        except ProtocolError as exc:
            self.refused[sender] = str(exc)
            logger.warning(
                "round %d: refused a message and count its sender as absent: %s", self.plan.round, exc
            )
            return None
        if message is not None and kind is Kind.MASKED:
            self._vectors.append(message.head.body)
        return message

    def _demand(self, arrived: dict[str, memoryview], kind: Kind) -> None:
        plan = self.plan
        if len(arrived) >= plan.threshold:
            return
        absent = sorted(set(plan.cohort) - set(arrived))
        self.board.post_json(Kind.ABANDONED, {"kind": kind.value}, plan=plan)
        raise TooFewPartners(
            f"round {plan.round}, attempt {plan.attempt}: {len(arrived)} of {len(plan.cohort)} partners sent '{kind}', "
            f"{plan.threshold} are needed; missing or refused: {', '.join(absent)}; nothing was released"
        )


async def conduct(
    board: Board,
    plan: RoundPlan,
    *,
    study: Study[Any, CoordinatorInputs, dict[str, Any]],
    inputs: CoordinatorInputs,
) -> dict[str, Any]:
    """Conduct a published round to its public outcome; a finished round is found again.

    Args:
        board: The coordinator's board.
        plan: The published plan.
        study: What to do with the sum.
        inputs: The study's own inputs on this side.

    Returns:
        The outcome as announced: JSON, public, with ``survivors`` added.

    Raises:
        TooFewPartners: If the attempt was abandoned.
    """
    found = board.read(Kind.RESULT, board.roster.coordinator, plan=plan)
    if found is not None:
        return dict(found.json())
    conductor = RoundConductor(board=board, plan=plan)
    total = await conductor.secure_sum()
    outcome = await asyncio.to_thread(study.combine, plan, total, inputs)
    outcome = outcome | {"survivors": list(total.survivors)}
    conductor.announce(outcome)
    return outcome
