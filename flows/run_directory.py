"""The directory of a run: what was asked, who holds it, where everything lies.

Why: the same command after a crash must find its run again, and two commands must not work on one run.
Runs: on one machine. Source: own; ``flock(2)`` is freed by the kernel when its holder dies.
"""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_contracts.canonical_json import canonical_bytes
from data_contracts.errors import SettingsError
from flows.earlier_runs import EarlierRuns
from flows.settings import RunSettings
from flows.sites import COORDINATOR, Site
from tasks.exchange.durable_files import create_once, replace_whole

VERSION = importlib.metadata.version("motet")
RUN_ID = r"[a-z0-9][a-z0-9-]{2,63}"  # as in a plan


@dataclass(frozen=True)
class RunDirectory:
    """One run's directory.

    Attributes:
        path: ``<home>/runs/<run id>``.
    """

    path: Path

    @property
    def home(self) -> Path:
        """Directory of all runs, models and services."""
        return self.path.parent.parent

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return self.path.name

    @property
    def mailbox(self) -> Path:
        """Directory of the mailbox."""
        return self.path / "mailbox"

    @property
    def coordinator(self) -> Site:
        """The coordinator's site."""
        return Site(COORDINATOR, self.path / COORDINATOR)

    def partner(self, name: str) -> Site:
        """A partner's site."""
        return Site(name, self.path / "partners" / name)

    def earlier(self, partner: str | None = None) -> EarlierRuns:
        """The runs under the same home as a partner sees them, on one machine; without a name, the coordinator."""

        def site(run_id: str) -> Site:
            run = RunDirectory(self.path.with_name(run_id))
            return run.coordinator if partner is None else run.partner(partner)

        return EarlierRuns(site=site, names=lambda: [run.run_id for run in list_runs(self.home)])

    @property
    def settings(self) -> RunSettings:
        """What the run computes, as frozen at its start.

        Raises:
            SettingsError: If another version of motet made the run, or its record is damaged.
        """
        try:
            record = json.loads((self.path / "run.json").read_bytes())
            if record["motet"] == VERSION:
                return RunSettings.model_validate(record["settings"])
        except (ValueError, KeyError, TypeError):
            pass
        raise SettingsError(
            f"run '{self.run_id}' was made by another version of motet, or its run.json is damaged",
            advice="leave out --run-id to start a new run; the old one stays where it is",
        )

    @property
    def result(self) -> dict[str, Any] | None:
        """What the run left, or None while it is unfinished."""
        try:
            return dict(json.loads((self.path / "result.json").read_bytes()))
        except FileNotFoundError:
            return None

    def write_result(self, value: dict[str, Any]) -> None:
        """Mark the run as finished."""
        replace_whole(
            self.path / "result.json", [json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"]
        )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            SettingsError: If another process holds it.
        """
        with (self.path / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self.held_already() from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def held_already(self) -> SettingsError:
        """The refusal of a second worker."""
        holder = (self.path / "lock").read_text().strip()
        return SettingsError(
            f"run '{self.run_id}' is already being worked on by process {holder or '?'}",
            advice="wait for it, or start another run with --fresh",
        )

    @property
    def is_held(self) -> bool:
        """Whether a living process works on it; asking disturbs nobody."""
        try:
            with (self.path / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False


def create_run(
    home: Path, *, settings: RunSettings, now: datetime, run_id: str | None = None
) -> RunDirectory:
    """Make the directory of a new run.

    Raises:
        SettingsError: If the name is none, or a run of that name exists with other settings.
    """
    if run_id is not None and not re.fullmatch(RUN_ID, run_id):
        raise SettingsError(
            f"--run-id must be 3 to 64 lower-case letters, digits and hyphens, got {len(run_id)} characters that are not",
            advice="for example: --run-id chembl-seed-1",
        )
    name = run_id or f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    run = RunDirectory(home / "runs" / name)
    content = {
        "run_id": name,
        "motet": VERSION,
        "created": now.isoformat(timespec="seconds"),
        "settings": settings.model_dump(mode="json"),
    }
    if not create_once(run.path / "run.json", [canonical_bytes(content)]) and run.settings != settings:
        raise SettingsError(
            f"run '{name}' exists with other settings",
            advice="leave out --run-id to start a new run, or repeat the settings of `motet runs`",
        )
    return run


def list_runs(home: Path) -> list[RunDirectory]:
    """All runs under a home, oldest first."""
    return [RunDirectory(path.parent) for path in sorted((home / "runs").glob("*/run.json"))]


def find_unfinished(home: Path, settings: RunSettings) -> RunDirectory | None:
    """The newest run with these settings that stopped before its end and that nobody works on."""
    for run in reversed(list_runs(home)):
        with contextlib.suppress(SettingsError):  # of another version: nobody resumes it
            if run.result is None and run.settings == settings and not run.is_held:
                return run
    return None


def open_or_create_run(
    home: str | Path, *, settings: RunSettings, run_id: str | None = None, fresh: bool = False
) -> RunDirectory:
    """Find the run to perform: the named one, an unfinished one of the same settings, or a new one.

    Args:
        home: Directory of all runs.
        settings: What to compute.
        run_id: Name of the run; None leaves the choice.
        fresh: Make a new run even if an unfinished one would fit.

    Raises:
        SettingsError: If a run of that name exists with other settings.
    """
    place = Path(home).resolve()
    unfinished = None if run_id or fresh else find_unfinished(place, settings)
    return unfinished or create_run(place, settings=settings, now=datetime.now(UTC), run_id=run_id)
