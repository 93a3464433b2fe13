"""A partner's side of a round: wait for the plan, mask the contribution, help to unmask the sum.

Why: every step reads messages and posts one, and says the same after a crash.
Runs: on the partner. Source: own, around the protocol of ``tasks.secure_aggregation``.
"""

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from data_contracts.canonical_json import digest_of
from data_contracts.envelope import Kind
from data_contracts.errors import AgreementViolation, ProtocolError, TooFewPartners
from data_contracts.plan import HYBRID, PairSecrets, RoundPlan
from data_contracts.references import BlobReference
from tasks.exchange.board import Board, Message
from tasks.rounds.attempts import AttemptVault
from tasks.rounds.committed import is_abandoned, latest_plan, named_senders
from tasks.rounds.patience import Patience, beside
from tasks.rounds.study import Contribution, read_contribution
from tasks.secure_aggregation import partner as secure_sum
from tasks.secure_aggregation.blinding import open_blinded
from tasks.secure_aggregation.protocol import Attempt
from tasks.secure_aggregation.vector import SecureSum

Done = TypeVar("Done")


async def next_plan(board: Board, round_number: int, *, patience: Patience) -> RoundPlan | None:
    """Wait for the plan of a round.

    Returns:
        The plan, or None if the coordinator closed the run before that round.

    Raises:
        ProtocolError: If the coordinator stays silent, or its plan is malformed.
    """

    def look() -> RoundPlan | Message | None:
        _, plan = latest_plan(board, round_number)
        return plan or board.read(Kind.RUN_CLOSED, board.roster.coordinator)

    found = await patience.until(look, kinds=(Kind.PLAN, Kind.RUN_CLOSED))
    if found is None:
        raise _silence(board, f"plan for round {round_number}", patience)
    return found if isinstance(found, RoundPlan) else None


@dataclass(frozen=True)
class Contributor:
    """What a partner needs to take part in any round.

    Attributes:
        board: Its view of the mailbox.
        vault: Its private memory of attempts.
        rounding_key: 32 secret bytes that key stochastic rounding; constant over a run, so that a repeated
            attempt rounds the same way.
        patience: How long it waits for the coordinator.
        blinding_secret: 32 bytes that all partners share and the coordinator does not have; for rounds whose sum
            only the partners open.
        workers: Threads for the passes over the vectors.
        pair_secrets: What this site lets pair secrets rest on; a plan that asks for less is refused.
        min_threshold: Fewest partners that a sum must have behind it; a plan with a lower threshold is refused.
    """

    board: Board
    vault: AttemptVault
    rounding_key: bytes = field(repr=False)
    patience: Patience
    blinding_secret: bytes | None = field(default=None, repr=False)
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    pair_secrets: frozenset[PairSecrets] = frozenset({HYBRID})
    min_threshold: int = 2

    def is_over(self, plan: RoundPlan) -> bool:
        """Whether the coordinator has announced the round's outcome."""
        return self._from_coordinator(plan, Kind.RESULT) is not None

    async def contribute(self, plan: RoundPlan, directory: Path) -> dict[str, Any]:
        """Take part in one attempt: from the contribution to the coordinator's outcome.

        Args:
            plan: The round's plan, already accepted by this site.
            directory: Where the study left one array per lane; not opened if the round is already over.

        Returns:
            The round's public outcome.

        Raises:
            TooFewPartners: If the coordinator abandoned the attempt.
            AgreementViolation: If the plan rests on weaker pair secrets or a lower threshold than this site grants, or the sum, set
                against an earlier one, would isolate a few partners.
            ProtocolError: If a peer or the coordinator broke the protocol; nothing more was released.
        """
        self._demand_pair_secrets(plan)
        self._demand_threshold(plan)
        left = threading.Event()
        try:
            began = await beside(lambda: self._begin(plan, directory, left=left))
            if began is not None:
                await self._speak(plan, *began)
                await beside(lambda: self.vault.end(plan))
            result = await self._wait(plan, Kind.RESULT)
        except TooFewPartners:
            self.vault.end(plan)
            raise
        finally:
            left.set()
            self._record_survivors(plan)
        await beside(lambda: self.vault.end(plan))
        return dict(result.json())

    def _demand_threshold(self, plan: RoundPlan) -> None:
        """Refuse a plan that would open a sum of fewer partners than this site grants."""
        if plan.threshold < self.min_threshold:
            raise AgreementViolation(
                f"the plan of round {plan.round} needs {plan.threshold} partners to open a sum; "
                f"'{self.board.identity.name}' grants no sum of fewer than {self.min_threshold}"
            )

    def _demand_pair_secrets(self, plan: RoundPlan) -> None:
        """Refuse a plan that would make today's messages readable tomorrow."""
        if plan.pair_secrets not in self.pair_secrets:
            raise AgreementViolation(
                f"the plan of round {plan.round} rests its pair secrets on {plan.pair_secrets}; "
                f"'{self.board.identity.name}' grants {' or '.join(sorted(self.pair_secrets))}"
            )

    def open_sum(self, plan: RoundPlan) -> SecureSum:
        """Open the sum of a finished round that the plan leaves to the partners.

        Raises:
            AgreementViolation: If this site has no blinding secret.
            ProtocolError: If the round is not over or its outcome names no blinded sum.
        """
        result, coordinator = self._from_coordinator(plan, Kind.RESULT), self.board.roster.coordinator
        outcome = result.json() if result is not None else {}
        if self.blinding_secret is None:
            raise AgreementViolation(
                f"'{self.board.identity.name}' has no blinding secret to open the sum of round {plan.round} with"
            )
        try:
            reference = BlobReference.model_validate(outcome.get("blinded_sum"))
        except ValidationError:
            raise ProtocolError(
                f"'{coordinator}' has announced no blinded sum of round {plan.round}, attempt {plan.attempt}"
            ) from None
        return open_blinded(
            Attempt(plan, self.board.roster.partner_keys),
            self.board.mailbox.blobs.open(reference, who=coordinator),
            survivors=self._survivors(plan) or (),
            blinding_secret=self.blinding_secret,
            workers=self.workers,
        )

    def _begin(
        self, plan: RoundPlan, directory: Path, *, left: threading.Event
    ) -> tuple[secure_sum.Advertised, Contribution] | None:
        """Advertise fresh keys; None if the attempt is over, goes on without this partner, or its flow was cancelled."""
        me = self.board.identity.name
        if self.is_over(plan) or left.is_set():
            return None
        root = self.vault.root(plan)
        if root is None or me not in plan.cohort:
            return None
        contribution = read_contribution(directory, plan, who=me)
        return None if left.is_set() else (self._advertise(plan, root=root), contribution)

    async def _speak(
        self, plan: RoundPlan, advertised: secure_sum.Advertised, contribution: Contribution
    ) -> None:
        """Say what is to be said in each further phase, until the sum is open or goes on without this partner."""
        dealt = await self._when(
            plan, Kind.ADVERTS_CLOSED, lambda closing: self._deal(plan, advertised, closing)
        )
        if dealt is None:
            return
        shared, dealers = dealt
        shares = await self._when(
            plan,
            Kind.SHARES_CLOSED,
            lambda closing: self._counted(plan, closing, Kind.SHARES, allowed=dealers),
        )
        if self.board.identity.name not in shares:
            return
        masked, vector = await asyncio.to_thread(
            shared.mask,
            shares,
            contribution,
            rounding_key=self.rounding_key,
            blinding_secret=self.blinding_secret,
            workers=self.workers,
        )
        await beside(lambda: self._send_vector(plan, vector))
        confirmed = await self._when(
            plan,
            Kind.SURVIVORS,
            lambda closing: self._confirm(plan, masked, closing, allowed=tuple(shares)),
        )
        if confirmed is not None:
            await self._when(
                plan, Kind.CONFIRMATIONS_CLOSED, lambda closing: self._unmask(plan, confirmed, closing)
            )

    def _advertise(self, plan: RoundPlan, *, root: bytes) -> secure_sum.Advertised:
        identity, identities = self.board.identity, self.board.roster.partner_keys
        advertised, advert = secure_sum.begin(
            plan, me=identity.name, root=root, signer=identity.sign, identities=identities
        )
        self._post(plan, Kind.ADVERT, [memoryview(advert)])
        return advertised

    def _deal(
        self, plan: RoundPlan, advertised: secure_sum.Advertised, closing: Message
    ) -> tuple[secure_sum.Shared, tuple[str, ...]] | None:
        """Deal shares to all that are counted; None if this partner is not."""
        adverts = self._counted(plan, closing, Kind.ADVERT, allowed=plan.cohort)
        if self.board.identity.name not in adverts:
            return None
        shared, shares = self._share(plan, advertised, adverts)
        self._post(plan, Kind.SHARES, [memoryview(shares)])
        return shared, tuple(adverts)

    def _send_vector(self, plan: RoundPlan, vector: list[memoryview]) -> None:
        header = hashlib.sha256(vector[0]).digest()  # it holds the body's digest
        self.vault.pin(plan, "vector", header)
        self._post(plan, Kind.MASKED, vector)

    def _confirm(
        self, plan: RoundPlan, masked: secure_sum.Masked, closing: Message, *, allowed: tuple[str, ...]
    ) -> secure_sum.Confirmed | None:
        """Confirm the survivors; None if this partner is not among them."""
        survivors = named_senders(closing, allowed=allowed, threshold=plan.threshold)
        if self.board.identity.name not in survivors:
            return None
        self._agree_to_release(plan, survivors)
        confirmed, confirmation = masked.confirm(survivors)
        self._post(plan, Kind.CONFIRMATION, [memoryview(confirmation)])
        return confirmed

    def _unmask(self, plan: RoundPlan, confirmed: secure_sum.Confirmed, closing: Message) -> None:
        survivors = confirmed.survivors
        confirmations = self._counted(plan, closing, Kind.CONFIRMATION, allowed=survivors)
        _, unmasking = confirmed.unmask(confirmations)
        self._post(plan, Kind.UNMASKING, [memoryview(unmasking)])

    def _agree_to_release(self, plan: RoundPlan, survivors: tuple[str, ...]) -> None:
        """Check a sum against those before it and record it: once confirmed, others can open it without this partner."""
        self.vault.releases.check(plan, survivors)
        self.vault.pin(plan, "survivors", digest_of(list(survivors)).encode())
        self.vault.releases.record(plan, survivors)

    def _share(
        self, plan: RoundPlan, advertised: secure_sum.Advertised, adverts: dict[str, bytes]
    ) -> tuple[secure_sum.Shared, bytes]:
        """Deal shares once: a message that a restart cannot repeat bit for bit is kept before it leaves."""
        shared, made = advertised.share(adverts, sent=self.vault.kept(plan, "shares"))
        kept = self.vault.keep(plan, "shares", made)
        return (shared, made) if kept == made else advertised.share(adverts, sent=kept)

    def _survivors(self, plan: RoundPlan) -> tuple[str, ...] | None:
        """Whose vectors the coordinator has announced to sum, if it has."""
        message = self._from_coordinator(plan, Kind.SURVIVORS)
        if message is None:
            return None
        return named_senders(message, allowed=plan.cohort, threshold=plan.threshold)

    def _record_survivors(self, plan: RoundPlan) -> None:
        """Remember a sum that others may have opened, although this partner was late or left."""
        if survivors := self._survivors(plan):
            self.vault.releases.record(plan, survivors)

    def _post(self, plan: RoundPlan, kind: Kind, chunks: list[memoryview]) -> None:
        self.board.post(kind, chunks, contract=f"{kind.value}@1", plan=plan)

    def _counted(
        self, plan: RoundPlan, closing: Message, kind: Kind, *, allowed: tuple[str, ...]
    ) -> dict[str, bytes]:
        """Read the messages that a phase's closing counts."""
        bodies = {}
        for sender in named_senders(closing, allowed=allowed, threshold=plan.threshold):
            found = self.board.read(kind, sender, plan=plan)
            if found is None:
                raise ProtocolError(
                    f"'{closing.head.sender}' counts a '{kind}' of '{sender}' in round {plan.round} that is not there"
                )
            bodies[sender] = bytes(found.body)
        return bodies

    def _from_coordinator(self, plan: RoundPlan, kind: Kind) -> Message | None:
        return self.board.read(kind, self.board.roster.coordinator, plan=plan)

    async def _wait(self, plan: RoundPlan, kind: Kind) -> Message:
        return await self._when(plan, kind, lambda message: message)

    async def _when(self, plan: RoundPlan, kind: Kind, do: Callable[[Message], Done]) -> Done:
        """Wait for the coordinator's word, then do one thing with it in the same thread.

        Raises:
            TooFewPartners: If the coordinator abandoned the attempt.
            ProtocolError: If it stays silent.
        """
        given_up = threading.Event()

        def look() -> tuple[Done] | None:
            if (message := self._from_coordinator(plan, kind)) is not None:
                return None if given_up.is_set() else (do(message),)
            if is_abandoned(self.board, plan):
                raise TooFewPartners(
                    f"'{self.board.roster.coordinator}' abandoned round {plan.round}, attempt {plan.attempt}: fewer than "
                    f"{plan.threshold} of {len(plan.cohort)} partners answered, or their sum would have isolated a few; "
                    f"nothing was released"
                )
            return None

        try:
            found = await self.patience.until(look, kinds=(kind, Kind.ABANDONED))
        finally:
            given_up.set()  # a look that is left behind by a cancelled flow takes no further step
        if found is None:
            raise _silence(self.board, f"'{kind}' of round {plan.round}", self.patience)
        return found[0]


def _silence(board: Board, what: str, patience: Patience) -> ProtocolError:
    return ProtocolError(
        f"'{board.roster.coordinator}' sent no {what} within {patience.deadline_seconds:g} s",
        advice="check that the coordinator runs and the mailbox is reachable, then run again: it resumes",
    )
