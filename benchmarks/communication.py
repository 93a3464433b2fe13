"""Bytes per partner and validation AUPRC: one secure sum per minibatch, as MELLODDY trained, against the default.

Why: communication is what limits a federation of large trunks; both sides make as many passes over the data. Runs: on one
machine; ``python benchmarks/communication.py --epochs 6 --hidden 64``. Source: own. What a partner sent is counted from
its signed messages; what it fetched, from the plans.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

BATCHES_PER_EPOCH = 50
SIDES = ("fedavg", "fedsgd")


def main() -> None:
    """Run both sides and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=Path("motet-home"))
    parser.add_argument("--data", help="directory of an imported dataset (default: embedded)")
    parser.add_argument("--epochs", type=int, default=24, help="passes over the data on both sides; even")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--learning-rate", type=float, nargs="+", default=[1e-3], help="of fedsgd; the best one counts"
    )
    parser.add_argument("--side", choices=SIDES, nargs="+", default=SIDES)
    arguments = parser.parse_args()
    rows = []
    for side in arguments.side:
        for rate in arguments.learning_rate if side == "fedsgd" else [None]:
            rows.append(measured(arguments, side, rate))
            print(json.dumps(rows[-1]), flush=True)
    best = {
        side: max((row for row in rows if row["side"] == side), key=lambda row: row["auprc"])
        for side in arguments.side
    }
    if set(SIDES) <= set(best):
        average, minibatches = best["fedavg"], best["fedsgd"]
        print(f"bytes up: {minibatches['up_mb'] / average['up_mb']:.1f} times fewer by default")
        print(f"AUPRC:    {average['auprc']:.4f} by default, {minibatches['auprc']:.4f} by minibatches")


def measured(arguments: argparse.Namespace, side: str, rate: float | None) -> dict[str, Any]:
    """Run one side; a finished run is found."""
    name = f"bytes-{side}-h{arguments.hidden}-e{arguments.epochs}-s{arguments.seed}"
    rounds = arguments.epochs // 2 if side == "fedavg" else arguments.epochs * BATCHES_PER_EPOCH
    options = [
        "--algorithm",
        side,
        "--rounds",
        str(rounds),
        "--hidden",
        str(arguments.hidden),
        "--phase",
        "tune",
    ]
    options += ["--seed", str(arguments.seed), "--no-pooled-arm", "--home", str(arguments.home)]
    if side == "fedavg":
        options += ["--local-epochs", "2"]
    if rate is not None:
        name += f"-lr{rate:g}".replace(".", "-").lower()
        options += ["--learning-rate", f"{rate:g}"]
    if arguments.data:
        options += ["--data", arguments.data]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "flows.cli", "run", "--json", "--run-id", name, *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(done.stdout.splitlines()[-1])
    up, down = traffic(Path(result["directory"]) / "mailbox", name)
    return {
        "side": side,
        "learning_rate": rate,
        "rounds": rounds,
        "epochs": arguments.epochs,
        "best_round": result["best_round"],
        "auprc": result["validation_auprc"],
        "up_mb": up / 1e6,
        "down_mb": down / 1e6,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def traffic(mailbox: Path, run: str) -> tuple[int, int]:
    """Mean bytes that a partner sent in its message bodies, and bytes of the models that the plans name."""
    messages = mailbox / "messages" / run
    senders = sorted({path.stem for path in messages.glob("r*/masked/*.json")})
    sent = sum(
        json.loads(path.read_bytes())["head"]["body"]["bytes"]
        for sender in senders
        for path in messages.glob(f"r*/*/{sender}.json")
    )
    plans = [
        json.loads(path.read_bytes())["head"]["body"]["sha256"] for path in messages.glob("r*/plan/*.json")
    ]
    models = [json.loads((mailbox / "blobs" / digest).read_bytes())["model_in"] for digest in plans]
    return sent // len(senders), sum(model["bytes"] for model in models if model)


if __name__ == "__main__":
    main()
