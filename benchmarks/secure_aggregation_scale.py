"""What secure aggregation costs as the consortium grows: all neighbours of all, or a ring of neighbours.

Why: the ring is drawn so that its bounds hold, and what it saves depends on how many may collude.
Runs: by hand, `python benchmarks/secure_aggregation_scale.py`; CPU seconds of one thread. Source: own.
"""

import argparse
import time

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.plan import Lane, RoundPlan
from secure_aggregation import seed
from tasks.secure_aggregation import coordinator, graph, partner

LANE_BITS = {"ring_bits": 32, "value_bits": 22, "clip": 1.0}


class Clock:
    """Adds up CPU seconds by what they were for."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._since = time.thread_time()

    def start(self) -> None:
        """Begin to measure."""
        self._since = time.thread_time()

    def stop(self, what: str) -> None:
        """Book the time since the start."""
        self.spent[what] = self.spent.get(what, 0.0) + time.thread_time() - self._since


def plan_of(names: tuple[str, ...], *, threshold: int, length: int) -> RoundPlan:
    """A plan with one lane of a ring that is wide enough for all."""
    lane = Lane(name="update", length=length, **LANE_BITS)
    return RoundPlan(run_id="bench", round=0, study="bench", cohort=names, threshold=threshold, lanes=(lane,))


def play(n: int, *, threshold: int, length: int, dropped: int) -> dict[str, float]:
    """One whole round, every partner and the coordinator, in one process."""
    names = tuple(f"p{i:04d}" for i in range(n))
    signing = {name: Ed25519PrivateKey.from_private_bytes(seed(name)) for name in names}
    identities = {name: key.public_key().public_bytes_raw() for name, key in signing.items()}
    plan, clock = plan_of(names, threshold=threshold, length=length), Clock()
    update = np.random.default_rng(0).normal(scale=0.1, size=length).astype(np.float32)

    clock.start()
    begun = {
        name: partner.begin(
            plan, me=name, root=seed("r", name), signer=signing[name].sign, identities=identities
        )
        for name in names
    }
    adverts = {name: message for name, (_, message) in begun.items()}
    dealt = {name: state.share(adverts) for name, (state, _) in begun.items()}
    clock.stop("partner keys")
    shares = {name: message for name, (_, message) in dealt.items()}

    clock.start()
    shared = coordinator.begin(plan, identities=identities).adverts(adverts).shares(shares)
    clock.stop("coordinator")
    clock.start()
    masked = {
        name: state.mask(shares, {"update": update}, rounding_key=bytes(32))
        for name, (state, _) in dealt.items()
    }
    clock.stop("partner mask")
    vectors = {name: b"".join(chunks) for name, (_, chunks) in list(masked.items())[dropped:]}

    clock.start()
    survived = shared.masked(vectors)
    clock.stop("coordinator")
    clock.start()
    states = {name: masked[name][0].confirm(survived.survivors) for name in vectors}
    confirmations = {name: message for name, (_, message) in states.items()}
    unmaskings = {name: state.unmask(confirmations)[1] for name, (state, _) in states.items()}
    clock.stop("partner unmask")
    clock.start()
    total = survived.confirmations(confirmations).unmask(unmaskings)
    clock.stop("coordinator")
    check(total, update, n=n - dropped)
    spent = clock.spent
    partners = {what: seconds / n for what, seconds in spent.items() if what != "coordinator"}
    up = len(adverts[names[0]]) + len(shares[names[0]]) + len(unmaskings[names[-1]])
    down = sum(map(len, adverts.values())) + sum(map(len, shares.values()))
    return partners | {"coordinator": spent["coordinator"], "kB up": up / 1e3, "MB down": down / 1e6}


def check(total: coordinator.SecureSum, update: np.ndarray, *, n: int) -> None:
    """Stop if the sum is wrong."""
    error = np.abs(total.values["update"] / n - update).max()
    if len(total.survivors) != n or error > 1.01 / (2**21 - 1):
        raise SystemExit(f"the sum over {n} partners is off by {error}")


def main() -> None:
    """Print one line per size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 20, 40, 60, 100, 300])
    parser.add_argument("--parameters", type=int, default=100_000)
    parser.add_argument("--corrupt", type=float, default=0.1, help="share of partners that may collude")
    parser.add_argument("--dropped", type=float, default=0.05, help="share of vectors that never arrive")
    parser.add_argument("--complete", action="store_true", help="all neighbours of all, to compare with")
    given = parser.parse_args()
    if given.complete:
        graph.COMPLETE_UP_TO = max(given.sizes)
    columns = ("partner keys", "partner mask", "partner unmask", "coordinator", "kB up", "MB down")
    print(
        f"{given.parameters} parameters, ring of 32 bits, {given.corrupt:.0%} may collude, {given.dropped:.0%} drop out"
    )
    print(
        " n  threshold  neighbours  holders needed  " + "  ".join(columns) + "   (seconds; beyond the vector)"
    )
    for n in given.sizes:
        threshold = max(n // 2 + 1, -(-(n + int(given.corrupt * n) + 1) // 2))
        names = [f"p{i:04d}" for i in range(n)]
        drawn = graph.draw_graph(
            names, transcript=bytes(32), n_corrupt=2 * threshold - n - 1, threshold=threshold
        )
        row = play(n, threshold=threshold, length=given.parameters, dropped=int(given.dropped * n))
        cells = "  ".join(f"{row[column]:{len(column)}.3f}" for column in columns)
        neighbours = len(drawn.holders(names[0])) - 1
        print(f"{n:3d}  {threshold:9d}  {neighbours:10d}  {drawn.threshold:14d}  {cells}", flush=True)


if __name__ == "__main__":
    main()
