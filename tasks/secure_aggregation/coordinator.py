"""The coordinator's side of secure aggregation: verify on arrival, relay, and open nothing but the sum.

Why: every message is checked when it arrives, so that one hostile sender counts as absent instead of blocking
the round, and whatever goes wrong names who did it. Pure: no I/O, no clock; it holds no long-term secret.
Runs: on the coordinator, or on anybody who repeats a round. Source: Bonawitz et al. 2017 Fig. 4.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from typing_extensions import Buffer

from data_contracts.errors import AgreementViolation, ProtocolError, TooFewPartners
from data_contracts.plan import RoundPlan
from tasks.secure_aggregation.graph import Graph
from tasks.secure_aggregation.masking import Masks
from tasks.secure_aggregation.messages import (
    MASKED_HEADER_BYTES,
    Advert,
    Confirmation,
    MaskedHeader,
    Shares,
    Unmasking,
    claim_keys,
    collect_refusals,
    parse_adverts,
)
from tasks.secure_aggregation.protocol import (
    Attempt,
    Identities,
    commit_share,
    transcript_of_adverts,
    transcript_of_shares,
)
from tasks.secure_aggregation.recovery import Recovery
from tasks.secure_aggregation.vector import SecureSum, add_blinded, unmask_sum

__all__ = ["Advertised", "Confirmed", "Opened", "SecureSum", "Shared", "Survived", "begin"]


def begin(plan: RoundPlan, *, identities: Identities) -> "Opened":
    """Open an attempt.

    Args:
        plan: The published plan.
        identities: Pinned Ed25519 public keys (32 bytes) by partner.

    Raises:
        AgreementViolation: If the plan would release a sum of too few.
    """
    return Opened(Attempt(plan, identities))


@dataclass(frozen=True)
class Opened:
    """The plan is out; adverts are awaited."""

    attempt: Attempt
    _owner: dict[bytes, str] = field(default_factory=dict, repr=False)

    def check_advert(self, sender: str, message: Buffer) -> None:
        """Check one advert on arrival; of two that show the same key, the first stands.

        Raises:
            ProtocolError: Naming the sender.
        """
        advert = Advert.parse(message, self.attempt, sender=sender)
        fresh = {key: name for key, name in self._owner.items() if name != sender}
        claim_keys(advert, fresh, sender=sender)
        self._owner.update(fresh)

    def adverts(self, adverts: Mapping[str, Buffer]) -> "Advertised":
        """Close the phase with the adverts that count.

        Raises:
            TooFewPartners: If they are fewer than the threshold.
            ProtocolError: If one does not verify, naming its sender.
        """
        self.attempt.demand_enough(adverts, phase="advert")
        parsed = parse_adverts(self.attempt, adverts)
        transcript = transcript_of_adverts(self.attempt, adverts)
        graph = self.attempt.graph(adverts, transcript=transcript)
        return Advertised(self.attempt, parsed, graph, transcript)


@dataclass(frozen=True)
class Advertised:
    """The adverts are closed; shares are awaited."""

    attempt: Attempt
    _adverts: Mapping[str, Advert] = field(repr=False)
    _graph: Graph = field(repr=False)
    _transcript: bytes = field(repr=False)

    def check_shares(self, sender: str, message: Buffer) -> None:
        """Check one shares message on arrival (its sealed content is for the holders alone).

        Raises:
            ProtocolError: Naming the sender.
        """
        self._parse(sender, message)

    def _parse(self, sender: str, message: Buffer) -> Shares:
        attempt = self.attempt
        attempt.demand_subset([sender], self._adverts, phase="shares")
        return Shares.parse(message, attempt, sender=sender, transcript=self._transcript, graph=self._graph)

    def shares(self, shares: Mapping[str, Buffer]) -> "Shared":
        """Close the phase with the shares messages that count.

        Raises:
            TooFewPartners: If they are fewer than the threshold.
            ProtocolError: If one does not verify, naming its sender.
        """
        attempt = self.attempt
        attempt.demand_subset(shares, self._adverts, phase="shares")
        attempt.demand_enough(shares, phase="shares")
        dealt: dict[str, Shares] = {}

        def parse(sender: str) -> None:
            dealt[sender] = self._parse(sender, shares[sender])

        collect_refusals(attempt.in_order(shares), parse)
        transcript = transcript_of_shares(attempt, self._transcript, shares)
        return Shared(attempt, self._adverts, self._graph, dealt, transcript)


@dataclass(frozen=True)
class Shared:
    """The shares are closed; masked vectors are awaited."""

    attempt: Attempt
    _adverts: Mapping[str, Advert] = field(repr=False)
    _graph: Graph = field(repr=False)
    _shares: Mapping[str, Shares] = field(repr=False)
    _transcript: bytes = field(repr=False)
    _hashed: dict[str, MaskedHeader] = field(default_factory=dict, repr=False)

    def check_masked(self, sender: str, message: Buffer, *, workers: int = 1) -> None:
        """Check one masked vector on arrival, its body's digest included, in so many threads.

        Raises:
            ProtocolError: Naming the sender.
        """
        header = self._parse(sender, message)
        header.check_body(_body(message), self.attempt, sender=sender, workers=workers)
        self._hashed[sender] = header

    def _parse(self, sender: str, message: Buffer) -> MaskedHeader:
        self.attempt.demand_subset([sender], self._shares, phase="masked")
        return MaskedHeader.parse(message, self.attempt, sender=sender, transcript=self._transcript)

    def masked(self, masked: Mapping[str, Buffer]) -> "Survived":
        """Close the phase with the masked vectors that count: their senders are the survivors.

        A vector that :meth:`check_masked` has accepted is not hashed a second time.

        Raises:
            TooFewPartners: If they are fewer than the threshold.
            ProtocolError: If one does not verify, naming its sender.
        """
        attempt = self.attempt
        attempt.demand_subset(masked, self._shares, phase="masked")
        attempt.demand_enough(masked, phase="masked")
        attempt.demand_connected(self._graph, masked)

        def check(sender: str) -> None:
            if self._hashed.get(sender) != self._parse(sender, masked[sender]):
                self.check_masked(sender, masked[sender])

        survivors = attempt.in_order(masked)
        collect_refusals(survivors, check)
        return Survived(
            attempt,
            self._adverts,
            self._graph,
            self._shares,
            self._transcript,
            {name: _body(masked[name]) for name in survivors},
        )


@dataclass(frozen=True)
class Survived:
    """The survivors are known; their confirmations are awaited."""

    attempt: Attempt
    _adverts: Mapping[str, Advert] = field(repr=False)
    _graph: Graph = field(repr=False)
    _shares: Mapping[str, Shares] = field(repr=False)
    _transcript: bytes = field(repr=False)
    _bodies: Mapping[str, memoryview] = field(repr=False)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whose vectors will be summed, in the cohort's order."""
        return tuple(self._bodies)

    def check_confirmation(self, sender: str, message: Buffer) -> None:
        """Check one confirmation on arrival.

        Raises:
            ProtocolError: Naming the sender.
        """
        attempt = self.attempt
        attempt.demand_subset([sender], self._bodies, phase="confirmation")
        Confirmation.parse(
            message,
            attempt,
            sender=sender,
            transcript=self._transcript,
            survivors=attempt.bitmap(self._bodies),
        )

    def confirmations(self, confirmations: Mapping[str, Buffer]) -> "Confirmed":
        """Close the phase with the confirmations that count.

        Raises:
            TooFewPartners: If they are fewer than the threshold.
            ProtocolError: If one does not verify, naming its sender.
        """
        self.attempt.demand_enough(confirmations, phase="confirmation")
        collect_refusals(
            self.attempt.in_order(confirmations),
            lambda sender: self.check_confirmation(sender, confirmations[sender]),
        )
        return Confirmed(
            self.attempt, self._adverts, self._graph, self._shares, self._transcript, self._bodies
        )


@dataclass(frozen=True)
class Confirmed:
    """The survivors have confirmed each other; the shares that unmask their sum are awaited."""

    attempt: Attempt
    _adverts: Mapping[str, Advert] = field(repr=False)
    _graph: Graph = field(repr=False)
    _shares: Mapping[str, Shares] = field(repr=False)
    _transcript: bytes = field(repr=False)
    _bodies: Mapping[str, memoryview] = field(repr=False)

    def check_unmasking(self, sender: str, message: Buffer) -> None:
        """Check one unmasking message on arrival, each share against what its dealer committed to.

        Raises:
            ProtocolError: Naming the sender.
        """
        self._parse(sender, message)

    def _parse(self, sender: str, message: Buffer) -> dict[str, bytes]:
        """Return the sender's verified share by dealer."""
        attempt = self.attempt
        attempt.demand_subset([sender], self._bodies, phase="unmasking")
        dealers = self._dealers_of(sender)
        unmasking = Unmasking.parse(
            message,
            attempt,
            sender=sender,
            transcript=self._transcript,
            survivors=attempt.bitmap(self._bodies),
            n_dealers=len(dealers),
        )
        for dealer, share in zip(dealers, unmasking.shares, strict=True):
            dealt = self._shares[dealer].dealt[self._graph.share_number(dealer=dealer, holder=sender)]
            kind, expected = (
                ("self", dealt.self_share_commitment)
                if dealer in self._bodies
                else ("mask", dealt.mask_share_commitment)
            )
            if commit_share(share, attempt, kind=kind, dealer=dealer, holder=sender) != expected:
                raise ProtocolError(f"'{sender}' sent a share that is not the one '{dealer}' dealt to it")
        return dict(zip(dealers, unmasking.shares, strict=True))

    def _dealers_of(self, holder: str) -> tuple[str, ...]:
        """Whose shares a partner holds: the graph is symmetric."""
        return tuple(name for name in self._graph.holders(holder) if name in self._shares)

    def is_enough(self, senders: Collection[str]) -> bool:
        """Whether the unmasking messages of these senders reconstruct every mask that remains in the sum."""
        return len(senders) >= self.attempt.plan.threshold and not self._beyond_reach(senders)

    def _beyond_reach(self, senders: Collection[str]) -> tuple[str, ...]:
        return tuple(
            dealer
            for dealer in self._shares
            if sum(holder in senders for holder in self._graph.holders(dealer)) < self._graph.threshold
        )

    def unmask(self, unmaskings: Mapping[str, Buffer], *, workers: int = 1) -> SecureSum:
        """Reconstruct the masks that remain in the sum, remove them and decode.

        Args:
            unmaskings: At least a threshold of unmasking messages.
            workers: How many threads.

        Returns:
            The survivors' exact sum.

        Raises:
            AgreementViolation: If the plan leaves the sum to the partners.
            TooFewPartners: If there are fewer than the threshold; nothing is released.
            ProtocolError: If a message does not verify, naming its sender, or a dealer's shares do not fit
                together, naming the dealer.
        """
        if self.attempt.plan.opened_by != "coordinator":
            raise AgreementViolation(
                f"the sum of round {self.attempt.plan.round} is for the partners alone; without their blinding it says nothing"
            )
        masks = self._remaining_masks(unmaskings)
        bodies = list(self._bodies.values())
        return unmask_sum(self.attempt, bodies, masks, survivors=self.survivors, workers=workers)

    def unmask_blinded(self, unmaskings: Mapping[str, Buffer], *, workers: int = 1) -> memoryview:
        """Remove the masks from a sum that only the partners open: what is left is hidden by their blinding.

        Returns:
            The blinded sum, to be opened by ``tasks.secure_aggregation.blinding``.

        Raises:
            TooFewPartners: As :meth:`unmask`.
            ProtocolError: As :meth:`unmask`.
        """
        masks = self._remaining_masks(unmaskings)
        return add_blinded(self.attempt, list(self._bodies.values()), masks, workers=workers)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whose vectors are summed, in the cohort's order."""
        return tuple(self._bodies)

    def _remaining_masks(self, unmaskings: Mapping[str, Buffer]) -> Masks:
        attempt = self.attempt
        attempt.demand_enough(unmaskings, phase="unmasking")
        if lost := self._beyond_reach(unmaskings):
            raise TooFewPartners(
                f"round {attempt.plan.round}: too few holders of the shares of {', '.join(lost)} answered; "
                f"nothing was released"
            )
        released: dict[str, dict[int, bytes]] = {dealer: {} for dealer in attempt.in_order(self._shares)}

        def collect(sender: str) -> None:
            for dealer, share in self._parse(sender, unmaskings[sender]).items():
                released[dealer][attempt.point(sender)] = share

        collect_refusals(attempt.in_order(unmaskings), collect)
        return self.recovery.remaining_masks(released)

    @property
    def recovery(self) -> Recovery:
        """What was published before this phase, to reconstruct masks from."""
        return Recovery(
            self.attempt, self._adverts, self._graph, self._shares, self._transcript, self.survivors
        )


def _body(message: Buffer) -> memoryview:
    return memoryview(message).cast("B")[MASKED_HEADER_BYTES:]
