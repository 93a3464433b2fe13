"""From released shares to the masks that remain in a sum: self masks of survivors, pairwise masks of the others.

Why: each reconstructed seed is checked against what its dealer published, so a dealer whose shares do not fit
together is named. Runs: on the coordinator, or on anybody who repeats a round.
Source: Bonawitz et al. 2017 Fig. 4, round 4; the checks are own.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from data_contracts.errors import ProtocolError
from tasks.secure_aggregation.attempt_secrets import HybridPair, mask_pair
from tasks.secure_aggregation.graph import Graph
from tasks.secure_aggregation.masking import Masks
from tasks.secure_aggregation.messages import Advert, Shares, collect_refusals
from tasks.secure_aggregation.protocol import (
    Attempt,
    adds_pair_mask,
    commit_pair_secret,
    commit_self_seed,
    pair_mask_key,
    pair_secret,
    self_mask_key,
)
from tasks.secure_aggregation.shamir import combine


@dataclass(frozen=True)
class Recovery:
    """What everybody published before a round was unmasked.

    Attributes:
        attempt: The attempt.
        adverts: Advertised keys.
        graph: Who holds whose shares.
        shares: The dealers' messages.
        transcript: Of phases 1 and 2.
        survivors: Whose vectors are summed.
    """

    attempt: Attempt
    adverts: Mapping[str, Advert] = field(repr=False)
    graph: Graph = field(repr=False)
    shares: Mapping[str, Shares] = field(repr=False)
    transcript: bytes = field(repr=False)
    survivors: Collection[str]

    def remaining_masks(self, released: Mapping[str, Mapping[int, bytes]]) -> Masks:
        """The masks that take everything but the sum out of the survivors' vectors.

        Args:
            released: By dealer, shares by point: of the self seed of a survivor, else of the mask seed.

        Raises:
            ProtocolError: If shares do not give what their dealer committed to, naming all such dealers.
        """
        added: list[bytes] = []
        subtracted: list[bytes] = []

        def remove(dealer: str) -> None:
            seed = combine(released[dealer], threshold=self.graph.threshold)
            if dealer in self.survivors:
                subtracted.append(self._self_mask(dealer, seed))
                return
            for peer, key in self.pair_masks(dealer, seed).items():
                peer_added = adds_pair_mask(self.attempt, me=peer, peer=dealer)
                (subtracted if peer_added else added).append(key)

        collect_refusals(tuple(released), remove)
        return Masks(added=tuple(added), subtracted=tuple(subtracted))

    def _self_mask(self, dealer: str, seed: bytes | None) -> bytes:
        committed = self.shares[dealer].self_seed_commitment
        if seed is None or commit_self_seed(seed, self.attempt, dealer=dealer) != committed:
            raise _ill_dealt(dealer, "self seed")
        return self_mask_key(seed, self.attempt, self.transcript, name=dealer)

    def pair_masks(self, dealer: str, seed: bytes | None) -> dict[str, bytes]:
        """Keys of the masks that survivors share with a partner that dropped out, by survivor."""
        attempt = self.attempt
        if seed is None:
            raise _ill_dealt(dealer, "mask key")
        pair = mask_pair(seed, plan_digest=attempt.digest, pair_secrets=attempt.plan.pair_secrets)
        if pair.public != self.adverts[dealer].mask:
            raise _ill_dealt(dealer, "mask key")
        return {
            peer: pair_mask_key(
                pair.dh,
                self.adverts[peer].mask.dh,
                attempt,
                self.transcript,
                me=dealer,
                peer=peer,
                secret=self._pair_secret(dealer, seed, pair, peer=peer),
            )
            for peer in self.graph.peers(dealer, among=self.survivors)
        }

    def _pair_secret(self, dealer: str, seed: bytes, pair: HybridPair, *, peer: str) -> bytes:
        attempt = self.attempt
        if not attempt.is_hybrid:
            return b""
        giver, taker = attempt.in_order((dealer, peer))
        given = self.shares[giver].given[attempt.takers(self.graph, giver).index(taker)]
        if giver != dealer:
            kem_secret = pair.decapsulate(given.encapsulated)
            return given.unwrap(kem_secret, attempt, giver=giver, taker=taker)
        value = pair_secret(seed, attempt, giver=giver, taker=taker)
        if commit_pair_secret(value, attempt, giver=giver, taker=taker) != given.commitment:
            raise _ill_dealt(dealer, "pair secrets")
        return value


def _ill_dealt(dealer: str, what: str) -> ProtocolError:
    return ProtocolError(
        f"the shares that '{dealer}' dealt of its {what} do not give what it committed to: '{dealer}' deviates; "
        f"nothing was released",
        advice="repeat the round without the named partner, and keep the mailbox as evidence",
    )
