"""The coordinator's side of a round: publish the plan, relay the phases, open nothing but the sum.

Why: each decision (who is in, who survived) is posted before it is acted on, so a restart repeats it; a
message that does not verify counts as absent and is kept as evidence. Runs: on the coordinator.
Source: own, around the protocol of ``tasks.secure_aggregation``.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from data_contracts.envelope import Kind
from data_contracts.errors import AgreementViolation, ProtocolError, SettingsError, TooFewPartners
from data_contracts.plan import RoundPlan
from tasks.exchange.board import Board, Message
from tasks.rounds.committed import latest_plan, named_before, named_senders, summed_before
from tasks.rounds.patience import Patience, beside
from tasks.rounds.retention import discard_old_vectors
from tasks.rounds.study import CoordinatorInputs, Study, combine
from tasks.secure_aggregation import coordinator as secure_sum
from tasks.secure_aggregation.coordinator import Confirmed
from tasks.secure_aggregation.differencing import check_release
from tasks.secure_aggregation.protocol import MIN_SURVIVORS
from tasks.secure_aggregation.vector import SecureSum

logger = logging.getLogger(__name__)

Check = Callable[[str, memoryview], None]
Enough = Callable[[Collection[str]], bool]
BLINDED_SUM_CONTRACT = "blinded-sum@1"


def publish_plan(board: Board, draft: RoundPlan) -> RoundPlan:
    """Publish a round's plan, or find the one published before a restart.

    Args:
        board: The coordinator's board.
        draft: The plan; its attempt number is replaced by the next free one. If an earlier attempt at the round
            had named its survivors, their sum may be out, so the next attempt asks exactly them.

    Returns:
        The published plan.

    Raises:
        SettingsError: If a different plan was already published for this round of this run.
    """
    attempt, published = latest_plan(board, draft.round)
    cohort = named_before(board, draft.round, attempt) or draft.cohort
    plan = draft.model_copy(update={"attempt": attempt, "cohort": cohort})
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
        workers: Threads for the passes over the vectors.
    """

    board: Board
    plan: RoundPlan
    refused: dict[str, str] = field(default_factory=dict)
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)

    async def secure_sum(self) -> SecureSum:
        """Run the protocol to the exact sum of the survivors.

        Returns:
            Sums per lane, and the survivors.

        Raises:
            TooFewPartners: If a phase fell below the threshold; the attempt is abandoned, nothing released.
            AgreementViolation: If the sum, set against an earlier one, would isolate a few partners; likewise.
        """
        confirmed, unmaskings = await self._all_phases()
        return await asyncio.to_thread(confirmed.unmask, unmaskings, workers=self.workers)

    async def blinded_sum(self) -> dict[str, Any]:
        """Run the protocol to a sum that only the partners open, and store it for them.

        Returns:
            The public outcome: who survived, and the reference of the blinded sum.

        Raises:
            TooFewPartners: As :meth:`secure_sum`.
            AgreementViolation: As :meth:`secure_sum`.
        """
        confirmed, unmaskings = await self._all_phases()
        blinded = await asyncio.to_thread(confirmed.unmask_blinded, unmaskings, workers=self.workers)
        reference = self.board.mailbox.blobs.put([blinded], contract=BLINDED_SUM_CONTRACT)
        return {"blinded_sum": reference.model_dump(), "survivors": list(confirmed.survivors)}

    async def _all_phases(self) -> tuple[Confirmed, dict[str, memoryview]]:
        plan = self.plan
        opened = secure_sum.begin(plan, identities=self.board.roster.partner_keys)
        adverts = await self._phase(Kind.ADVERT, Kind.ADVERTS_CLOSED, plan.cohort, check=opened.check_advert)
        advertised = opened.adverts(adverts)
        shares = await self._phase(Kind.SHARES, Kind.SHARES_CLOSED, adverts, check=advertised.check_shares)
        shared = advertised.shares(shares)

        def check_masked(sender: str, message: memoryview) -> None:
            shared.check_masked(sender, message, workers=self.workers)

        masked = await self._phase(Kind.MASKED, Kind.SURVIVORS, shares, check=check_masked)
        survived = shared.masked(masked)
        confirmations = await self._phase(
            Kind.CONFIRMATION, Kind.CONFIRMATIONS_CLOSED, masked, check=survived.check_confirmation
        )
        confirmed = survived.confirmations(confirmations)
        unmaskings = await self._gather(
            Kind.UNMASKING,
            tuple(masked),
            check=confirmed.check_unmasking,
            enough=confirmed.is_enough,
        )
        self._demand(unmaskings, Kind.UNMASKING)
        return confirmed, unmaskings

    def announce(self, outcome: dict[str, Any]) -> None:
        """Post the round's public outcome, then drop old masked vectors that the mailbox has no room for."""
        self.board.post_json(Kind.RESULT, outcome, plan=self.plan)
        discard_old_vectors(self.board, self.plan)

    async def _phase(
        self, kind: Kind, closing: Kind, candidates: Iterable[str], *, check: Check
    ) -> dict[str, memoryview]:
        """Collect one message per candidate and commit to whom is counted."""
        candidates = tuple(candidates)
        coordinator = self.board.roster.coordinator
        committed = await beside(lambda: self.board.read(closing, coordinator, plan=self.plan))
        if committed is None:
            arrived = await self._gather(kind, candidates, check=check, enough=_all_of(candidates))
            self._demand(arrived, kind)
            if closing is Kind.SURVIVORS:
                self._demand_no_difference(arrived)
            closed = {"senders": sorted(arrived)}
            await beside(lambda: self.board.post_json(closing, closed, plan=self.plan))
            return dict(sorted(arrived.items()))
        counted = named_senders(committed, allowed=candidates, threshold=self.plan.threshold)
        arrived = await self._gather(kind, counted, check=check, enough=_all_of(counted))
        if len(arrived) < len(counted):
            raise ProtocolError(
                f"the mailbox lost '{kind}' messages of round {self.plan.round} that were counted"
            )
        return dict(sorted(arrived.items()))

    async def _gather(
        self, kind: Kind, candidates: tuple[str, ...], *, check: Check, enough: Enough
    ) -> dict[str, memoryview]:
        """Wait for messages until the valid ones are enough, all have spoken, or the deadline has passed."""
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
            return True if len(spoken) == len(candidates) or enough(arrived) else None

        await Patience(deadline_seconds=self.plan.deadline_seconds).until(look, kinds=(kind, Kind.REFUSAL))
        return arrived

    def _arrived(self, kind: Kind, sender: str, *, check: Check) -> Message | None:
        try:
            message = self.board.read(kind, sender, plan=self.plan)
            if message is not None:
                check(sender, message.body)
            else:
                self._demand_no_refusal(sender)
        except ProtocolError as exc:
            self.refused[sender] = str(exc)
            logger.warning(
                "round %d: refused a message and count its sender as absent: %s", self.plan.round, exc
            )
            return None
        return message

    def _demand_no_refusal(self, sender: str) -> None:
        """Do not wait for a partner that has said that it will not answer this plan."""
        refusal = self.board.read(Kind.REFUSAL, sender, plan=self.plan)
        if refusal is not None:
            raise ProtocolError(f"'{sender}' refuses the plan: {str(refusal.json())[:500]}")

    def _demand(self, arrived: dict[str, memoryview], kind: Kind) -> None:
        plan = self.plan
        if len(arrived) >= plan.threshold:
            return
        absent = sorted(set(plan.cohort) - set(arrived))
        raise TooFewPartners(
            f"round {plan.round}, attempt {plan.attempt}: {len(arrived)} of {len(plan.cohort)} partners sent '{kind}', "
            f"{plan.threshold} are needed; missing or refused: {', '.join(absent)}; nothing was released"
        )

    def _demand_no_difference(self, survivors: Collection[str]) -> None:
        """Open no sum that, set against another of the same data, isolates a few partners."""
        released = summed_before(self.board, self.plan)
        check_release(survivors, released=released, min_cohort=MIN_SURVIVORS)


def _all_of(candidates: Collection[str]) -> Enough:
    return lambda arrived: len(arrived) >= len(candidates)


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
        AgreementViolation: If the sum would isolate a few partners; the attempt is abandoned.
    """
    found = board.read(Kind.RESULT, board.roster.coordinator, plan=plan)
    if found is not None:
        return dict(found.json())
    conductor = RoundConductor(board=board, plan=plan)
    try:
        blind = plan.opened_by == "partners"
        total = await (conductor.blinded_sum() if blind else conductor.secure_sum())
    except (TooFewPartners, AgreementViolation):
        board.post_json(Kind.ABANDONED, {}, plan=plan)
        raise
    if isinstance(total, SecureSum):
        outcome = await asyncio.to_thread(combine, plan, total, study=study, inputs=inputs)
    else:
        outcome = total
    await beside(lambda: conductor.announce(outcome))
    return outcome
