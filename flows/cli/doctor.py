"""``motet doctor``: what is wrong with this site, and what to do about it.

Why: a person setting up a site sees every fault at once, before a run meets the first. Runs: on every site.
Source: own.
"""

import argparse
import importlib.metadata
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, NamedTuple

from data_contracts.errors import MotetError, SettingsError
from flows import processes
from flows.cli.tables import print_table
from flows.services import MLFLOW_PORT, PREFECT_PORT, status
from flows.site_directory import SiteDirectory, open_site

MAX_SKEW_SECONDS = 60.0
REACH_SECONDS = 5.0
LEAST_FREE_BYTES = 10 * 2**30
STOP_SHIP = {
    "prefect": "3.8",
    "fastapi": None,
    "mlflow": "3.",
    "torch": "2.13",
    "rdkit": "2026.",
    "cryptography": "50.",
}
FASTAPI_WITHOUT_PREFECT = 155  # 0.155 and later start no flow of Prefect 3.8; pip does not notice


class Finding(NamedTuple):
    """One thing that was looked at; ``advice`` is empty where nothing is to be done."""

    subject: str
    found: str
    advice: str


def doctor(arguments: argparse.Namespace) -> dict[str, Any]:
    """Look at everything.

    Raises:
        SettingsError: If something is to be done; all findings are shown before.
    """
    site = open_site(arguments.home)
    findings = [finding for look in LOOKS for finding in _looked(look, site)]
    print_table(
        ("subject", "found", "do"), [[each.subject, each.found, each.advice or "-"] for each in findings]
    )
    wrong = [each for each in findings if each.advice]
    if wrong:
        raise SettingsError(
            f"{len(wrong)} of {len(findings)} findings need you: {', '.join(each.subject for each in wrong)}",
            advice=wrong[0].advice,
        )
    return {"findings": [each._asdict() for each in findings]}


def _looked(look: Callable[[SiteDirectory], Iterator[Finding]], site: SiteDirectory) -> list[Finding]:
    try:
        return list(look(site))
    except MotetError as exc:
        return [Finding(look.__name__.strip("_"), str(exc), exc.advice)]


def _versions(_site: SiteDirectory) -> Iterator[Finding]:
    for name, expected in STOP_SHIP.items():
        version = importlib.metadata.version(name)
        minor = int(version.split(".")[1])
        good = minor < FASTAPI_WITHOUT_PREFECT if expected is None else version.startswith(expected)
        yield Finding(f"version of {name}", version, "" if good else "install as constraints.txt pins it")


def _keys(site: SiteDirectory) -> Iterator[Finding]:
    for path in (site.keys, *sorted(site.keys.iterdir())):
        mode = path.stat().st_mode & 0o777
        what = path.relative_to(site.path)
        yield Finding(str(what), f"mode {mode:o}", f"chmod go= {path}" if mode & 0o077 else "")


def _policy(site: SiteDirectory) -> Iterator[Finding]:
    if site.settings.role != "partner":
        return
    policy = site.policy
    expired = datetime.now(UTC) >= policy.expires
    yield Finding(
        "policy", f"expires {policy.expires:%Y-%m-%d %H:%M %Z}", "set a later `expires`" if expired else ""
    )
    granted = ", ".join(policy.data_sets) or "no data set"
    yield Finding("granted", granted, "" if policy.data_sets else "name the agreed data sets in policy.json")
    assert site.settings.files is not None  # noqa: S101 - a partner has them
    for name, path in site.settings.files:
        if path is None:  # a partner need not have a catalogue
            continue
        found = path.is_file()
        yield Finding(name, "there" if found else "not there", "" if found else "correct site.json")


def _ports(site: SiteDirectory) -> Iterator[Finding]:
    running = {service.name for service in status(site.path) if service.pid is not None}
    for name, port in (("prefect", PREFECT_PORT), ("mlflow", MLFLOW_PORT)):
        if name in running:
            yield Finding(f"port of {name}", "running", "")
            continue
        try:
            processes.require_free(port, what=name, option=f"--{name}-port")
        except SettingsError:
            yield Finding(f"port of {name}", f"{port} taken", f"motet up --{name}-port ANOTHER")
        else:
            yield Finding(f"port of {name}", f"{port} free", "")


def _disk(site: SiteDirectory) -> Iterator[Finding]:
    free = shutil.disk_usage(site.path).free
    advice = "" if free >= LEAST_FREE_BYTES else "make room: a run needs some gigabytes"
    yield Finding("disk", f"{free / 2**30:.0f} GiB free", advice)


def _mailbox(site: SiteDirectory) -> Iterator[Finding]:
    roster = site.roster
    yield Finding("roster", f"{len(roster.roster.partners)} partners, digest {roster.digest[:16]}…", "")
    if site.settings.role == "mailbox":
        return
    with closing(site.connect(outage_seconds=REACH_SECONDS)) as connection:
        shown, now = connection.clock(), time.time()
    yield Finding("mailbox", f"answers at {connection.address}", "")
    skew = abs(shown - now)
    advice = "" if skew <= MAX_SKEW_SECONDS else "set both clocks by NTP: policies expire by the clock"
    yield Finding("clock", f"{skew:.0f} s from the mailbox's", advice)


LOOKS = (_versions, _keys, _policy, _ports, _disk, _mailbox)
