"""Who holds whose shares and shares masks with whom: everybody, or neighbours on a random ring.

Why: with hundreds of partners a few neighbours suffice, if the graph is drawn from joint randomness and its
degree is never below computed tail bounds. Runs: anywhere; all parties draw the same graph.
Source: Bell et al. 2020 (SecAgg+, Harary graphs), with own bounds that also hold if the coordinator chooses
who drops out after it has seen the graph; the argument stands in :func:`ring_parameters`.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import comb

COMPLETE_UP_TO = 60  # partners; a ring gains nothing below
SECURITY_BITS = 40  # failure probability 2^-40 against one fixed graph ...
GRINDING_BITS = 64  # ... and against an adversary that tries 2^64 sets of adverts to pick its graph
LIVENESS_BITS = 30  # a round is lost for want of neighbours with probability 2^-30 at ...
DROPOUT_FRACTION = 0.1  # ... this share of partners dropping out at random


@dataclass(frozen=True)
class RingParameters:
    """Degree and threshold of a ring graph.

    Attributes:
        half_degree: Neighbours on each side.
        threshold: How many of a partner's holders reconstruct its seeds, and how many of its neighbours must
            survive with it.
    """

    half_degree: int
    threshold: int


@dataclass(frozen=True)
class Graph:
    """The neighbour graph of one attempt.

    Attributes:
        order: Partners that advertised, in ring order; in cohort order if the graph is complete.
        half_degree: Neighbours on each side of the ring.
        threshold: How many shares reconstruct a seed.
    """

    order: tuple[str, ...]
    half_degree: int
    threshold: int

    @cached_property
    def _holders(self) -> dict[str, tuple[str, ...]]:
        if self.is_complete:
            return dict.fromkeys(self.order, tuple(sorted(self.order)))
        n, reach = len(self.order), range(-self.half_degree, self.half_degree + 1)
        return {
            name: tuple(sorted(self.order[(here + step) % n] for step in reach))
            for here, name in enumerate(self.order)
        }

    @property
    def is_complete(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return 2 * self.half_degree + 1 >= len(self.order)

    def holders(self, name: str) -> tuple[str, ...]:
        """Who holds shares of a partner's seeds: its neighbours and itself, sorted."""
        return self._holders[name]

    def takers(self, name: str) -> tuple[str, ...]:
        """To whom a partner gives the secret of their pair: to its neighbours that come after it, sorted."""
        return tuple(other for other in self.holders(name) if other > name)

    def share_number(self, *, dealer: str, holder: str) -> int:
        """At which place among the dealer's holders a holder stands."""
        return bisect_left(self._holders[dealer], holder)

    def peers(self, name: str, *, among: Collection[str]) -> tuple[str, ...]:
        """With whom of some partners a partner has a pairwise mask, sorted."""
        return tuple(other for other in self.holders(name) if other != name and other in among)

    def isolated(self, survivors: Collection[str]) -> tuple[str, ...]:
        """Survivors with too few surviving neighbours for the guarantee of one connected sum, sorted.

        A complete graph isolates nobody: there the threshold on all survivors says enough.
        """
        if self.is_complete:
            return ()
        alive = frozenset(survivors)
        return tuple(name for name in sorted(alive) if len(self.peers(name, among=alive)) < self.threshold)


def draw_graph(names: Collection[str], *, transcript: bytes, n_corrupt: int, threshold: int) -> Graph:
    """Draw the graph of an attempt from its adverts.

    Args:
        names: Who advertised.
        transcript: Digest of all adverts, 32 bytes: the joint randomness.
        n_corrupt: Most partners that may collude with the coordinator.
        threshold: The plan's threshold, which a complete graph uses for its shares.
    """
    ordered = tuple(sorted(names))
    n = len(ordered)
    parameters = ring_parameters(n, n_corrupt=n_corrupt) if n > COMPLETE_UP_TO else None
    if parameters is None:
        return Graph(order=ordered, half_degree=n // 2, threshold=threshold)
    ring = sorted(ordered, key=lambda name: hashlib.sha256(transcript + b"ring\x00" + name.encode()).digest())
    return Graph(order=tuple(ring), half_degree=parameters.half_degree, threshold=parameters.threshold)


@lru_cache(maxsize=64)
def ring_parameters(n: int, *, n_corrupt: int) -> RingParameters | None:
    """Smallest degree for which all three bounds hold, or None if only the complete graph is safe.

    With h neighbours on each side of a ring in random order, threshold t, and all partners refusing a set of
    survivors in which somebody has fewer than t surviving neighbours:

    * one sum: honest survivors are cut apart only by h places in a row without an honest survivor. The survivor
      beside such a gap has at most h surviving neighbours on its other side and the g corrupt ones in the gap, so
      t > h + g makes the gap impossible, whoever the coordinator lets drop out;
    * secrecy: fewer than t of any partner's 2h neighbours are corrupt;
    * liveness: at random dropouts everybody keeps t neighbours.

    The corrupt among a stretch of the ring are hypergeometric; the tails are summed exactly in integers.

    Args:
        n: Partners on the ring.
        n_corrupt: Most of them that may collude.
    """
    safety = SECURITY_BITS + GRINDING_BITS
    n_dropped = int(n * DROPOUT_FRACTION)
    for half in range(1, (n - 1) // 2):
        in_gap = _quantile(n - 1, n_corrupt, half, bits=safety, n_events=2 * n)
        in_neighbourhood = _quantile(n - 1, n_corrupt, 2 * half, bits=safety, n_events=n)
        threshold = max(half + in_gap, in_neighbourhood) + 1
        lost = _quantile(n - 1, n_dropped, 2 * half, bits=LIVENESS_BITS, n_events=n)
        if 2 * half - lost >= threshold:
            return RingParameters(half_degree=half, threshold=threshold)
    return None


def _quantile(population: int, marked: int, drawn: int, *, bits: int, n_events: int) -> int:
    """Smallest x such that more than x marked ones among those drawn has probability <= 2^-bits / n_events."""
    total = comb(population, drawn)
    tail = 0
    for x in range(min(marked, drawn), -1, -1):
        tail += comb(marked, x) * comb(population - marked, drawn - x)
        if (tail * n_events) << bits > total:
            return x
    return 0
