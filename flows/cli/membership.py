"""``motet roster make --after``, ``roster leave``, ``roster show``, ``keys rotate``: who takes part, from one roster to the next.

Why: companies join and leave, and keys are replaced before they are lost. Runs: on every site. Source: own.
"""

import argparse
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from data_contracts.errors import SettingsError
from flows.enrolment import leave_consortium, make_successor, rotate_keys
from flows.site_directory import SiteDirectory, open_site
from tasks.exchange.enrolment import SignedRoster, parse
from tasks.exchange.succession import Changes

GRACE = timedelta(days=7)


def make_after(arguments: argparse.Namespace, site: SiteDirectory) -> tuple[SignedRoster, Changes]:
    """Make the roster after the named one.

    Raises:
        SettingsError: If that is not the pinned one.
    """
    named = parse(SignedRoster, arguments.after.read_bytes(), what="the roster of --after")
    if named.digest != site.roster.digest:
        raise SettingsError(
            f"--after names version {named.version}, and this site has pinned version {site.roster.version}",
            advice="name the pinned one: motet-home/roster.json",
        )
    return make_successor(site, arguments.enrolments, until=until(arguments))


def leave(arguments: argparse.Namespace) -> dict[str, Any]:
    """Leave, or as the coordinator go on without a party."""
    site = open_site(arguments.home)
    if site.settings.role == "coordinator" and arguments.name != site.name:
        roster, changes = make_successor(site, (), removed=[arguments.name], until=until(arguments))
        return show_roster(site, roster, changes)
    if arguments.name != site.name:
        raise SettingsError(
            f"'{site.name}' can sign for itself only", advice="the coordinator goes on without others"
        )
    if site.settings.role == "coordinator":
        raise SettingsError("a consortium does not go on without its coordinator", advice="make a new one")
    file = leave_consortium(site)
    print(f"give to the coordinator:  {file}")
    return {"departure": str(file)}


def rotate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make new keys."""
    site = open_site(arguments.home)
    file = rotate_keys(site, now=datetime.now(UTC))
    print("the new keys lie beside the old ones and count from the next roster on; back up keys/ again")
    print(f"give to the coordinator:  {file}")
    return {"rotation": str(file)}


def show(arguments: argparse.Namespace) -> dict[str, Any]:
    """Show the pinned roster."""
    site = open_site(arguments.home)
    return show_roster(site, site.roster, None)


def show_roster(site: SiteDirectory, roster: SignedRoster, changes: Changes | None) -> dict[str, Any]:
    """Print who is on a roster, what it changes, and the digest that all compare."""
    for enrolment in roster.enrolments:
        said = enrolment.statement
        print(f"{said.role:<12} {said.name:<20} key {said.public_key[:16]}…")
    changed = {} if changes is None else {name: list(who) for name, who in vars(changes).items() if who}
    for what, who in changed.items():
        print(f"{what:<12} {', '.join(who)}")
    if roster.succession is not None:
        print(
            f"version {roster.version}; runs of version {roster.version - 1} end on {roster.succession.previous_until:%Y-%m-%d %H:%M %Z}"
        )
    print(f"digest {roster.digest}\ncompare it with all others, by another way than the file came")
    path: Path = site.path / "roster.json"
    return {
        "roster": str(path),
        "digest": roster.digest,
        "version": roster.version,
        "partners": list(roster.roster.partners),
        "changes": changed,
    }


def until(arguments: argparse.Namespace) -> datetime:
    """When runs of the roster before end.

    Raises:
        SettingsError: If the user gave no date.
    """
    now = datetime.now(UTC)
    if arguments.now:
        return now
    if arguments.until is None:
        return now + GRACE
    try:
        return datetime.combine(
            date.fromisoformat(arguments.until) + timedelta(days=1), datetime.min.time(), tzinfo=UTC
        )
    except ValueError:
        raise SettingsError("--until is no date, expected one like 2027-01-01") from None
