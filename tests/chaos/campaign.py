"""Many seeded runs with mishaps: ``python -m tests.chaos.campaign --seeds 40 --table docs/chaos.md``.

Every run must end either in the model of an undisturbed run with the same committed cohorts, bit for bit, or in a stop
that names its reason and can be resumed.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.simulation.assays import AssaySettings
from tasks.simulation.embedded import EmbeddedSettings, build_embedded_dataset
from tests.chaos.disturbances import disturb, draw, end
from tests.chaos.parties import PARTIES, PARTNERS, Parties
from tests.chaos.reference import committed_rounds, differences, undisturbed_outcomes

ROUNDS = 4
TRAINING = (
    *("--hidden", 16, "--rounds", ROUNDS, "--local-epochs", 1, "--batch-size", 32),
    *("--round-deadline-seconds", 40),
)
ALL_ROUNDS = ROUNDS + 3  # the catalogue before, two evaluations after
PATIENCE_SECONDS = 900.0
AFTER_THE_COORDINATOR_SECONDS = 30.0
NAMED_STOPS = {6: "ProtocolError", 7: "TooFewPartners"}


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        seed: Of the disturbances.
        disturbances: What happened.
        restarts: How often a party was started again.
        cohorts: How many partners each finished round counted.
        outcome: ``equal``, ``stopped``, or what went wrong.
        seconds: Wall time.
    """

    seed: int
    disturbances: tuple[str, ...]
    restarts: int
    cohorts: tuple[int, ...]
    outcome: str
    seconds: float

    @property
    def is_sound(self) -> bool:
        return self.outcome == "equal" or self.outcome.startswith("stopped by name")


@contextmanager
def consortium(directory: Path) -> Iterator[Parties]:
    settings = EmbeddedSettings(
        max_structures=900, assays=AssaySettings(n_assays=5, n_families=2, median_size=700)
    )
    dataset = build_embedded_dataset(directory / "data", partners=len(PARTNERS), seed=7, settings=settings)
    parties = Parties(directory / "sites", dataset)
    try:
        yield parties
    finally:
        parties.close()


def run_with_mishaps(parties: Parties, seed: int, scratch: Path) -> Ending:
    """One run, from the first process to the verdict."""
    run_id, began = f"chaos-{seed:04d}", time.monotonic()
    disturbances = draw(seed, n_rounds=ALL_ROUNDS, missing=parties.missing_kinds)
    listed = [*parties.dataset.catalogue, f"NONE-{seed}>=1"]  # another question in every run
    parties.begin_run(run_id, seed=seed, training=TRAINING, listed=listed)
    finished, deadline = False, began + PATIENCE_SECONDS
    while not finished and time.monotonic() < deadline:
        disturb(parties, run_id, disturbances)
        finished = parties.supervise()
        if parties.gave_up("coordinator"):  # partners would wait for it for days, as they should
            deadline = min(deadline, time.monotonic() + AFTER_THE_COORDINATOR_SECONDS)
        time.sleep(0.05)
    for one in disturbances:
        end(one)
    parties.end_run()
    outcome = verdict(parties, run_id, scratch / run_id, finished=finished)
    rounds = committed_rounds(parties, run_id)
    return Ending(
        seed=seed,
        disturbances=tuple(str(one) for one in disturbances if one.struck is not None),
        restarts=sum(len([code for code in parties.running[name].codes if code]) for name in PARTIES),
        cohorts=tuple(len(announced["survivors"]) for _, announced, _ in rounds),
        outcome=outcome,
        seconds=time.monotonic() - began,
    )


def verdict(parties: Parties, run_id: str, scratch: Path, *, finished: bool) -> str:
    """Compare every announced outcome, and every party's model, with the undisturbed ones."""
    try:
        wrong = differences(undisturbed_outcomes(parties, run_id, scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if wrong:
        return f"WRONG: {'; '.join(wrong)}"
    led = parties.result("coordinator", run_id)
    stayed = [name for name in PARTNERS if not parties.running[name].gone]
    if led is None:
        code = parties.running["coordinator"].codes[-1:] or [0]
        named = (finished or parties.gave_up("coordinator")) and code[0] in NAMED_STOPS
        return f"stopped by name: {NAMED_STOPS[code[0]]}" if named else f"LOST: coordinator {code}"
    missing = [name for name in stayed if parties.result(name, run_id) is None]
    stopped = [
        name for name in missing if parties.running[name].codes[-1:] and parties.running[name].codes[-1] > 1
    ]
    if missing:
        return f"LOST: {missing} {[parties.running[name].codes for name in stopped]}"
    models = {parties.result(name, run_id)["trunk_sha256"] for name in ("coordinator", *stayed)}
    return "equal" if len(models) == 1 else "WRONG: parties have different models"


def table(endings: list[Ending]) -> str:
    """A Markdown table of the campaign."""
    lines = [
        "| seed | what happened | starts again | partners counted per round | end | s |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.seed} | {'; '.join(one.disturbances)} | {one.restarts} | {' '.join(map(str, one.cohorts))} | "
        f"{one.outcome} | {one.seconds:.0f} |"
        for one in endings
    ]
    return "\n".join(lines)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the campaign; the exit code says whether every run ended soundly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=40, help="number of runs (default: 40)")
    parser.add_argument("--first", type=int, default=0, help="first seed (default: 0)")
    parser.add_argument("--table", type=Path, help="write the table here")
    parser.add_argument("--keep", type=Path, help="work here and keep everything")
    arguments = parser.parse_args()
    endings: list[Ending] = []
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        with consortium(directory) as parties:
            for seed in range(arguments.first, arguments.first + arguments.seeds):
                endings.append(run_with_mishaps(parties, seed, directory / "undisturbed"))
                say(json.dumps(endings[-1].__dict__))
                if not endings[-1].is_sound:
                    for party in PARTIES:
                        say(f"--- {party}\n{parties.said(party)[-1500:]}")
    if arguments.table:
        arguments.table.write_text(table(endings) + "\n")
    say(table(endings))
    return 0 if all(one.is_sound for one in endings) else 1


if __name__ == "__main__":
    raise SystemExit(main())
