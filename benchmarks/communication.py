"""Bytes per partner and validation AUPRC: one secure sum per minibatch, as MELLODDY trained, against the default.

Why: communication is what limits a federation of large trunks; both sides make as many passes over the data. Runs: on one
machine; ``python benchmarks/communication.py --epochs 6 --hidden 64``. Source: own. What a partner sent is counted from
its signed messages; what it fetched, from the plans.
"""

import argparse
import base64
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from flows.federated_training import training_parameters
from flows.settings import settings_from
from tasks.aggregation.server_optimizers import ServerState, adam_step, server_step
from tasks.local_training.jobs import LocalSteps, MinibatchGradient, Score, ScoreResult
from tasks.local_training.parameters import unflatten, write_parameters
from tasks.local_training.shared_model import initial_shared, trunk_length
from tasks.local_training.training import train
from tasks.studies.minibatch_training import MinibatchParameters
from tasks.studies.qsar_training import mean_step
from tasks.studies.training_parameters import TrainingParameters

BATCHES_PER_EPOCH = 50
SIDES = ("fedavg", "fedsgd")

Vector = np.ndarray[Any, np.dtype[np.float32]]


def main() -> None:
    """Run both sides and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=Path("motet-home"))
    parser.add_argument("--data", help="directory of an imported dataset (default: embedded)")
    parser.add_argument("--epochs", type=int, default=24, help="passes over the data on both sides; even")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--learning-rate", type=float, nargs="+", default=[None], help="the best one of a side counts"
    )
    parser.add_argument("--batch-size", type=int, default=128, help="of averaging")
    parser.add_argument("--local-epochs", type=int, default=1, help="of averaging, in a round")
    parser.add_argument(
        "--plain",
        type=Path,
        metavar="RUN_DIRECTORY",
        help="sum in clear, on the prepared data of this finished run",
    )
    parser.add_argument("--side", choices=SIDES, nargs="+", default=SIDES)
    arguments = parser.parse_args()
    rows = []
    for side in arguments.side:
        for rate in arguments.learning_rate:
            rows.append((plain if arguments.plain else measured)(arguments, side, rate))
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
    rounds = (
        arguments.epochs // arguments.local_epochs
        if side == "fedavg"
        else arguments.epochs * BATCHES_PER_EPOCH
    )
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
        options += ["--local-epochs", str(arguments.local_epochs), "--batch-size", str(arguments.batch_size)]
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


def plain(arguments: argparse.Namespace, side: str, rate: float | None) -> dict[str, Any]:
    """Run one side in this process with plain sums: what the secured ones are but for the quantizer (tests/studies)."""
    prepared = sorted(arguments.plain.glob("partners/*/prepared"))
    per_epoch = BATCHES_PER_EPOCH if side == "fedsgd" else 1 / arguments.local_epochs
    given = {
        "algorithm": side,
        "hidden": arguments.hidden,
        "phase": "tune",
        "batch_size": arguments.batch_size,
        "local_epochs": arguments.local_epochs,
    }
    given |= {"rounds": round(arguments.epochs * per_epoch), "learning_rate": rate}
    rows = [np.load(path.with_name("places.npy")) for path in prepared]
    trainers = np.array(
        [sum(row in found for found in rows) for row in range(1 + np.concatenate(rows).max())]
    )
    parameters = training_parameters(settings_from(given)).model_copy(update={"n_catalogue": len(trainers)})
    vector = initial_shared(arguments.hidden, n_catalogue=len(trainers), seed=arguments.seed)
    state, best, started = None, (0.0, 0), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        places, trunk = {data: Path(scratch) / data.parent.name for data in prepared}, Path(scratch) / "trunk"
        for number in range(1, parameters.rounds + 1):
            write_parameters(trunk, unflatten(vector, parameters.layout))
            sent = [
                _contribution(parameters, number, seed, data, trunk=trunk, place=places[data])
                for seed, data in enumerate(prepared)
            ]
            vector, state = _stepped(parameters, number, vector, state, sent=sent, trainers=trainers)
            if parameters.measures(number + 1):
                write_parameters(trunk, unflatten(vector, parameters.layout))
                value = float(np.mean([_auprc(data, trunk, place) for data, place in places.items()]))
                print(f"{side} round {number}: validation AUPRC {value:.4f}", flush=True)
                best = max(best, (value, number))
    return {
        "side": side,
        "learning_rate": rate,
        "rounds": parameters.rounds,
        "epochs": arguments.epochs,
        "best_round": best[1],
        "auprc": best[0],
        "up_mb": parameters.rounds * len(vector) * (4 if side == "fedsgd" else 2) / 1e6,
        "down_mb": parameters.rounds * len(vector) * 4 / 1e6,
        "cpu_seconds": time.process_time() - started,
    }


def _stepped(
    parameters: TrainingParameters,
    number: int,
    vector: Vector,
    state: ServerState | None,
    *,
    sent: list[Vector],
    trainers: np.ndarray[Any, np.dtype[np.int64]],
) -> tuple[Vector, ServerState | None]:
    """The server's step on the plain sum."""
    total = np.sum(sent, axis=0, dtype=np.float64)
    if not isinstance(parameters, MinibatchParameters):
        start = trunk_length(parameters.hidden)
        mean = mean_step(total, trainers, n_survivors=len(sent), start=start, hidden=parameters.hidden)
        return server_step(vector, mean, server_learning_rate=1.0)
    settings = parameters.settings_in(number)
    rate, decay = settings.learning_rate, settings.weight_decay
    return adam_step(vector, total, learning_rate=rate, weight_decay=decay, step=number, state=state)


def _contribution(
    parameters: TrainingParameters, number: int, seed: int, data: Path, *, trunk: Path, place: Path
) -> Vector:
    """One partner's update or gradient; its head stays in its place."""
    head, optimizer = place / "head.safetensors", place / "optimizer.safetensors"
    common: dict[str, Any] = {
        "places": data.with_name("places.npy"),
        "dataset": data,
        "trunk": trunk,
        "head": head if number > 1 else None,
        "optimizer": optimizer if number > 1 else None,
        "head_seed": seed,
    }
    common |= {"seed": 1000 * number + seed, "settings": parameters.settings_in(number), "output": place}
    if not isinstance(parameters, MinibatchParameters):
        train(LocalSteps(epochs=parameters.local_epochs, keep_optimizer=True, **common))
        return np.load(place / "update.npy")
    epoch, batch = parameters.place_of(number)
    train(
        MinibatchGradient(
            order_seed=100_000 + 100 * epoch + seed,
            batch=batch,
            loss_normalizer=parameters.loss_normalizer,
            **common,
        )
    )
    return np.load(place / "gradient.npy")


def _auprc(data: Path, trunk: Path, place: Path) -> float:
    scored = train(
        Score(dataset=data, trunk=trunk, head=place / "head.safetensors", folds=(4,), output=place)
    )
    assert isinstance(scored, ScoreResult)
    return scored.means.auprc or 0.0


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
        base64.b64decode(json.loads(path.read_bytes())["inline"]) for path in messages.glob("r*/plan/*.json")
    ]
    models = [json.loads(plan)["model_in"] for plan in plans]
    return sent // len(senders), sum(model["bytes"] for model in models if model)


if __name__ == "__main__":
    main()
