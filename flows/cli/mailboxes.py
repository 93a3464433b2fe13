"""``motet mailbox`` and ``motet mailbox collect``: run a mailbox, and make room in it.

Why: whoever runs a mailbox needs two commands and no key. Runs: on the mailbox; over object storage, on the coordinator.
Source: own.
"""

import argparse
import logging
import signal
import threading
import time
from dataclasses import asdict
from typing import Any

from data_contracts.errors import SettingsError
from flows.cli.performing import log_to_terminal
from flows.site_directory import SiteDirectory, open_site
from tasks.exchange.collection import DAY_SECONDS, Collected
from tasks.exchange.collection import collect as collect_from
from tasks.exchange.mailbox import DirectoryMailbox
from tasks.exchange.mailbox_service import MailboxService
from tasks.exchange.shelves import Shelves

logger = logging.getLogger("motet")

FEWEST_DAYS = 1.0


def mailbox(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the mailbox until SIGTERM or SIGINT; with ``--keep-days`` make room once a day."""
    log_to_terminal(verbose=arguments.verbose)
    site = open_site(arguments.home)
    site.demand_role("mailbox")
    assert site.settings.listen is not None  # noqa: S101 - a mailbox listens
    host, _, port = site.settings.listen.rpartition(":")
    if arguments.keep_days is not None:
        _demand_days(arguments.keep_days)
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
    waits = None if arguments.keep_days is None else DAY_SECONDS
    while True:
        if arguments.keep_days is not None:
            _make_room(site, service.mailbox, keep_days=arguments.keep_days)
        if stop.wait(waits):
            break
    service.shutdown()
    service.server_close()
    serving.join()
    return {"mailbox": str(site.path / "mailbox"), "port": service.port}


def collect(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make room now, in the mailbox that this site runs or, over object storage, leads runs in."""
    site = open_site(arguments.home)
    _demand_days(arguments.keep_days)
    found = _make_room(site, _operated(site), keep_days=arguments.keep_days)
    print(f"{found.removed} bodies of {found.n_bytes / 1e6:.1f} MB removed")
    print(f"closed more than {arguments.keep_days:g} days ago: {', '.join(found.ended) or 'no run'}")
    print(f"kept whole: {', '.join(found.kept) or 'no run'}")
    return asdict(found)


def _operated(site: SiteDirectory) -> Shelves:
    if site.settings.role == "mailbox":
        return DirectoryMailbox(site.path / "mailbox")
    if site.settings.role == "coordinator" and site.settings.mailbox is not None:
        from tasks.exchange.object_mailbox import Bucket, ObjectMailbox

        assert isinstance(site.connection, Bucket)  # noqa: S101 - its settings name one
        return ObjectMailbox(site.connection, copies=site.path / "received")
    raise SettingsError(
        f"'{site.name}' runs no mailbox",
        advice="run this in the mailbox's site, or in the coordinator's where messages lie in object storage",
    )


def _make_room(site: SiteDirectory, shelves: Shelves, *, keep_days: float) -> Collected:
    found = collect_from(shelves, roster=site.roster.roster, now=time.time(), keep_days=keep_days)
    logger.info("made room: %d bodies of %d bytes went", found.removed, found.n_bytes)
    return found


def _demand_days(days: float) -> None:
    if not days >= FEWEST_DAYS:
        raise SettingsError(
            f"--keep-days must be at least {FEWEST_DAYS:g}",
            advice="partners that were away finish a closed run from what stays",
        )
