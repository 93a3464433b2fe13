"""What both sides of secure aggregation share: who takes part, transcripts, mask keys, set rules.

Why: partner and coordinator must compute the same bytes, and neither may import the other.
Runs: anywhere. Source: Bonawitz et al. 2017 (ACM CCS) Fig. 4, version for active adversaries; own: the
transcript is chained, and every mask key depends on it.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from typing_extensions import Buffer

from data_contracts.errors import AgreementViolation, ProtocolError, TooFewPartners
from data_contracts.plan import HYBRID, RoundPlan
from tasks.secure_aggregation.graph import Graph, draw_graph
from tasks.secure_aggregation.keys import DOMAIN, KEY_BYTES, KeyPair, commitment, derive
from tasks.secure_aggregation.masking import Layout
from tasks.secure_aggregation.quantization import LaneCode

MIN_SURVIVORS = 3  # of a sum of two, each contributor subtracts itself and holds the other's value

Identities = Mapping[str, bytes]
Messages = Mapping[str, Buffer]


@dataclass(frozen=True)
class Attempt:
    """One attempt at one secure sum, as everybody sees it.

    Args:
        plan: The round's plan; its digest keys every signature, seal and mask.
        identities: Pinned Ed25519 public keys (32 bytes) by partner; may name more than the cohort.

    Raises:
        AgreementViolation: If the plan would release a sum of fewer than three, could wrap around, or names a
            partner without a pinned key.
    """

    plan: RoundPlan
    identities: Identities = field(repr=False)

    def __post_init__(self) -> None:
        """Check again what a plan must fulfil; privacy rests on it."""
        plan = self.plan
        if plan.threshold < MIN_SURVIVORS or 2 * plan.threshold <= len(plan.cohort):
            raise AgreementViolation(
                f"the plan of round {plan.round} has threshold {plan.threshold} for {len(plan.cohort)} partners; at least "
                f"{MIN_SURVIVORS} and more than half are needed, or a released sum would betray single partners"
            )
        for name in plan.cohort:
            if len(self.identities.get(name, b"")) != KEY_BYTES:
                raise AgreementViolation(
                    f"'{name}' of the plan of round {plan.round} has no pinned 32-byte key"
                )
        for segment in self.layout.segments:
            LaneCode(segment.lane, n_partners=len(plan.cohort))

    @cached_property
    def digest(self) -> bytes:
        """The plan's digest, 32 bytes."""
        return bytes.fromhex(self.plan.digest)

    @cached_property
    def rounding_context(self) -> bytes:
        """The plan's digest with its attempt number left out: a repeated attempt rounds as the first did."""
        return bytes.fromhex(self.plan.model_copy(update={"attempt": 0}).digest)

    @cached_property
    def layout(self) -> Layout:
        """How the vector is laid out."""
        return Layout.of(self.plan)

    @cached_property
    def _positions(self) -> Mapping[str, int]:
        return {name: position for position, name in enumerate(self.plan.cohort)}

    def position(self, name: str) -> int:
        """A partner's place in the sorted cohort, from 0.

        Raises:
            ProtocolError: If it is not of the cohort.
        """
        if name not in self._positions:
            raise ProtocolError(f"'{name}' is not in the cohort of round {self.plan.round}")
        return self._positions[name]

    def point(self, name: str) -> int:
        """The abscissa of a partner's shares."""
        return self.position(name) + 1

    def in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """Names in the cohort's order."""
        return tuple(sorted(names, key=self.position))

    def bitmap(self, names: Collection[str]) -> bytes:
        """A set of partners as bits, first partner first, zero-padded to whole bytes."""
        bits = bytearray(self.bitmap_bytes)
        for name in names:
            byte, bit = divmod(self.position(name), 8)
            bits[byte] |= 0x80 >> bit
        return bytes(bits)

    @property
    def bitmap_bytes(self) -> int:
        """Size of a bitmap."""
        return (len(self.plan.cohort) + 7) // 8

    @property
    def is_hybrid(self) -> bool:
        """Whether seals and pairwise masks rest on ML-KEM-768 beside X25519."""
        return self.plan.pair_secrets == HYBRID

    def takers(self, graph: Graph, name: str) -> tuple[str, ...]:
        """To whom a partner gives a pair secret: nobody where the plan has none."""
        return graph.takers(name) if self.is_hybrid else ()

    @property
    def n_corrupt(self) -> int:
        """Most partners that may collude with the coordinator: 2 * threshold > cohort + colluding."""
        return 2 * self.plan.threshold - len(self.plan.cohort) - 1

    def graph(self, names: Collection[str], *, transcript: bytes) -> Graph:
        """The neighbour graph over those that advertised, drawn from their adverts' transcript."""
        return draw_graph(
            names, transcript=transcript, n_corrupt=self.n_corrupt, threshold=self.plan.threshold
        )

    def demand_enough(self, names: Collection[str], *, phase: str) -> None:
        """Check a phase's set against the threshold.

        Raises:
            TooFewPartners: If it is below.
        """
        if len(names) < self.plan.threshold:
            absent = ", ".join(sorted(set(self.plan.cohort) - set(names)))
            raise TooFewPartners(
                f"round {self.plan.round}, attempt {self.plan.attempt}: {len(names)} of {len(self.plan.cohort)} partners in "
                f"phase '{phase}', {self.plan.threshold} are needed; missing: {absent}; nothing was released"
            )

    def demand_connected(self, graph: Graph, survivors: Collection[str]) -> None:
        """Check that the survivors' graph allows one sum only, the sum of all.

        Raises:
            TooFewPartners: If a survivor lost too many neighbours.
        """
        if alone := graph.isolated(survivors):
            raise TooFewPartners(
                f"round {self.plan.round}, attempt {self.plan.attempt}: too few neighbours of {', '.join(alone)} survived "
                f"for one connected sum; nothing was released"
            )

    def demand_subset(self, names: Iterable[str], allowed: Collection[str], *, phase: str) -> None:
        """Check that a phase's set lies within the phase's before.

        Raises:
            ProtocolError: If it does not, naming who appeared from nowhere.
        """
        extra = sorted(set(names) - set(allowed))
        if extra:
            raise ProtocolError(
                f"phase '{phase}' of round {self.plan.round} counts {', '.join(extra)}, absent from the phase before"
            )


def transcript_of_adverts(attempt: Attempt, adverts: Messages) -> bytes:
    """Digest of phase 1: the plan and every counted advert, in the cohort's order."""
    return _chain(attempt, "adverts", attempt.digest, adverts)


def transcript_of_shares(attempt: Attempt, before: bytes, shares: Messages) -> bytes:
    """Digest of phases 1 and 2: who dealt what to whom. Every mask key of the attempt depends on it."""
    return _chain(attempt, "shares", before, shares)


def _chain(attempt: Attempt, label: str, before: bytes, messages: Messages) -> bytes:
    hasher = hashlib.sha256(DOMAIN + b"transcript/" + label.encode() + b"\x00" + before)
    for name in attempt.in_order(messages):
        hasher.update(attempt.position(name).to_bytes(2, "big"))
        hasher.update(hashlib.sha256(messages[name]).digest())
    return hasher.digest()


class Once:
    """A decision that an attempt takes once; the same again is no other decision.

    It guards one process; what must outlast a restart is pinned by the caller.
    """

    def __init__(self) -> None:
        self._decided: bytes | None = None

    def settle(self, value: bytes) -> bool:
        """Whether ``value`` is the first or the same as the first."""
        if self._decided is None:
            self._decided = value
        return self._decided == value


def seal_place(attempt: Attempt, transcript: bytes, *, dealer: str, holder: str) -> bytes:
    """What a sealed pair of shares is bound to: the transcript, and from whom to whom it goes."""
    return transcript + _place(attempt, dealer) + _place(attempt, holder)


def seal_key(dh_secret: bytes, kem_secret: bytes, *, place: bytes) -> bytes:
    """Key of one sealed pair of shares, from both secrets of dealer and holder; the second may be empty."""
    return derive(dh_secret + kem_secret, label="seal-shares", context=place)


def pair_secret(mask_seed: bytes, attempt: Attempt, *, giver: str, taker: str) -> bytes:
    """The secret that a partner gives to a later one under ML-KEM; whoever rebuilds its seed rebuilds it."""
    return derive(mask_seed, label="pair-secret", context=_pair_place(attempt, giver, taker))


def wrap_pair_secret(value: bytes, kem_secret: bytes, attempt: Attempt, *, giver: str, taker: str) -> bytes:
    """Hide a pair secret under a key of its own, or show it again: the operation is its own inverse.

    It is bare of a tag, for :func:`commit_pair_secret` tells whether it arrived.
    """
    pad = derive(kem_secret, label="wrap-pair-secret", context=_pair_place(attempt, giver, taker))
    return bytes(a ^ b for a, b in zip(value, pad, strict=True))


def commit_pair_secret(value: bytes, attempt: Attempt, *, giver: str, taker: str) -> bytes:
    """Commitment to a pair secret, published with the shares."""
    return commitment(value, label="commit-pair-secret", context=_pair_place(attempt, giver, taker))


def self_mask_key(self_seed: bytes, attempt: Attempt, transcript: bytes, *, name: str) -> bytes:
    """Key of a partner's self mask."""
    return derive(self_seed, label="self-mask", context=transcript + _place(attempt, name))


def pair_mask_key(
    mine: KeyPair,
    public: bytes,
    attempt: Attempt,
    transcript: bytes,
    *,
    me: str,
    peer: str,
    secret: bytes,
) -> bytes:
    """Key of the mask that two partners share: one adds it, the other subtracts it.

    Args:
        mine: X25519 pair of one of them.
        public: X25519 key of the other.
        attempt: The attempt.
        transcript: Of phases 1 and 2.
        me: Whose pair it is.
        peer: Whose key it is.
        secret: The pair secret; empty where the plan has none.

    Raises:
        ProtocolError: If the peer's key is a point of low order.
    """
    first, second = attempt.in_order((me, peer))
    place = transcript + _place(attempt, first) + _place(attempt, second)
    return derive(mine.shared_with(public, who=peer) + secret, label="pair-mask", context=place)


def adds_pair_mask(attempt: Attempt, *, me: str, peer: str) -> bool:
    """Whether ``me`` adds the mask it shares with ``peer``: the one that comes first in the cohort does."""
    return attempt.position(me) < attempt.position(peer)


def commit_self_seed(self_seed: bytes, attempt: Attempt, *, dealer: str) -> bytes:
    """Commitment to a self seed, published with the shares."""
    return commitment(self_seed, label="commit-self-seed", context=attempt.digest + _place(attempt, dealer))


def commit_share(share: bytes, attempt: Attempt, *, kind: str, dealer: str, holder: str) -> bytes:
    """Commitment to one share: it tells whether a bad share is its dealer's or its holder's doing.

    A share alone is a uniform field element, so its digest hides it.
    """
    place = attempt.digest + _place(attempt, dealer) + _place(attempt, holder)
    return commitment(share, label=f"commit-{kind}-share", context=place)


def blinding_key(shared: bytes, attempt: Attempt, *, name: str) -> bytes:
    """Key of the stream that blinds one partner's vector, from the secret that all partners share."""
    return derive(shared, label="blinding", context=attempt.digest + _place(attempt, name))


def _pair_place(attempt: Attempt, giver: str, taker: str) -> bytes:
    return attempt.digest + _place(attempt, giver) + _place(attempt, taker)


def _place(attempt: Attempt, name: str) -> bytes:
    return attempt.position(name).to_bytes(2, "big")
