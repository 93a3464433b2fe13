"""``motet init``, ``roster``, ``mailbox``, ``lead``, ``join``: a consortium of separate hosts.

Why: from an empty directory to a registered model in a few commands. Runs: on every site. Source: own.
"""

import argparse
import os
import signal
import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

from data_contracts.errors import SettingsError
from flows.approvals import STEWARD
from flows.cli.membership import make_after, show_roster
from flows.cli.performing import log_to_terminal, perform
from flows.enrolment import accept_roster, make_roster, make_site
from flows.services import prefect_server
from flows.settings import RunSettings, settings_from
from flows.site_directory import open_site
from flows.site_settings import Files, Policy, SiteSettings, checked
from tasks.exchange.mailbox_service import MailboxService


def init(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make a site."""
    address = getattr(arguments, "address", None)
    files = policy = None
    if arguments.role == "partner":
        files = Files(
            **{name: getattr(arguments, name).resolve() for name in ("assays", "activities", "structures")}
        )
        policy = _policy(arguments)
    given = {
        "role": arguments.role,
        "name": arguments.name,
        "files": files,
        "simulated_assays": getattr(arguments, "simulated", False),
    }
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
    return checked(Policy, {"data_sets": data_sets, "approval": approval, "expires": expires})


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


def mailbox(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the mailbox until SIGTERM or SIGINT."""
    log_to_terminal(verbose=arguments.verbose)
    site = open_site(arguments.home)
    site.demand_role("mailbox")
    assert site.settings.listen is not None  # noqa: S101 - a mailbox listens
    host, _, port = site.settings.listen.rpartition(":")
    service = MailboxService(
        site.path / "mailbox",
        address=(host, int(port)),
        key=site.transport_key,
        roster=site.roster,
        earlier=site.ends(),
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serving = threading.Thread(target=service.serve_forever)
    serving.start()
    print(f"the mailbox listens on {host}:{service.port}", flush=True)
    stop.wait()
    service.shutdown()
    service.server_close()
    serving.join()
    return {"mailbox": str(site.path / "mailbox"), "port": service.port}


def lead(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lead a run."""
    log_to_terminal(verbose=arguments.verbose)
    site = open_site(arguments.home)
    given = {name: getattr(arguments, name, None) for name in RunSettings.model_fields}
    here = {"partners": len(site.roster.roster.partners), "pooled_arm": False}
    listed = [] if arguments.catalogue is None else arguments.catalogue.read_text().split("\n")

    with prefect_server(site.path) as server:
        os.environ.update(server.environment)
        from flows.site_run import coordinate, prepare_run

        run = prepare_run(
            site,
            settings_from(given | here),
            run_id=arguments.run_id,
            simulated_assays=arguments.simulated,
            listed=[name for name in listed if name],
            now=datetime.now(UTC),
        )
        result: dict[str, Any] = run.result or perform(
            lambda: coordinate(site=str(site.path), run_id=run.run_id), verbose=arguments.verbose
        )
    for party, uri in result["models"].items():
        print(f"{party:<12} registered {uri}")
    return result | {"directory": str(run.path)}


def join(arguments: argparse.Namespace) -> dict[str, Any]:
    """Take part in a run."""
    log_to_terminal(verbose=arguments.verbose)
    site = open_site(arguments.home)
    with prefect_server(site.path) as server:
        os.environ.update(server.environment)
        from flows.site_run import participate

        result: dict[str, Any] = perform(
            lambda: participate(site=str(site.path), run_id=arguments.run_id), verbose=arguments.verbose
        )
    print(f"{site.name:<12} registered {result['model']}")
    return result | {"directory": str(site.run(result["run_id"]).path)}
