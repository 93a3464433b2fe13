"""A partner's side of secure aggregation: one frozen state per phase, each step makes one signed message.

Why: the order of steps cannot be mistaken, each secret lives only in the states that need it, and a restart
from the same root repeats every byte. Pure: no I/O, no clock, no randomness of its own.
Runs: on the partner. Source: Bonawitz et al. 2017 Fig. 4 (active adversaries).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from typing_extensions import Buffer

from data_contracts.errors import ProtocolError, UpdateMismatch
from data_contracts.plan import RoundPlan
from tasks.secure_aggregation.graph import Graph
from tasks.secure_aggregation.keys import AttemptSecrets, seal, unseal
from tasks.secure_aggregation.masking import MaskStreams
from tasks.secure_aggregation.messages import (
    Advert,
    Confirmation,
    Dealt,
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
    commit_self_seed,
    commit_share,
    pair_mask_key,
    seal_key,
    seal_place,
    self_mask_key,
    transcript_of_adverts,
    transcript_of_shares,
)
from tasks.secure_aggregation.shamir import SHARE_BYTES, in_range, split
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
    secrets = AttemptSecrets.from_root(root, plan_digest=attempt.digest)
    payload = Advert(cipher_public=secrets.cipher.public, mask_public=secrets.mask.public).pack()
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

    def share(self, adverts: Mapping[str, Buffer]) -> tuple["Shared", bytes]:
        """Deal shares of the two seeds to all that advertised.

        Args:
            adverts: Every advert that the coordinator counts, this partner's included.

        Returns:
            The next state, and the shares message to send.

        Raises:
            TooFewPartners: If fewer than the threshold advertised.
            ProtocolError: If an advert does not verify under this partner's own plan, this partner's was changed,
                or a key occurs twice.
        """
        attempt = self.attempt
        self._demand_unchanged(adverts, self._advert, phase="advert")
        attempt.demand_enough(adverts, phase="advert")
        parsed = parse_adverts(attempt, adverts)
        transcript = transcript_of_adverts(attempt, adverts)
        graph = attempt.graph(adverts, transcript=transcript)
        dealt = self._deal(parsed, graph, transcript)
        payload = Shares(
            transcript=transcript,
            self_seed_commitment=commit_self_seed(self._secrets.self_seed, attempt, dealer=self.me),
            dealt=dealt,
        ).pack()
        message = sign(payload, attempt, kind=Kind.SHARES, sender=self.me, signer=self.signer)
        return Shared(
            attempt, self.me, self.signer, self._secrets, parsed, transcript, graph, message
        ), message

    def _deal(self, adverts: Mapping[str, Advert], graph: Graph, transcript: bytes) -> tuple[Dealt, ...]:
        attempt, secrets, me = self.attempt, self._secrets, self.me
        holders = graph.holders(me)
        points = [attempt.point(holder) for holder in holders]
        self_key, mask_key = secrets.polynomial_keys
        t = graph.threshold
        self_shares = split(secrets.self_seed, threshold=t, points=points, polynomial_key=self_key)
        mask_shares = split(secrets.mask_seed, threshold=t, points=points, polynomial_key=mask_key)
        dealt = []
        for holder, point in zip(holders, points, strict=True):
            place = seal_place(attempt, transcript, dealer=me, holder=holder)
            secret = secrets.cipher.shared_with(adverts[holder].cipher_public, who=holder)
            pair = self_shares[point] + mask_shares[point]
            dealt.append(
                Dealt(
                    sealed=seal(pair, key=seal_key(secret, place=place), bound_to=place),
                    self_share_commitment=commit_share(
                        self_shares[point], attempt, kind="self", dealer=me, holder=holder
                    ),
                    mask_share_commitment=commit_share(
                        mask_shares[point], attempt, kind="mask", dealer=me, holder=holder
                    ),
                )
            )
        return tuple(dealt)


@dataclass(frozen=True)
class Shared(_Phase):
    """Phase 2 done: shares of the seeds are dealt."""

    _secrets: AttemptSecrets = field(repr=False)
    _adverts: Mapping[str, Advert] = field(repr=False)
    _transcript: bytes = field(repr=False)
    _graph: Graph = field(repr=False)
    _message: bytes = field(repr=False)
    _masked: Once = field(default_factory=Once, repr=False)

    def mask(
        self, shares: Mapping[str, Buffer], contribution: Contribution, *, rounding_key: bytes
    ) -> tuple["Masked", list[memoryview]]:
        """Quantize and mask the contribution.

        Args:
            shares: Every shares message that the coordinator counts, this partner's included.
            contribution: One array per lane, shape ``(lane.length,)``; float32 or float64 where the lane clips,
                else int64.
            rounding_key: 32 secret bytes that key the rounding.

        Returns:
            The next state, and the masked vector to send: its signed header and its body, not copied together.

        Raises:
            TooFewPartners: If fewer than the threshold dealt shares.
            ProtocolError: If a message does not verify, or a share is not what its dealer committed to.
            AgreementViolation: If the contribution does not fit the plan's lanes or is not finite.
            UpdateMismatch: If another contribution was masked before.
        """
        attempt = self.attempt
        self._demand_unchanged(shares, self._message, phase="shares")
        attempt.demand_subset(shares, self._adverts, phase="shares")
        attempt.demand_enough(shares, phase="shares")
        dealers = attempt.in_order(shares)
        held = self._open_shares(shares, dealers)
        transcript = transcript_of_shares(attempt, self._transcript, shares)
        streams = self._streams(dealers, transcript)
        body, digest = mask_contribution(
            attempt, contribution, streams, me=self.me, rounding_key=rounding_key
        )
        if not self._masked.settle(digest):
            raise UpdateMismatch(
                f"'{self.me}' has masked another vector in round {attempt.plan.round}, attempt {attempt.plan.attempt}; two "
                f"under the same masks would reveal their difference, so the second was not sent",
                advice="an attempt has one input: start a new attempt for a new one",
            )
        payload = MaskedHeader(transcript=transcript, body_sha256=digest).pack()
        header = sign(payload, attempt, kind=Kind.MASKED, sender=self.me, signer=self.signer)
        state = Masked(attempt, self.me, self.signer, transcript, self._graph, dealers, held)
        return state, [memoryview(header), body]

    def _open_shares(
        self, shares: Mapping[str, Buffer], dealers: tuple[str, ...]
    ) -> dict[str, tuple[bytes, bytes]]:
        attempt, graph = self.attempt, self._graph
        held: dict[str, tuple[bytes, bytes]] = {}

        def open_one(dealer: str) -> None:
            holders = graph.holders(dealer)
            message = Shares.parse(
                shares[dealer],
                attempt,
                sender=dealer,
                transcript=self._transcript,
                n_holders=len(holders),
            )
            if self.me in holders:
                held[dealer] = self._unseal(
                    message.dealt[graph.share_number(dealer=dealer, holder=self.me)], dealer
                )

        collect_refusals(dealers, open_one)
        return held

    def _unseal(self, dealt: Dealt, dealer: str) -> tuple[bytes, bytes]:
        attempt = self.attempt
        place = seal_place(attempt, self._transcript, dealer=dealer, holder=self.me)
        secret = self._secrets.cipher.shared_with(self._adverts[dealer].cipher_public, who=dealer)
        pair = unseal(dealt.sealed, key=seal_key(secret, place=place), bound_to=place, who=dealer)
        self_share, mask_share = pair[:SHARE_BYTES], pair[SHARE_BYTES:]
        committed = (dealt.self_share_commitment, dealt.mask_share_commitment)
        found = tuple(
            commit_share(share, attempt, kind=kind, dealer=dealer, holder=self.me)
            for kind, share in (("self", self_share), ("mask", mask_share))
        )
        if found != committed or not (in_range(self_share) and in_range(mask_share)):
            raise ProtocolError(f"'{dealer}' dealt '{self.me}' a share that it did not commit to")
        return self_share, mask_share

    def _streams(self, dealers: tuple[str, ...], transcript: bytes) -> MaskStreams:
        attempt, me = self.attempt, self.me
        added = [self_mask_key(self._secrets.self_seed, attempt, transcript, name=me)]
        subtracted: list[bytes] = []
        for peer in self._graph.peers(me, among=dealers):
            public = self._adverts[peer].mask_public
            key = pair_mask_key(self._secrets.mask, public, attempt, transcript, me=me, peer=peer)
            (added if adds_pair_mask(attempt, me=me, peer=peer) else subtracted).append(key)
        return MaskStreams(added=added, subtracted=subtracted)


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
