"""What a search tries: choices by setting, dealt out as a grid or by successive halving.

Why: everything that can be wrong with a search is said before its first trial, without Prefect. Runs: on the coordinator.
Source: own; Jamieson & Talwalkar 2016 for successive halving.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_contracts.canonical_json import canonical_bytes
from data_contracts.errors import SettingsError
from flows.settings import RunSettings, settings_from
from tasks.exchange.durable_files import create_once

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


def open_search(home: Path, name: str, *, space: SearchSpace, base: dict[str, Any]) -> Path:
    """Make a search's directory, or find it again; every trial's settings are checked before the first one runs.

    Raises:
        SettingsError: If a trial could not run, or a search of that name exists with another space.
    """
    for chosen in space.combinations():
        settings_from(trial_settings(space, base, chosen))
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


def trial_settings(space: SearchSpace, base: dict[str, Any], chosen: dict[str, Value]) -> dict[str, Any]:
    """Settings of one trial, as values."""
    return {**space.settings, **base, **chosen, "phase": "tune", "pooled_arm": False}


def schedule(space: SearchSpace, base: dict[str, Any]) -> list[tuple[int, int | None]]:
    """How many trials each rung has and how many rounds they get; None leaves the rounds to the settings."""
    combinations = space.combinations()
    if space.method == "grid":
        return [(len(combinations), None)]
    rounds = settings_from(trial_settings(space, base, combinations[0])).rounds
    return list(rungs(len(combinations), rounds, eta=space.eta))


def planned(
    space: SearchSpace, base: dict[str, Any], chosen: list[dict[str, Value]], rounds: int | None
) -> Iterator[tuple[int, dict[str, Value], RunSettings]]:
    """The trials of a rung: number, what was chosen, and all settings."""
    for number, one in enumerate(chosen):
        dealt = {} if rounds is None else {"rounds": rounds}
        yield number, one, settings_from(trial_settings(space, base, one) | dealt)
