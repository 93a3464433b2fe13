"""A search for good settings: trials in the tuning phase, judged by the securely summed validation AUPRC.

Why: a federation that was tuned against single models that were not would flatter itself: every trial also trains each
partner's single arm, and each partner keeps its own best of as many trials. A trial is a run, so a killed search
resumes by its name. Runs: on one machine, in a simulation. Source: Jamieson & Talwalkar 2016 for successive halving.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import acreate_table_artifact

from flows.consortium import consortium
from flows.run_directory import RunDirectory
from flows.search_names import trial_name
from flows.search_space import SearchSpace, Value, planned, schedule
from flows.settings import RunSettings
from tasks.exchange.durable_files import replace_whole
from tasks.tracking.runs import end_run, log_files, log_round, open_run
from tasks.tracking.store import open_store


@dataclass(frozen=True)
class Trial:
    """One trial: its run, what was chosen, and how it ended."""

    run_id: str
    rung: int
    chosen: dict[str, Value]
    rounds: int
    best_round: int
    auprc: float | None

    @property
    def order(self) -> tuple[float, int]:
        """Higher is better; of equals the shorter training."""
        return (-1.0 if self.auprc is None else self.auprc, -self.best_round)

    @property
    def row(self) -> dict[str, Any]:
        """As a row of the table."""
        return {
            "trial": self.run_id,
            "rung": self.rung,
            **self.chosen,
            "rounds": self.rounds,
            "best round": self.best_round,
            "validation AUPRC": self.auprc,
        }


@flow(name="search", flow_run_name="search {name}", persist_result=False)
async def search(name: str, home: str) -> dict[str, Any]:
    """Perform a search that ``open_search`` made; finished trials are found.

    Args:
        name: Of the search.
        home: Directory of runs, models and services.

    Returns:
        The trials, and the file with the best settings.
    """
    place = Path(home)
    asked = json.loads((place / "searches" / name / "search.json").read_bytes())
    space, base = SearchSpace.model_validate(asked["space"]), asked["base"]
    trials: list[Trial] = []
    going_on = space.combinations()
    for rung, (n_trials, rounds) in enumerate(schedule(space, base)):
        done = [
            await _try(place, trial_name(name, rung=rung, number=number), rung, settings, chosen)
            for number, chosen, settings in planned(space, base, going_on[:n_trials], rounds)
        ]
        trials += done
        going_on = [trial.chosen for trial in sorted(done, key=lambda one: one.order, reverse=True)]
    best = max((trial for trial in trials if trial.rung == trials[-1].rung), key=lambda one: one.order)
    return await _conclude(place, name, trials, best)


async def _try(home: Path, run_id: str, rung: int, settings: RunSettings, chosen: dict[str, Value]) -> Trial:
    """Perform one trial, unless its run is finished."""
    run = RunDirectory(home / "runs" / run_id)
    result = run.result or await consortium(run_id=run_id, settings=settings, home=str(home))
    return Trial(
        run_id=run_id,
        rung=rung,
        chosen=chosen,
        rounds=settings.rounds,
        best_round=result["best_round"],
        auprc=result["validation_auprc"],
    )


async def _conclude(home: Path, name: str, trials: list[Trial], best: Trial) -> dict[str, Any]:
    """Write the table and the best settings, and show both in Prefect and MLflow."""
    directory, table = home / "searches" / name, [trial.row for trial in trials]
    settings = RunDirectory(home / "runs" / best.run_id).settings.model_dump(mode="json")
    settings |= {
        "phase": "report",
        "rounds": best.best_round,
        "rounds_from": best.run_id,
        "patience": 0,
        "search": name,
    }
    replace_whole(directory / "trials.json", [json.dumps(table, indent=2).encode()])
    replace_whole(directory / "best.json", [json.dumps(settings, indent=2, sort_keys=True).encode() + b"\n"])
    await acreate_table_artifact(
        table=table,
        key="trials",
        description=f"Search {name}; best: {best.run_id}. All figures are secure sums.",
    )
    tracked = open_run(open_store(home), experiment="search", run_id=name, party="coordinator")
    for number, trial in enumerate(trials):
        measured = {"search/validation_auprc": trial.auprc, "search/best_round": float(trial.best_round)}
        log_round(tracked, measured, round_number=number, time_ms=int(time.time() * 1000))
    log_files(
        tracked,
        {"tables/trials.json": directory / "trials.json", "settings/best.json": directory / "best.json"},
    )
    end_run(tracked, succeeded=True)
    return {"search": name, "best": best.row, "settings": str(directory / "best.json"), "trials": table}
