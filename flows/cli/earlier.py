"""Turning what a user says about earlier runs into settings: a file, a tuning run to follow, a model to start from.

Why: settings hold digests and numbers only; names and registries are looked up once, here. Runs: on the coordinator.
Source: own.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from data_contracts.errors import SettingsError
from flows.earlier_runs import EarlierRuns, kept, resolve_start
from flows.run_directory import RunDirectory
from flows.settings import RunSettings, settings_from
from tasks.featurization.preparation_rules import PROFILES, rules_of
from tasks.studies.phases import Phase

MAX_FILE_BYTES = 2**20
FOLLOWED_BY: dict[Phase, Phase] = {"tune": "report", "report": "final"}
OWN = ("pooled_arm", "search", "warm_start")
"""Settings that a phase may have of its own: a final model may start from an earlier final one, its report may not."""


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the user gave: the file's settings, and over them the options; None where nothing was given.

    Raises:
        SettingsError: If the file is none of settings, or the profile is neither known nor a readable file of rules.
    """
    named = set(RunSettings.model_fields)
    given = {name: getattr(arguments, name, None) for name in named}
    if arguments.settings_file is not None:
        of_file = read_mapping(arguments.settings_file)
        unknown = sorted(set(of_file) - named)
        if unknown:
            raise SettingsError(
                f"{arguments.settings_file.name} has settings that do not exist: {', '.join(map(str, unknown))[:300]}",
                advice="see `motet run --help`; dashes of options are underscores in a file",
            )
        given = {name: of_file.get(name) if value is None else value for name, value in given.items()}
    profile = given["profile"]
    if isinstance(profile, str) and profile not in PROFILES:
        given["profile"] = rules_of(profile)
    return given


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a small YAML or JSON file of names and values.

    Raises:
        SettingsError: If it is not there, too large, or holds no mapping.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        data = path.read_bytes()
        if len(data) > MAX_FILE_BYTES:
            found = None
        elif path.suffix == ".json":  # YAML would read 1e-06 as a word
            found = json.loads(data)
        else:
            found = yaml.safe_load(data)
    except OSError:
        raise SettingsError(f"there is no readable file '{path.name}'") from None
    except ValueError:
        raise SettingsError(f"{path.name} is no JSON") from None
    except yaml.YAMLError as exc:
        place = getattr(exc, "problem_mark", None)
        raise SettingsError(
            f"{path.name} is no YAML" + (f": line {place.line + 1}" if place is not None else "")
        ) from None
    if not isinstance(found, dict):
        raise SettingsError(f"{path.name} holds no names with values, or more than {MAX_FILE_BYTES} bytes")
    return found


def follow(given: dict[str, Any], home: Path, earlier: EarlierRuns) -> dict[str, Any]:
    """Take over what earlier runs found: rounds and settings of ``rounds_from``, the model of ``warm_start``.

    Args:
        given: What the user gave.
        home: Directory of all runs.
        earlier: The coordinator's earlier runs.

    Raises:
        SettingsError: If an earlier run is not there, unfinished, or does not fit.
    """
    if given.get("rounds_from"):
        given = _followed(given, home, earlier)
    start = given.get("warm_start")
    if start:
        fields = RunSettings.model_fields
        hidden, layers = (
            fields[name].default if given.get(name) is None else given[name] for name in ("hidden", "layers")
        )
        if len(start) != 64:  # noqa: PLR2004 - a digest stands for itself
            run_id = _run_of_model(start, home) if start.startswith("models:/") else start
            profile = given.get("profile") or fields["profile"].default
            rules = (rules_of(profile) if isinstance(profile, str) else profile).structures
            phase: Phase = given.get("phase") or "standard"
            found = resolve_start(earlier, run_id, hidden=hidden, layers=layers, phase=phase, rules=rules)
            given = given | {"warm_start": found}
    return given


def _followed(given: dict[str, Any], home: Path, earlier: EarlierRuns) -> dict[str, Any]:
    run_id = given["rounds_from"]
    run = RunDirectory(home / "runs" / run_id)
    record = kept(earlier.site(run_id)) if (run.path / "run.json").exists() else None
    if record is None or record.phase not in FOLLOWED_BY:
        what = "a finished run" if record is None else f"of phase 'tune' or 'report' but '{record.phase}'"
        raise SettingsError(
            f"--rounds-from: '{run_id}' is not {what}",
            advice="see `motet runs`; tune first: motet run --phase tune",
        )
    phase = FOLLOWED_BY[record.phase]
    if given.get("phase") not in (None, phase):
        raise SettingsError(
            f"--rounds-from: '{run_id}' is of phase '{record.phase}', after which comes '{phase}', not '{given['phase']}'"
        )
    changed = {name: given[name] for name in OWN if given.get(name) is not None}
    following = run.settings.model_dump() | changed
    following |= {"phase": phase, "rounds": record.best_round, "rounds_from": run_id, "patience": 0}
    named = {name: value for name, value in given.items() if value is not None and name not in OWN}
    asked = settings_from(following | {"warm_start": ""} | named)
    differ = sorted(
        name for name, value in asked.model_dump().items() if value != following[name] and name not in OWN
    )
    if differ:
        raise SettingsError(
            f"--rounds-from: run '{run_id}' had other settings of {', '.join(differ)}",
            advice="leave them out: they are taken from that run",
        )
    return following


def _run_of_model(uri: str, home: Path) -> str:
    """The run that made a registered model."""
    from tasks.model_registration.bundle import read_card
    from tasks.model_registration.registry import find_version

    version = find_version(home / "mlflow" / "mlflow.db", uri.removeprefix("models:/"))
    return read_card(version.bundle).run_id
