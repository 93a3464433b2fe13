"""Phase 2 at a partner: deal shares of its seeds and give pair secrets, then open what the others sent it.

Why: every share and every secret is committed to, so whoever sends another one is named before anything is
masked. Runs: on the partner. Source: Bonawitz et al. 2017 Fig. 4, round 1; commitments and pair secrets are own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from data_contracts.errors import ProtocolError
from tasks.secure_aggregation.attempt_secrets import AttemptSecrets
from tasks.secure_aggregation.graph import Graph
from tasks.secure_aggregation.key_encapsulation import encapsulate
from tasks.secure_aggregation.keys import seal, unseal
from tasks.secure_aggregation.messages import Advert, Dealt, Given, Shares
from tasks.secure_aggregation.protocol import (
    Attempt,
    commit_pair_secret,
    commit_self_seed,
    commit_share,
    pair_secret,
    seal_key,
    seal_place,
    wrap_pair_secret,
)
from tasks.secure_aggregation.shamir import SHARE_BYTES, in_range, split


@dataclass(frozen=True)
class Neighbourhood:
    """Who this partner is, and whom it deals with.

    Attributes:
        attempt: The attempt.
        me: This partner.
        secrets: Its secrets.
        adverts: Everybody's advertised keys.
        transcript: Digest of phase 1.
        graph: Who holds whose shares.
    """

    attempt: Attempt
    me: str
    secrets: AttemptSecrets = field(repr=False)
    adverts: Mapping[str, Advert] = field(repr=False)
    transcript: bytes = field(repr=False)
    graph: Graph = field(repr=False)

    def deal(self) -> Shares:
        """Share both seeds among the holders, and give each later neighbour the secret of the pair.

        Raises:
            ProtocolError: If a neighbour's key is malformed, naming it.
        """
        seed = self.secrets.self_seed
        return Shares(
            transcript=self.transcript,
            self_seed_commitment=commit_self_seed(seed, self.attempt, dealer=self.me),
            dealt=self._dealt(),
            given=tuple(self._give(taker) for taker in self.attempt.takers(self.graph, self.me)),
        )

    def _dealt(self) -> tuple[Dealt, ...]:
        attempt, secrets, threshold = self.attempt, self.secrets, self.graph.threshold
        holders = self.graph.holders(self.me)
        points = [attempt.point(holder) for holder in holders]
        self_key, mask_key = secrets.polynomial_keys
        own = split(secrets.self_seed, threshold=threshold, points=points, polynomial_key=self_key)
        mask = split(secrets.mask_seed, threshold=threshold, points=points, polynomial_key=mask_key)
        return tuple(
            self._seal(own[point], mask[point], holder) for holder, point in zip(holders, points, strict=True)
        )

    def _seal(self, self_share: bytes, mask_share: bytes, holder: str) -> Dealt:
        attempt, me, theirs = self.attempt, self.me, self.adverts[holder].cipher
        place = seal_place(attempt, self.transcript, dealer=me, holder=holder)
        dh_secret = self.secrets.cipher.dh.shared_with(theirs.dh, who=holder)
        kem_secret, ciphertext = encapsulate(theirs.kem, who=holder) if attempt.is_hybrid else (b"", b"")
        key = seal_key(dh_secret, kem_secret, place=place)
        return Dealt(
            sealed=seal(self_share + mask_share, key=key, bound_to=place),
            self_share_commitment=commit_share(self_share, attempt, kind="self", dealer=me, holder=holder),
            mask_share_commitment=commit_share(mask_share, attempt, kind="mask", dealer=me, holder=holder),
            encapsulated=ciphertext,
        )

    def _give(self, taker: str) -> Given:
        attempt, me = self.attempt, self.me
        value = pair_secret(self.secrets.mask_seed, attempt, giver=me, taker=taker)
        kem_secret, ciphertext = encapsulate(self.adverts[taker].mask.kem, who=taker)
        return Given(
            encapsulated=ciphertext,
            wrapped=wrap_pair_secret(value, kem_secret, attempt, giver=me, taker=taker),
            commitment=commit_pair_secret(value, attempt, giver=me, taker=taker),
        )

    def open_shares(self, message: Shares, dealer: str) -> tuple[bytes, bytes]:
        """Open the pair of shares that a neighbour dealt to this partner: of its self seed and of its mask seed.

        Raises:
            ProtocolError: If it does not open or is not what the dealer committed to, naming the dealer.
        """
        attempt, me = self.attempt, self.me
        dealt = message.dealt[self.graph.share_number(dealer=dealer, holder=me)]
        place = seal_place(attempt, self.transcript, dealer=dealer, holder=me)
        dh_secret = self.secrets.cipher.dh.shared_with(self.adverts[dealer].cipher.dh, who=dealer)
        kem_secret = self.secrets.cipher.decapsulate(dealt.encapsulated)
        key = seal_key(dh_secret, kem_secret, place=place)
        pair = unseal(dealt.sealed, key=key, bound_to=place, who=dealer)
        self_share, mask_share = pair[:SHARE_BYTES], pair[SHARE_BYTES:]
        committed = (dealt.self_share_commitment, dealt.mask_share_commitment)
        found = tuple(
            commit_share(share, attempt, kind=kind, dealer=dealer, holder=me)
            for kind, share in (("self", self_share), ("mask", mask_share))
        )
        if found != committed or not (in_range(self_share) and in_range(mask_share)):
            raise ProtocolError(f"'{dealer}' dealt '{me}' a share that it did not commit to")
        return self_share, mask_share

    def secret_with(self, peer: str, message: Shares) -> bytes:
        """The secret of this partner's pair with a neighbour: given by whichever comes first in the cohort.

        Args:
            peer: The neighbour.
            message: The neighbour's shares message.

        Returns:
            32 bytes; none at all where the plan has no pair secrets.

        Raises:
            ProtocolError: If it is not what the neighbour committed to, naming it.
        """
        if not self.attempt.is_hybrid:
            return b""
        if self.me < peer:
            return pair_secret(self.secrets.mask_seed, self.attempt, giver=self.me, taker=peer)
        given = message.given[self.attempt.takers(self.graph, peer).index(self.me)]
        kem_secret = self.secrets.mask.decapsulate(given.encapsulated)
        return given.unwrap(kem_secret, self.attempt, giver=peer, taker=self.me)
