"""Secure aggregation beside Flower's own SecAgg+ code, on the same vectors in the same run.

Why: a claim against another framework counts only with that framework's code. Flower cannot be installed beside
motet, so it gets an environment of its own: ``python3.11 -m venv DIR && DIR/bin/pip install flwr==1.42.0``.
Runs: by hand, `python benchmarks/flower_secure_aggregation.py --flower DIR/bin/python`. CPU seconds of one
thread on both sides, no serialization and no network on either. Source: own; ``flower_worker.py``.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from secure_aggregation import VALUE_BITS, Cohort, cpu_seconds, mask_all, unmask

WORKER = Path(__file__).with_name("flower_worker.py")


def ask_flower(python: str, **request: Any) -> dict[str, Any]:
    """Run one request in Flower's environment."""
    done = subprocess.run(
        [python, str(WORKER), json.dumps(request)], check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def ours(vectors: np.ndarray, *, ring_bits: int, repeats: int) -> dict[str, float]:
    """The same round here: keys, opening and masking on a partner; hashing, adding, unmasking, decoding."""
    n, length = vectors.shape
    cohort = Cohort(n=n, length=length, ring_bits=ring_bits)
    protect, masked = mask_all(cohort, list(vectors))
    arrival, _ = cpu_seconds(
        lambda: [cohort.coordinator.check_masked(name, masked[name]) for name in cohort.names],
        repeats=repeats,
    )
    report = {
        "client_s": min(protect) + cohort.key_seconds,
        "bytes_up": max(
            len(masked[m]) + len(cohort.adverts[m]) + len(cohort.shares[m]) for m in cohort.names
        ),
    }
    for dropped in (0, 1):
        seconds, _, _ = unmask(cohort, list(vectors), masked, dropped=dropped, repeats=repeats)
        report[f"server_{dropped}_dropped_s"] = seconds
        report[f"server_{dropped}_dropped_with_hashing_s"] = seconds + arrival
    return report


def main() -> None:
    """Print both sides' figures and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flower", required=True, help="python of the environment that has flwr")
    parser.add_argument("--partners", type=int, default=10)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    shape = (given.partners, given.parameters)
    vectors = np.random.default_rng(0).normal(scale=0.1, size=shape).astype(np.float32)
    threshold = 2 * given.partners // 3 + 1
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "vectors.npy")
        np.save(path, vectors)
        theirs = {
            dropped: ask_flower(given.flower, what="cost", path=path, threshold=threshold, dropped=dropped)
            for dropped in (0, 1)
        }
    print(json.dumps({"theirs": theirs, "their defects": ask_flower(given.flower, what="defects")}, indent=1))
    for ring_bits in VALUE_BITS:
        mine = ours(vectors, ring_bits=ring_bits, repeats=given.repeats)
        ratios = {
            "client": theirs[0]["client_s"] / mine["client_s"],
            "bytes": mine["bytes_up"] / theirs[0]["bytes_up"],
        }
        for dropped in (0, 1):
            ratios[f"server, {dropped} dropped"] = (
                theirs[dropped]["server_s"] / mine[f"server_{dropped}_dropped_s"]
            )
            ratios[f"server, {dropped} dropped, our hashing included"] = (
                theirs[dropped]["server_s"] / mine[f"server_{dropped}_dropped_with_hashing_s"]
            )
        print(
            json.dumps(
                {"ring_bits": ring_bits, "ours": mine, "times faster, part of the bytes": ratios}, indent=1
            )
        )


if __name__ == "__main__":
    main()
