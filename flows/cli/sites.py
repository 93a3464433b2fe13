"""``motet init``, ``roster``, ``lead``, ``join``: a consortium of separate hosts.

Why: from an empty directory to a registered model in a few commands. Runs: on every site. Source: own.
"""

import argparse
from datetime import UTC, date, datetime, timedelta
from typing import Any

from data_contracts.errors import SettingsError
from flows.approvals import STEWARD
from flows.cli.earlier import follow, given_settings
from flows.cli.membership import make_after, show_roster
from flows.cli.performing import log_to_terminal, perform, prefect_with
from flows.enrolment import accept_roster, make_roster, make_site
from flows.leadership import take_over
from flows.settings import settings_from
from flows.site_directory import open_site
from flows.site_settings import Files, Policy, SiteSettings, checked
from tasks.featurization.preparation_rules import PROFILES, rules_of
from tasks.local_training.jobs import Machine


def init(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make a site."""
    address = getattr(arguments, "address", None)
    files = policy = None
    if arguments.role == "partner":
        names = ("assays", "activities", "structures", "catalogue")
        given_files = {
            name: path.resolve() for name in names if (path := getattr(arguments, name)) is not None
        }
        files = Files(**given_files)
        policy = _policy(arguments)
    given: dict[str, Any] = {
        "role": arguments.role,
        "name": arguments.name,
        "files": files,
        "simulated_assays": getattr(arguments, "simulated", False),
        "mailbox": getattr(arguments, "mailbox", None),
    }
    if files is not None:
        given["machine"] = Machine(device=arguments.device, precision=arguments.precision)
    if address is not None:
        given["listen"] = arguments.listen or f"0.0.0.0:{address.rpartition(':')[2]}"
    settings = checked(SiteSettings, given)
    site = make_site(arguments.home, settings, policy=policy, address=address, now=datetime.now(UTC))
    if policy is not None:
        print(
            f"the data steward's key:   {site.keys / STEWARD}; best kept by the steward, away from this host"
        )
    enrolment = site.path / "enrolment.json"
    print(f"made {arguments.role} '{site.name}' in {site.path}; back up its keys/, and show them to nobody")
    print(f"give to the coordinator:  {enrolment}")
    return {"site": str(site.path), "enrolment": str(enrolment), "role": arguments.role}


def _policy(arguments: argparse.Namespace) -> Policy:
    try:
        last_day = date.fromisoformat(arguments.expires)
    except ValueError:
        raise SettingsError("--expires is no date, expected one like 2027-01-01") from None
    expires = datetime.combine(last_day + timedelta(days=1), datetime.min.time(), tzinfo=UTC)
    asked, granted = tuple(arguments.ask), tuple(arguments.grant)
    approval = dict.fromkeys(granted, "policy") | dict.fromkeys(asked, "steward")
    data_sets = tuple(dict.fromkeys((*granted, *asked)))
    given = {"data_sets": data_sets, "approval": approval, "expires": expires}
    own = tuple(name if name in PROFILES else rules_of(name).digest for name in arguments.profile)
    return checked(Policy, given | ({"profiles": own} if own else {}))


def roster_make(arguments: argparse.Namespace) -> dict[str, Any]:
    """Assemble, sign and pin the roster: the first one, or the one after another."""
    site = open_site(arguments.home)
    changes = None
    if arguments.after is None:
        roster = make_roster(site, arguments.enrolments)
    else:
        roster, changes = make_after(arguments, site)
    print(f"give to everybody:        {site.path / 'roster.json'}")
    return show_roster(site, roster, changes)


def roster_accept(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pin the roster."""
    site = open_site(arguments.home)
    roster, changes = accept_roster(site, arguments.roster.read_bytes(), digest=arguments.digest)
    return show_roster(site, roster, changes)


def lead(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lead a run."""
    log_to_terminal(verbose=arguments.verbose)
    site = open_site(arguments.home)
    given = follow(given_settings(arguments), site.path, site.earlier)
    here = {"partners": len(site.roster.roster.partners), "pooled_arm": False}
    listed = [] if arguments.catalogue is None else arguments.catalogue.read_text().split("\n")

    with prefect_with(site.path, "flows.site_run", verbose=arguments.verbose):
        from flows.site_run import coordinate, prepare_run

        run = prepare_run(
            site,
            settings_from(given | here),
            run_id=arguments.run_id,
            simulated_assays=arguments.simulated,
            listed=[name for name in listed if name],
            now=datetime.now(UTC),
        )
        if arguments.take_over:
            take_over(site, run)
        result: dict[str, Any] = run.result or perform(
            lambda: coordinate(site=str(site.path), run_id=run.run_id)
        )
    for party, uri in result["models"].items():
        print(f"{party:<12} registered {uri}")
    return result | {"directory": str(run.path)}


def join(arguments: argparse.Namespace) -> dict[str, Any]:
    """Take part in a run."""
    log_to_terminal(verbose=arguments.verbose)
    site = open_site(arguments.home)
    with prefect_with(site.path, "flows.site_run", verbose=arguments.verbose):
        from flows.site_run import participate

        result: dict[str, Any] = perform(
            lambda: participate(site=str(site.path), run_id=arguments.run_id, dask=arguments.dask),
        )
    if result["model"] is not None:
        print(f"{site.name:<12} registered {result['model']}")
    return result | {"directory": str(site.run(result["run_id"]).path)}
