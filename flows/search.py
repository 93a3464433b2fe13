"""A search for good settings: trials in the tuning phase, judged by the securely summed validation AUPRC.

Why: a federation that was tuned against single models that were not would flatter itself: every trial also trains each
partner's single arm, and each partner keeps its own best of as many trials. A trial is a run, so a killed search
resumes by its name. Runs: on one machine, in a simulation. Source: Jamieson & Talwalkar 2016 for successive halving.
"""

import itertools
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from prefect import flow, tags
from prefect.artifacts import acreate_table_artifact
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_contracts.canonical_json import canonical_bytes
from data_contracts.errors import SettingsError
from flows.consortium import consortium
from flows.run_directory import RunDirectory
from flows.search_names import trial_name
from flows.settings import RunSettings, settings_from
from tasks.exchange.durable_files import create_once, replace_whole
from tasks.tracking.runs import end_run, log_files, log_round, open_run
from tasks.tracking.store import open_store

MAX_TRIALS = 512
NOT_CHOSEN = frozenset(
    {
        "data",
        "partners",
        "seed",
        "phase",
        "rounds_from",
        "search",
        "warm_start",
        "pooled_arm",
        "permuted_labels",
    }
)
"""Settings that say what is trained on; trials that differ in them could not be compared."""

Value = bool | int | float | str


class SearchSpace(BaseModel):
    """What a search tries; the content of its YAML file.

    Attributes:
        method: ``grid`` gives every trial all rounds; ``halving`` gives few rounds to all and more to the better ones.
        choices: Values by setting; a trial has one of each.
        settings: Settings that stay.
        eta: Of how many trials one goes on to the next rung of a halving.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["grid", "halving"] = "grid"
    choices: dict[str, tuple[Value, ...]] = Field(min_length=1, max_length=16)
    settings: dict[str, Value] = Field(default_factory=dict)
    eta: int = Field(default=3, ge=2, le=10)

    @model_validator(mode="after")
    def _can_be_tried(self) -> Self:
        names = {*self.choices, *self.settings}
        unknown = sorted(names - (set(RunSettings.model_fields) - NOT_CHOSEN))
        if unknown:
            raise ValueError(f"not to be chosen by a search: {', '.join(unknown)[:300]}")
        if not all(self.choices.values()) or math.prod(map(len, self.choices.values())) > MAX_TRIALS:
            raise ValueError(f"every choice needs values, and there may be at most {MAX_TRIALS} trials")
        if self.method == "halving" and "rounds" in self.choices:
            raise ValueError("halving deals out the rounds itself; put rounds into settings")
        return self

    def combinations(self) -> list[dict[str, Value]]:
        """Every combination of the choices, in the order of the file."""
        return [
            dict(zip(self.choices, values, strict=True))
            for values in itertools.product(*self.choices.values())
        ]


def parse_space(values: dict[str, Any], *, file: str) -> SearchSpace:
    """Build a search space from a file's content.

    Raises:
        SettingsError: If something in it cannot work; says what.
    """
    try:
        return SearchSpace.model_validate(values)
    except ValidationError as exc:
        wrong = "; ".join(
            f"{'.'.join(map(str, error['loc'])) or 'it'}: {error['msg'].removeprefix('Value error, ')}"
            for error in exc.errors(include_url=False, include_input=False)
        )
        raise SettingsError(f"{file} is no search space: {wrong[:500]}") from None


def rungs(n_trials: int, rounds: int, *, eta: int) -> list[tuple[int, int]]:
    """Deal out a halving: how many trials each rung has, and how many rounds each of them gets.

    The last rung has all rounds; the one before it has eta times as many trials of an eta-th of the rounds.
    """
    n_rungs = 1
    while eta**n_rungs <= n_trials:
        n_rungs += 1
    return [
        (max(1, math.ceil(n_trials / eta**rung)), max(1, round(rounds / eta ** (n_rungs - 1 - rung))))
        for rung in range(n_rungs)
    ]


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


def open_search(home: Path, name: str, *, space: SearchSpace, base: dict[str, Any]) -> Path:
    """Make a search's directory, or find it again; every trial's settings are checked before the first one runs.

    Raises:
        SettingsError: If a trial could not run, or a search of that name exists with another space.
    """
    for chosen in space.combinations():
        settings_from(_settings(space, base, chosen))
    directory = home / "searches" / name
    content = canonical_bytes({"space": space.model_dump(mode="json"), "base": base})
    if (
        not create_once(directory / "search.json", [content])
        and (directory / "search.json").read_bytes() != content
    ):
        raise SettingsError(
            f"search '{name}' exists with another space or data set", advice="choose another --name"
        )
    return directory


def _settings(space: SearchSpace, base: dict[str, Any], chosen: dict[str, Value]) -> dict[str, Any]:
    return {**space.settings, **base, **chosen, "phase": "tune", "pooled_arm": False}


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
    with tags(f"search:{name}"):
        going_on = space.combinations()
        for rung, (n_trials, rounds) in enumerate(_schedule(space, base)):
            done = [
                await _try(place, trial_name(name, rung=rung, number=number), rung, settings, chosen)
                for number, chosen, settings in _planned(space, base, going_on[:n_trials], rounds)
            ]
            trials += done
            going_on = [trial.chosen for trial in sorted(done, key=lambda one: one.order, reverse=True)]
    best = max((trial for trial in trials if trial.rung == trials[-1].rung), key=lambda one: one.order)
    return await _conclude(place, name, trials, best)


def _schedule(space: SearchSpace, base: dict[str, Any]) -> list[tuple[int, int | None]]:
    """How many trials each rung has and how many rounds they get; None leaves the rounds to the settings."""
    combinations = space.combinations()
    if space.method == "grid":
        return [(len(combinations), None)]
    rounds = settings_from(_settings(space, base, combinations[0])).rounds
    return list(rungs(len(combinations), rounds, eta=space.eta))


def _planned(
    space: SearchSpace, base: dict[str, Any], chosen: list[dict[str, Value]], rounds: int | None
) -> Iterator[tuple[int, dict[str, Value], RunSettings]]:
    for number, one in enumerate(chosen):
        dealt = {} if rounds is None else {"rounds": rounds}
        yield number, one, settings_from(_settings(space, base, one) | dealt)


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
