"""What a secured round and a whole small job cost on one machine, beside Flower's SecAgg+ simulation in the same run.

Why: for small models the machinery, not the learning, is what people wait for. Training costs nothing on either side.
Runs: by hand, ``python benchmarks/rounds.py --flower DIR/bin/python`` (``python3.11 -m venv DIR &&
DIR/bin/pip install 'flwr[simulation]==1.42.0'``; Flower cannot be installed beside motet). Wall seconds, because
both sides wait for each other inside; the ratio counts, not the figure. Source: own; ``flower_rounds.py``.
"""

import argparse
import asyncio
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FLOWER = Path(__file__).with_name("flower_rounds.py")
GOAL_ROUND = 1 / 3
GOAL_OVERHEAD_SECONDS = 0.5


def ours(asked: dict[str, Any]) -> dict[str, Any]:
    """A job of trivial rounds through the real tasks, messages and masks, Prefect started from cold."""
    from flows.services import prefect_server

    def load(environment: dict[str, str]) -> None:  # while the server starts, as `motet run` does
        os.environ.update(environment)
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
        importlib.import_module("tasks.rounds.steps")

    place = Path(asked["place"])
    with prefect_server(place / "home", meanwhile=load):
        return asyncio.run(_job(place, asked))


async def _job(place: Path, asked: dict[str, Any]) -> dict[str, Any]:
    from prefect import flow

    from tasks.rounds.coordinator import publish_plan
    from tasks.rounds.steps import open_sum, unwalked

    consortium = _consortium(place, asked)
    board, study = consortium.boards["coordinator"], consortium.study

    @flow(name="rounds", persist_result=False)
    async def job() -> list[float]:
        ended = []
        for number in range(asked["rounds"]):
            plan = publish_plan(board, consortium.draft(number))
            async with asyncio.TaskGroup() as everybody:
                leading = everybody.create_task(
                    open_sum(unwalked(plan), board=unwalked(board), study=unwalked(study), inputs=None)
                )
                for name in consortium.names:
                    everybody.create_task(consortium.partner(name, plan))
            assert abs(leading.result()["mean"] - 0.001) < 1e-6
            ended.append(time.monotonic())
        return ended

    began = time.process_time()
    ended = await job()
    return {"ended": ended, "cpu_seconds": time.process_time() - began}


@dataclass(frozen=True)
class _Consortium:
    """Everybody's board, and a study whose training costs nothing."""

    place: Path
    boards: dict[str, Any]
    asked: dict[str, Any]
    lane: Any
    study: Any

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in self.boards if name != "coordinator")

    def draft(self, number: int) -> Any:
        from data_contracts.plan import RoundPlan

        return RoundPlan(
            run_id="rounds",
            round=number,
            study=self.study.name,
            cohort=self.names,
            threshold=self.asked["threshold"],
            lanes=(self.lane,),
            parameters={"round": number},
        )

    async def partner(self, name: str, plan: Any) -> None:
        from tasks.rounds.attempts import AttemptVault
        from tasks.rounds.partner import Contributor
        from tasks.rounds.patience import Patience
        from tasks.rounds.steps import secure_aggregation, unwalked

        directory = self.place / name / f"r{plan.round}"
        await self.study.compute(plan, None, directory)
        contributor = Contributor(
            board=self.boards[name],
            vault=AttemptVault(self.place / name / "attempts"),
            rounding_key=b"\1" * 32,
            patience=Patience(600.0),
            workers=1,
        )
        await secure_aggregation(name, unwalked(plan), directory, contributor=unwalked(contributor))
        (directory / "update.npy").unlink()  # as a partner's flow leaves a round


def _consortium(place: Path, asked: dict[str, Any]) -> _Consortium:
    from data_contracts.plan import Lane
    from tasks.exchange.board import Board
    from tasks.exchange.identity import Identity, Roster
    from tasks.exchange.mailbox import DirectoryMailbox
    from tasks.rounds.study import Study, write_contribution

    names = ("coordinator", *(f"partner-{i}" for i in range(asked["partners"])))
    identities = {name: Identity(name, os.urandom(32)) for name in names}
    roster = Roster(
        coordinator="coordinator",
        public_keys={name: one.public_key.hex() for name, one in identities.items()},
    )
    mailbox = DirectoryMailbox(place / "mailbox")
    boards = {
        name: Board(mailbox=mailbox, identity=one, roster=roster, run_id="rounds")
        for name, one in identities.items()
    }
    update = np.full(asked["parameters"], 0.001, dtype=np.float32)

    def mean(_plan: Any, total: Any, _inputs: Any) -> dict[str, Any]:
        return {"mean": float(np.mean(total.values["update"])) / len(total.survivors)}

    async def compute(_plan: Any, _inputs: Any, directory: Path) -> None:
        await asyncio.to_thread(write_contribution, directory, {"update": update})

    study: Study[Any, Any, dict[str, Any]] = Study(
        name="trivial", accept=lambda _: None, compute=compute, combine=mean
    )
    lane = Lane(name="update", length=len(update), ring_bits=32, value_bits=22, clip=1.0)
    return _Consortium(place, boards, asked, lane, study)


def measured(command: list[str], asked: dict[str, Any]) -> dict[str, float]:
    """Run a side as its own process, from cold to its end."""
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    began = time.monotonic()
    done = subprocess.run(
        [*command, json.dumps(asked)], check=True, capture_output=True, text=True, env=environment
    )
    found = json.loads(done.stdout.splitlines()[-1])
    rounds = np.diff(found["ended"])
    return {"job_s": time.monotonic() - began, "round_s": statistics.median(rounds), **found}


def main() -> None:
    """Print both sides, the ratios and the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flower", help="python of the environment that has flwr; without it only our side")
    parser.add_argument("--partners", type=int, default=5)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(ours(json.loads(given.worker))))
        return
    asked = {"partners": given.partners, "parameters": given.parameters, "rounds": given.rounds}
    asked["threshold"] = 2 * given.partners // 3 + 1
    sides = {"motet": [sys.executable, str(Path(__file__).resolve()), "--worker"]}
    if given.flower:
        sides["flower"] = [given.flower, str(FLOWER)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    with (
        tempfile.TemporaryDirectory() as places
    ):  # removed last: ext4 looks for room slowly where much was just removed
        for repeat in range(given.repeats):
            for name, command in sides.items():
                found[name].append(measured(command, asked | {"place": f"{places}/{name}-{repeat}"}))
    report = {
        name: {what: round(statistics.median(run[what] for run in runs), 3) for what in ("round_s", "job_s")}
        for name, runs in found.items()
    }
    for name, figures in report.items():
        print(f"{name:<8} a round {figures['round_s']:.3f} s, whole job {figures['job_s']:.1f} s")
    cpu = statistics.median(run["cpu_seconds"] for run in found["motet"])
    each = cpu / given.rounds / given.partners
    print(f"motet    CPU a round and partner, masking and coordinator included: {each:.3f} s "
          f"(goal: {GOAL_OVERHEAD_SECONDS} s without masking)")  # fmt: skip
    if "flower" in report:
        ratio = report["motet"]["round_s"] / report["flower"]["round_s"]
        job = report["motet"]["job_s"] / report["flower"]["job_s"]
        print(
            f"round {ratio:.2f} of Flower's (goal: at most {GOAL_ROUND:.2f}); job {job:.2f} (goal: below 1)"
        )


if __name__ == "__main__":
    main()
