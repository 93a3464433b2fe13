"""Five sites in one process over a real mailbox service: enough for all that comes before training."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from data_contracts.canonical_json import canonical_bytes
from flows.enrolment import accept_roster, make_roster, make_site
from flows.processes import free_port
from flows.run_keys import share_run_key
from flows.site_directory import SiteDirectory
from flows.site_settings import Files, Policy, SiteSettings
from tasks.exchange.mailbox_service import MailboxService

NOW = datetime.now(UTC)
PARTNERS = ("partner-a", "partner-b", "partner-c")


@dataclass
class Places:
    """All sites of a consortium, by name, and the mailbox that serves them."""

    sites: dict
    service: MailboxService | None = None

    def site(self, name):
        return self.sites[name]

    def serve(self):
        mailbox = self.site("mailbox")
        host, _, port = mailbox.settings.listen.rpartition(":")
        self.service = MailboxService(
            mailbox.path / "mailbox",
            address=(host, int(port)),
            key=mailbox.transport_key,
            roster=mailbox.roster,
            earlier=mailbox.ends(),
        )
        self.thread = threading.Thread(target=self.service.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self):
        for site in self.sites.values():
            if "connection" in site.__dict__:
                site.connection.close()
        if self.service is not None:
            self.service.shutdown()
            self.service.server_close()
            self.thread.join()


def policy(**changed):
    granted = {"data_sets": ("qsar-2026",), "expires": NOW + timedelta(days=1), "max_hidden": 64}
    granted["approval"] = {"qsar-2026": "policy"}
    return Policy(**(granted | changed))


def make(
    root: Path, name: str, *, role: str = "partner", address: str | None = None, bucket: str | None = None
) -> SiteDirectory:
    files = Files(assays=root / "t.csv", activities=root / "a.csv", structures=root / "s.csv")
    settings = SiteSettings(
        role=role,
        name=name,
        listen=address,
        files=files if role == "partner" else None,
        mailbox=bucket,
        patience_seconds=0.3,
        answer_seconds=0.3,
        outage_seconds=20,
    )
    granted = policy() if role == "partner" else None
    return make_site(root / name, settings, policy=granted, address=address, now=NOW)


def make_all(root: Path, *, auditor: bool = False) -> Places:
    address = f"127.0.0.1:{free_port()}"
    sites = {name: make(root, name) for name in PARTNERS}
    sites["mailbox"] = make(root, "mailbox", role="mailbox", address=address)
    sites["coordinator"] = make(root, "coordinator", role="coordinator")
    if auditor:
        sites["auditor"] = make(root, "auditor", role="auditor")
    return Places(sites)


def make_around(root: Path, bucket: str) -> Places:
    """Parties whose messages lie in object storage, and no mailbox."""
    sites = {name: make(root, name, bucket=bucket) for name in PARTNERS}
    return Places(sites | {"coordinator": make(root, "coordinator", role="coordinator", bucket=bucket)})


def enrolled(places: Places) -> Places:
    """Everybody has pinned the same roster."""
    others = [site.path / "enrolment.json" for name, site in places.sites.items() if name != "coordinator"]
    roster = make_roster(places.site("coordinator"), others)
    data = canonical_bytes(roster.model_dump(mode="json"))
    for name, site in places.sites.items():
        if name != "coordinator":
            accept_roster(site, data, digest=roster.digest)
    return places


def share_key(places: Places, run_id: str) -> None:
    """What a coordinator says first in a run."""
    site = places.site("coordinator")
    share_run_key(site.open_board(run_id), key=site.run_key(run_id), roster=site.roster)
