"""What secure aggregation costs, against an in-place plain mean of the same vectors in the same run.

Why: goals are ratios, so that they hold on another machine. Runs: by hand, `python benchmarks/secure_aggregation.py`.
All times are CPU seconds of one thread, best of a few repetitions; ``wall`` compares one thread with several.
Source: own.
"""

import argparse
import hashlib
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.plan import HYBRID, Lane, PairSecrets, RoundPlan
from tasks.secure_aggregation import coordinator, partner
from tasks.secure_aggregation.masking import BLOCK_BYTES, Keystream

CLIP = 1.0
VALUE_BITS = {16: 12, 32: 22}
PAIR_SECRETS: dict[str, PairSecrets] = {"x25519": "x25519", "hybrid": HYBRID}
Update = npt.NDArray[np.float32]
Messages = dict[str, bytes]


def cpu_seconds(work: Callable[[], Any], *, repeats: int) -> tuple[float, Any]:
    """Best CPU time of this thread, and the last result."""
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.thread_time()
        result = work()
        best = min(best, time.thread_time() - start)
    return best, result


def plain_mean(updates: list[Update]) -> Update:
    """The mean as cheap as numpy makes it: one float32 accumulator, added to in place."""
    total = updates[0].copy()
    for update in updates[1:]:
        total += update
    total /= len(updates)
    return total


def keystream_floor(*, n: int, n_bytes: int) -> None:
    """What the cryptographic library alone needs for n keystreams: nothing built on it can be faster."""
    buffer = np.empty(BLOCK_BYTES, np.uint8)
    streams = [Keystream(seed(i)) for i in range(n)]
    for _ in range(n_bytes // BLOCK_BYTES):
        for stream in streams:
            stream.fill(buffer)


def extra_memory(work: Callable[[], Any]) -> int:
    """Peak bytes that a piece of work allocates, its result included."""
    tracemalloc.start()
    result = work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del result
    return peak


def seed(*words: object) -> bytes:
    """32 bytes that are the same in every run."""
    return hashlib.sha256(repr(words).encode()).digest()


class Cohort:
    """n partners that have dealt their shares, and the coordinator that awaits their masked vectors."""

    def __init__(self, *, n: int, length: int, ring_bits: int, pair_secrets: PairSecrets = HYBRID) -> None:
        self.names = tuple(f"p{i:03d}" for i in range(n))
        signing = {name: Ed25519PrivateKey.from_private_bytes(seed(name)) for name in self.names}
        identities = {name: key.public_key().public_bytes_raw() for name, key in signing.items()}
        self.lane = Lane(
            name="update", length=length, ring_bits=ring_bits, value_bits=VALUE_BITS[ring_bits], clip=CLIP
        )
        plan = RoundPlan(
            run_id="bench",
            round=0,
            study="bench",
            cohort=self.names,
            threshold=2 * n // 3 + 1,
            lanes=(self.lane,),
            pair_secrets=pair_secrets,
        )
        start = time.thread_time()
        begun = {
            name: partner.begin(
                plan, me=name, root=seed("root", name), signer=signing[name].sign, identities=identities
            )
            for name in self.names
        }
        self.adverts: Messages = {name: advert for name, (_, advert) in begun.items()}
        dealt = {name: state.share(self.adverts) for name, (state, _) in begun.items()}
        self.shares: Messages = {name: message for name, (_, message) in dealt.items()}
        self.key_seconds = (time.thread_time() - start) / n
        self.shared = {name: state for name, (state, _) in dealt.items()}
        opened = coordinator.begin(plan, identities=identities)
        self.coordinator = opened.adverts(self.adverts).shares(self.shares)

    def mask(self, name: str, update: Update, *, workers: int = 1) -> tuple[partner.Masked, list[memoryview]]:
        """One partner quantizes and masks its update; repeated, it gives the same bytes."""
        state = self.shared[name]
        return state.mask(self.shares, {"update": update}, rounding_key=bytes(32), workers=workers)


def measure(*, n: int, length: int, ring_bits: int, repeats: int) -> dict[str, Any]:
    """Time one round's steps, with nobody and with one partner dropping out."""
    rng = np.random.default_rng(0)
    updates = [rng.normal(scale=0.1, size=length).astype(np.float32) for _ in range(n)]
    mean_seconds, mean = cpu_seconds(lambda: plain_mean(updates), repeats=repeats)
    floor, _ = cpu_seconds(lambda: keystream_floor(n=n, n_bytes=length * ring_bits // 8), repeats=repeats)
    cohort = Cohort(n=n, length=length, ring_bits=ring_bits)
    protect, masked = mask_all(cohort, updates)
    first = cohort.names[0]
    arrival, _ = cpu_seconds(
        lambda: [cohort.coordinator.check_masked(name, masked[name]) for name in cohort.names],
        repeats=repeats,
    )
    report: dict[str, Any] = {
        "ring_bits": ring_bits,
        "plain_mean_s": mean_seconds,
        "keystream_floor_s": floor,
        "partner_protect_s": min(protect),
        "partner_memory_vs_float32": extra_memory(lambda: cohort.mask(first, updates[0])) / (4 * length),
        "upload_vs_float32": len(masked[first]) / (4 * length),
        "coordinator_arrival_hash_s": arrival,
    }
    report |= key_costs(n=n, round_seconds=min(protect))
    for dropped in (1, 0):
        seconds, total, work = unmask(cohort, updates, masked, dropped=dropped, repeats=repeats)
        report[f"coordinator_unmask_{dropped}_dropped_s"] = seconds
        report[f"coordinator_vs_plain_mean_{dropped}_dropped"] = seconds / mean_seconds
    report["coordinator_with_hashing_vs_plain_mean"] = (seconds + arrival) / mean_seconds
    report["coordinator_memory_vs_float32"] = extra_memory(work) / (4 * length)
    report |= threads(cohort, updates[0], repeats=repeats)
    report["largest_error_of_mean"] = error = float(np.abs(total.values["update"] / n - mean).max())
    if error > 1.01 * CLIP / (2 ** (cohort.lane.value_bits - 1) - 1):
        raise SystemExit(f"the secure mean is off by {error}")
    return report


def mask_all(cohort: Cohort, updates: list[Update]) -> tuple[list[float], Messages]:
    """Every partner masks its update; CPU seconds of each, and the messages."""
    protect, masked = [], {}
    for name, update in zip(cohort.names, updates, strict=True):
        seconds, (_, chunks) = cpu_seconds(partial(cohort.mask, name, update), repeats=1)
        protect.append(seconds)
        masked[name] = b"".join(chunks)
    return protect, masked


def key_costs(*, n: int, round_seconds: float) -> dict[str, float]:
    """What keys and shares cost a partner with and without ML-KEM, in seconds, bytes and parts of a round.

    Opening the others' messages is counted by masking an empty vector.
    """
    costs: dict[str, float] = {}
    empty = np.zeros(1, np.float32)
    for label, pair_secrets in PAIR_SECRETS.items():
        small = [Cohort(n=n, length=1, ring_bits=16, pair_secrets=pair_secrets) for _ in range(5)]
        name = small[0].names[n // 2]
        opening, _ = cpu_seconds(partial(small[0].mask, name, empty), repeats=5)
        costs[f"partner_keys_{label}_s"] = min(cohort.key_seconds for cohort in small) + opening
        costs[f"partner_keys_{label}_bytes"] = max(
            len(small[0].adverts[m]) + len(small[0].shares[m]) for m in small[0].names
        )
    extra = costs["partner_keys_hybrid_s"] - costs["partner_keys_x25519_s"]
    return costs | {"hybrid_part_of_partner_round": extra / (round_seconds + costs["partner_keys_x25519_s"])}


def threads(cohort: Cohort, update: Update, *, repeats: int) -> dict[str, float]:
    """Wall time of one thread over that of as many as there are cores; 1 on a machine that is busy elsewhere."""
    walls = []
    for workers in (1, os.cpu_count() or 1):
        best = float("inf")
        for _ in range(repeats):
            start = time.perf_counter()
            cohort.mask(cohort.names[0], update, workers=workers)
            best = min(best, time.perf_counter() - start)
        walls.append(best)
    return {"partner_wall_1_thread_s": walls[0], "partner_wall_speedup_of_all_cores": walls[0] / walls[1]}


def unmask(
    cohort: Cohort, updates: list[Update], masked: Messages, *, dropped: int, repeats: int
) -> tuple[float, coordinator.SecureSum, Callable[[], coordinator.SecureSum]]:
    """Time the coordinator's last step, after the first ``dropped`` masked vectors were lost."""
    survivors = cohort.names[dropped:]
    kept = updates[dropped:]
    survived = cohort.coordinator.masked({name: masked[name] for name in survivors})
    states, confirmations = {}, {}
    for name, update in zip(survivors, kept, strict=True):
        states[name], confirmations[name] = cohort.mask(name, update)[0].confirm(survivors)
    unmaskings = {name: states[name].unmask(confirmations)[1] for name in survivors}
    confirmed = survived.confirmations(confirmations)

    def work() -> coordinator.SecureSum:
        return confirmed.unmask(unmaskings)

    return *cpu_seconds(work, repeats=repeats), work


def main() -> None:
    """Print one JSON object per ring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partners", type=int, default=10)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for ring_bits in VALUE_BITS:
        report = measure(
            n=arguments.partners,
            length=arguments.parameters,
            ring_bits=ring_bits,
            repeats=arguments.repeats,
        )
        rounded = {
            key: round(value, 4) if isinstance(value, float) else value for key, value in report.items()
        }
        print(json.dumps(rounded, indent=1))


if __name__ == "__main__":
    main()
