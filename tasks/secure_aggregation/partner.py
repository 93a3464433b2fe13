"""A partner's side of secure aggregation: one frozen state per phase, each step makes one signed message.

Why: the order of steps cannot be mistaken, each secret lives only in the states that need it, and a restart
from the same root repeats every byte but ML-KEM's fresh ciphertexts, which the caller keeps. No I/O, no clock.
Runs: on the partner. Source: Bonawitz et al. 2017 Fig. 4 (active adversaries).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from typing_extensions import Buffer

from data_contracts.errors import AgreementViolation, ProtocolError, UpdateMismatch
from data_contracts.plan import RoundPlan
from tasks.secure_aggregation.attempt_secrets import AttemptSecrets
from tasks.secure_aggregation.dealing import Neighbourhood
from tasks.secure_aggregation.graph import Graph
from tasks.secure_aggregation.keys import KEY_BYTES
from tasks.secure_aggregation.masking import Masks
from tasks.secure_aggregation.messages import (
    Advert,
    Confirmation,
    Kind,
    MaskedHeader,
    Shares,
    Signer,
    Unmasking,
    collect_refusals,
    parse_adverts,
    sign,
)
from tasks.secure_aggregation.protocol import (
    Attempt,
    Identities,
    Once,
    adds_pair_mask,
    blinding_key,
    pair_mask_key,
    self_mask_key,
    transcript_of_adverts,
    transcript_of_shares,
)
from tasks.secure_aggregation.vector import Contribution, mask_contribution


def begin(
    plan: RoundPlan, *, me: str, root: bytes, signer: Signer, identities: Identities
) -> tuple["Advertised", bytes]:
    """Start an attempt.

    Args:
        plan: The round's plan, already accepted by this site.
        me: This partner's name.
        root: 32 secret bytes for this attempt alone; the same root repeats every message.
        signer: Signs with this partner's pinned Ed25519 key.
        identities: Pinned public keys (32 bytes) by partner.

    Returns:
        The next state, and the advert to send.

    Raises:
        AgreementViolation: If the plan would release a sum of too few.
        ProtocolError: If ``me`` is not of the cohort.
    """
    attempt = Attempt(plan, identities)
    attempt.position(me)
    secrets = AttemptSecrets.from_root(root, plan_digest=attempt.digest, pair_secrets=plan.pair_secrets)
    payload = Advert(cipher=secrets.cipher.public, mask=secrets.mask.public).pack()
    advert = sign(payload, attempt, kind=Kind.ADVERT, sender=me, signer=signer)
    return Advertised(attempt, me, signer, secrets, advert), advert


@dataclass(frozen=True)
class _Phase:
    """What every phase of a partner knows."""

    attempt: Attempt
    me: str
    signer: Signer = field(repr=False)

    def _demand_me(self, names: Mapping[str, object] | Sequence[str], *, phase: str) -> None:
        if self.me not in names:
            raise ProtocolError(
                f"phase '{phase}' of round {self.attempt.plan.round} does not count '{self.me}', which took part in it"
            )

    def _demand_unchanged(self, messages: Mapping[str, Buffer], mine: bytes, *, phase: str) -> None:
        self._demand_me(messages, phase=phase)
        if bytes(memoryview(messages[self.me]).cast("B")) != mine:
            raise ProtocolError(
                f"phase '{phase}' of round {self.attempt.plan.round} shows a message of '{self.me}' that it did not send"
            )


@dataclass(frozen=True)
class Advertised(_Phase):
    """Phase 1 done: fresh keys are advertised."""

    _secrets: AttemptSecrets = field(repr=False)
    _advert: bytes = field(repr=False)

    def share(self, adverts: Mapping[str, Buffer], *, sent: bytes | None = None) -> tuple["Shared", bytes]:
        """Deal shares of the two seeds to all neighbours that advertised, and give them the pairs' secrets.

        Args:
            adverts: Every advert that the coordinator counts, this partner's included.
            sent: What this partner sent here before a restart. Ciphertexts of ML-KEM are fresh each time, so
                the message is sent again, not made again.

        Returns:
            The next state, and the shares message to send.

        Raises:
            TooFewPartners: If fewer than the threshold advertised.
            ProtocolError: If an advert does not verify under this partner's own plan, this partner's was changed,
                a key occurs twice, or ``sent`` follows other adverts.
        """
        attempt = self.attempt
        self._demand_unchanged(adverts, self._advert, phase="advert")
        attempt.demand_enough(adverts, phase="advert")
        parsed = parse_adverts(attempt, adverts)
        transcript = transcript_of_adverts(attempt, adverts)
        graph = attempt.graph(adverts, transcript=transcript)
        around = Neighbourhood(attempt, self.me, self._secrets, parsed, transcript, graph)
        if sent is None:
            payload = around.deal().pack()
            message = sign(payload, attempt, kind=Kind.SHARES, sender=self.me, signer=self.signer)
        else:
            Shares.parse(sent, attempt, sender=self.me, transcript=transcript, graph=graph)
            message = sent
        return Shared(attempt, self.me, self.signer, around, message), message


@dataclass(frozen=True)
class Shared(_Phase):
    """Phase 2 done: shares of the seeds are dealt."""

    _around: Neighbourhood = field(repr=False)
    _message: bytes = field(repr=False)
    _masked: Once = field(default_factory=Once, repr=False)

    def mask(
        self,
        shares: Mapping[str, Buffer],
        contribution: Contribution,
        *,
        rounding_key: bytes,
        blinding_secret: bytes | None = None,
        workers: int = 1,
    ) -> tuple["Masked", list[memoryview]]:
        """Quantize and mask the contribution.

        Args:
            shares: Every shares message that the coordinator counts, this partner's included.
            contribution: One array per lane, shape ``(lane.length,)``; float32 or float64 where the lane clips,
                else int64.
            rounding_key: 32 secret bytes that key the rounding.
            blinding_secret: 32 bytes that all partners share and the coordinator does not have; needed exactly
                if the plan lets only the partners open the sum.
            workers: How many threads; the bytes do not depend on it.

        Returns:
            The next state, and the masked vector to send: its signed header and its body, not copied together.

        Raises:
            TooFewPartners: If fewer than the threshold dealt shares.
            ProtocolError: If a message does not verify, or a share is not what its dealer committed to.
            AgreementViolation: If the contribution does not fit the plan's lanes or is not finite, or the
                blinding secret is missing.
            UpdateMismatch: If another contribution was masked before.
        """
        attempt, around = self.attempt, self._around
        self._demand_unchanged(shares, self._message, phase="shares")
        attempt.demand_subset(shares, around.adverts, phase="shares")
        attempt.demand_enough(shares, phase="shares")
        blinding = self._blinding(blinding_secret)
        dealers = attempt.in_order(shares)
        held, pair_secrets = self._open(shares, dealers)
        transcript = transcript_of_shares(attempt, around.transcript, shares)
        masks = self._masks(pair_secrets, transcript, blinding=blinding)
        body, digest = mask_contribution(
            attempt, contribution, masks, me=self.me, rounding_key=rounding_key, workers=workers
        )
        if not self._masked.settle(digest):
            raise UpdateMismatch(
                f"'{self.me}' has masked another vector in round {attempt.plan.round}, attempt {attempt.plan.attempt}; two "
                f"under the same masks would reveal their difference, so the second was not sent",
                advice="an attempt has one input: start a new attempt for a new one",
            )
        payload = MaskedHeader(transcript=transcript, body_digest=digest).pack()
        header = sign(payload, attempt, kind=Kind.MASKED, sender=self.me, signer=self.signer)
        state = Masked(attempt, self.me, self.signer, transcript, around.graph, dealers, held)
        return state, [memoryview(header), body]

    def _blinding(self, secret: bytes | None) -> tuple[bytes, ...]:
        """Key of the stream that keeps the sum from the coordinator, if the plan asks for it."""
        if self.attempt.plan.opened_by == "coordinator":
            return ()
        if secret is None or len(secret) != KEY_BYTES:
            raise AgreementViolation(
                f"the sum of round {self.attempt.plan.round} is for the partners alone, and '{self.me}' has no secret of "
                f"{KEY_BYTES} bytes that they share; nothing was sent"
            )
        return (blinding_key(secret, self.attempt, name=self.me),)

    def _open(
        self, shares: Mapping[str, Buffer], dealers: tuple[str, ...]
    ) -> tuple[dict[str, tuple[bytes, bytes]], dict[str, bytes]]:
        """Open what the neighbours sent: their pairs of shares, and the secrets of the pairs with them."""
        around = self._around
        held: dict[str, tuple[bytes, bytes]] = {}
        pair_secrets: dict[str, bytes] = {}
        neighbours = frozenset(around.graph.holders(self.me))

        def open_one(dealer: str) -> None:
            message = Shares.parse(
                shares[dealer], self.attempt, sender=dealer, transcript=around.transcript, graph=around.graph
            )
            if dealer in neighbours:
                held[dealer] = around.open_shares(message, dealer)
                if dealer != self.me:
                    pair_secrets[dealer] = around.secret_with(dealer, message)

        collect_refusals(dealers, open_one)
        return held, pair_secrets

    def _masks(
        self, pair_secrets: Mapping[str, bytes], transcript: bytes, *, blinding: tuple[bytes, ...]
    ) -> Masks:
        attempt, around, me = self.attempt, self._around, self.me
        added = [self_mask_key(around.secrets.self_seed, attempt, transcript, name=me), *blinding]
        subtracted: list[bytes] = []
        for peer, secret in pair_secrets.items():
            mine, public = around.secrets.mask.dh, around.adverts[peer].mask.dh
            key = pair_mask_key(mine, public, attempt, transcript, me=me, peer=peer, secret=secret)
            (added if adds_pair_mask(attempt, me=me, peer=peer) else subtracted).append(key)
        return Masks(added=tuple(added), subtracted=tuple(subtracted))


@dataclass(frozen=True)
class Masked(_Phase):
    """Phase 3 done: the vector is masked; of all secrets only the others' shares are kept."""

    _transcript: bytes = field(repr=False)
    _graph: Graph = field(repr=False)
    _dealers: tuple[str, ...]
    _held: Mapping[str, tuple[bytes, bytes]] = field(repr=False)
    _decided: Once = field(default_factory=Once, repr=False)

    def confirm(self, survivors: Sequence[str]) -> tuple["Confirmed", bytes]:
        """Sign the one set of survivors that this partner will help to unmask.

        Args:
            survivors: Whose masked vectors the coordinator will sum.

        Returns:
            The next state, and the confirmation to send.

        Raises:
            TooFewPartners: If the survivors, or a survivor's surviving neighbours, are fewer than the threshold.
            ProtocolError: If they are not a subset of those that dealt shares, this partner is not among them, or
                this partner has confirmed another set in this attempt.
        """
        attempt = self.attempt
        if len(set(survivors)) != len(survivors):
            raise ProtocolError(f"the survivors of round {attempt.plan.round} name a partner twice")
        attempt.demand_subset(survivors, self._dealers, phase="survivors")
        self._demand_me(survivors, phase="survivors")
        attempt.demand_enough(survivors, phase="survivors")
        attempt.demand_connected(self._graph, survivors)
        bitmap = attempt.bitmap(survivors)
        if not self._decided.settle(bitmap):
            raise ProtocolError(
                f"a second set of survivors was shown in round {attempt.plan.round}; only the first is ever unmasked"
            )
        payload = Confirmation(transcript=self._transcript, survivors=bitmap).pack()
        message = sign(payload, attempt, kind=Kind.CONFIRMATION, sender=self.me, signer=self.signer)
        state = Confirmed(
            attempt,
            self.me,
            self.signer,
            self._transcript,
            self._dealers,
            self._held,
            attempt.in_order(survivors),
        )
        return state, message


@dataclass(frozen=True)
class Confirmed(_Phase):
    """Phase 4 done: this partner's signature on one set of survivors is out."""

    _transcript: bytes = field(repr=False)
    _dealers: tuple[str, ...]
    _held: Mapping[str, tuple[bytes, bytes]] = field(repr=False)
    survivors: tuple[str, ...]

    @property
    def decision(self) -> bytes:
        """32 bytes to pin in durable memory before the confirmation leaves.

        A restarted partner whose pinned decision differs must refuse: the survivors of an attempt never change.
        """
        bitmap = self.attempt.bitmap(self.survivors)
        return hashlib.sha256(b"survivors\x00" + self._transcript + bitmap).digest()

    def unmask(self, confirmations: Mapping[str, Buffer]) -> tuple["Finished", bytes]:
        """Release one share per dealer: of the self seed of a survivor, of the mask seed of one that dropped out.

        Never both of one dealer: the set that decides is the one this partner signed, and at least a threshold of
        partners (more than half of the cohort) signed the same.

        Args:
            confirmations: Every confirmation that the coordinator counts.

        Returns:
            The last state, and the unmasking message to send.

        Raises:
            TooFewPartners: If the confirmations are fewer than the threshold.
            ProtocolError: If one does not verify or signs another set.
        """
        attempt = self.attempt
        attempt.demand_subset(confirmations, self.survivors, phase="confirmation")
        attempt.demand_enough(confirmations, phase="confirmation")
        bitmap = attempt.bitmap(self.survivors)

        def check(sender: str) -> None:
            Confirmation.parse(
                confirmations[sender],
                attempt,
                sender=sender,
                transcript=self._transcript,
                survivors=bitmap,
            )

        collect_refusals(attempt.in_order(confirmations), check)
        shares = tuple(
            self._held[dealer][0 if dealer in self.survivors else 1]
            for dealer in self._dealers
            if dealer in self._held
        )
        payload = Unmasking(transcript=self._transcript, survivors=bitmap, shares=shares).pack()
        message = sign(payload, attempt, kind=Kind.UNMASKING, sender=self.me, signer=self.signer)
        return Finished(self.survivors), message


@dataclass(frozen=True)
class Finished:
    """Phase 5 done: nothing secret is left."""

    survivors: tuple[str, ...]
