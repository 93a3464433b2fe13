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
from flows.cli.performing import log_to_terminal, perform
from flows.enrolment import accept_roster, make_roster, make_site
from flows.services import prefect_server
from flows.settings import given_settings, settings_from
from flows.site_directory import open_site
from flows.site_settings import Files, Policy, SiteSettings, checked
from tasks.exchange.enrolment import SignedRoster
from tasks.exchange.mailbox_service import MailboxService
from tasks.featurization.preparation_rules import PROFILES, rules_of


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
    granted = {"data_sets": tuple(arguments.grant), "expires": expires}
    own = tuple(name if name in PROFILES else rules_of(name).digest for name in arguments.profile)
    return checked(Policy, granted | ({"profiles": own} if own else {}))


def roster_make(arguments: argparse.Namespace) -> dict[str, Any]:
    """Assemble, sign and pin the roster."""
    site = open_site(arguments.home)
    roster = make_roster(site, arguments.enrolments)
    print(f"give to everybody:        {site.path / 'roster.json'}")
    return _show(roster, path=str(site.path / "roster.json"))


def roster_accept(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pin the roster."""
    site = open_site(arguments.home)
    roster = accept_roster(site, arguments.roster.read_bytes(), digest=arguments.digest)
    return _show(roster, path=str(site.path / "roster.json"))


def _show(roster: SignedRoster, *, path: str) -> dict[str, Any]:
    for enrolment in roster.enrolments:
        said = enrolment.statement
        print(f"{said.role:<12} {said.name:<20} key {said.public_key[:16]}…")
    print(f"digest {roster.digest}\ncompare it with all others, by another way than the file came")
    return {"roster": path, "digest": roster.digest, "partners": list(roster.roster.partners)}


def mailbox(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the mailbox until SIGTERM or SIGINT."""
    log_to_terminal(verbose=arguments.verbose)
    site = open_site(arguments.home)
    site.demand_role("mailbox")
    assert site.settings.listen is not None  # noqa: S101 - a mailbox listens
    host, _, port = site.settings.listen.rpartition(":")
    service = MailboxService(
        site.path / "mailbox", address=(host, int(port)), key=site.transport_key, roster=site.roster
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
    given = given_settings(arguments)
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
