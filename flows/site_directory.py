"""A site on a host of its own: one directory with settings, keys, the pinned roster, runs, Prefect and MLflow.

Why: a party reads its own directory and the mailbox, nothing else; whoever holds the directory is the party.
Runs: on every site. Source: own.

::

    site.json  policy.json        what the site says and grants          keys/            mode 0600
    enrolment.json                public: for the coordinator            roster.json      pinned; rosters/ all of them
    runs/<run>/  prepared/  attempts/  requests/  refusals/  quarantine/ prefect/  mlflow/
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts.canonical_json import canonical_bytes
from data_contracts.errors import ProtocolError, SettingsError
from flows.earlier_runs import EarlierRuns
from flows.object_storage import bucket_of, mailbox_in
from flows.run_directory import RunDirectory, list_runs
from flows.run_keys import seal_of_coordinator, seal_of_partner
from flows.site_settings import Policy, SiteSettings, read_settings
from flows.sites import Site
from tasks.exchange.board import Board
from tasks.exchange.durable_files import create_once, replace_whole
from tasks.exchange.enrolment import Enrolment, Role, SignedRoster, parse
from tasks.exchange.https_mailbox import HttpsMailbox, MailboxConnection
from tasks.exchange.identity import Identity, secret_file
from tasks.exchange.mailbox import DirectoryMailbox, Mailbox
from tasks.exchange.quarantine import Quarantine
from tasks.exchange.run_seal import RunSeal
from tasks.exchange.sealing import SealingKey
from tasks.exchange.succession import Changes, changes_of, with_retired_keys
from tasks.exchange.transport_keys import party_context

if TYPE_CHECKING:
    from tasks.exchange.object_mailbox import Bucket

EXAMPLE = "`motet init partner --help`"
ROSTER_RUN = "roster-"
ROSTER_OF_RUN = "roster.sha256"
GENERATION = "generation-"


@dataclass(frozen=True)
class SiteDirectory:
    """One party's directory on its own host.

    Attributes:
        path: The directory; absolute.
    """

    path: Path

    @cached_property
    def settings(self) -> SiteSettings:
        """What the site says about itself."""
        return read_settings(SiteSettings, self.path / "site.json", example=EXAMPLE)

    @property
    def policy(self) -> Policy:
        """What a partner grants, as its steward wrote it."""
        return read_settings(Policy, self.path / "policy.json", example=EXAMPLE)

    @property
    def name(self) -> str:
        """The party."""
        return self.settings.name

    @property
    def keys(self) -> Path:
        """Directory of private keys."""
        return self.path / "keys"

    @property
    def rooms(self) -> tuple[Path, ...]:
        """Directories of signing, sealing and transport keys, the oldest first; keys never move."""
        return (self.keys, *sorted(self.keys.glob(f"{GENERATION}*")))

    def room_under(self, roster: SignedRoster) -> Path:
        """The keys that this site has on a roster.

        Raises:
            SettingsError: If they are not here.
        """
        said = roster.statement(self.name)
        for room in self.rooms:
            held = Identity(self.name, secret_file(room / "identity")).public_key.hex()
            if said is None or said.public_key == held:
                return room
        raise SettingsError(
            f"'{self.name}' does not hold the key that it has on the roster",
            advice="restore keys/ from the backup",
        )

    @property
    def identities(self) -> tuple[Identity, ...]:
        """The signing identities of all generations, the oldest first."""
        return tuple(Identity(self.name, secret_file(room / "identity")) for room in self.rooms)

    @cached_property
    def _room(self) -> Path:
        return self.room_under(self.roster) if len(self.rooms) > 1 else self.keys

    @property
    def transport_key(self) -> Path:
        """PEM file of the transport key and its certificate."""
        return self._room / "transport.pem"

    @property
    def identity(self) -> Identity:
        """The signing identity."""
        return Identity(self.name, secret_file(self._room / "identity"))

    @property
    def sealing_key(self) -> SealingKey:
        """The key that others seal to."""
        return SealingKey(secret_file(self._room / "sealing"))

    @property
    def enrolment(self) -> Enrolment:
        """What the site said of itself at first."""
        return self.enrolments[0]

    @property
    def enrolments(self) -> tuple[Enrolment, ...]:
        """What the site has said of itself, with its first keys and with each newer generation."""
        paths = (self.path / "enrolment.json", *(room / "enrolment.json" for room in self.rooms[1:]))
        return tuple(parse(Enrolment, path.read_bytes(), what=path.name) for path in paths)

    @cached_property
    def roster(self) -> SignedRoster:
        """The pinned roster.

        Raises:
            SettingsError: If none is pinned yet.
        """
        try:
            return parse(SignedRoster, (self.path / "roster.json").read_bytes(), what="roster.json")
        except FileNotFoundError:
            raise SettingsError(
                f"'{self.name}' has pinned no roster yet",
                advice="get it from the coordinator, then: motet roster accept FILE --digest DIGEST",
            ) from None

    @property
    def earlier_rosters(self) -> tuple[SignedRoster, ...]:
        """The rosters that this site had pinned before, the newest first."""
        paths = (self.path / "rosters").glob("*.json")
        found = [parse(SignedRoster, path.read_bytes(), what=path.name) for path in paths]
        return tuple(
            sorted(
                (each for each in found if each.version < self.roster.version), key=lambda each: -each.version
            )
        )

    def pin(self, roster: SignedRoster) -> Changes | None:
        """Pin a roster: the first one, or one that follows the pinned one.

        Returns:
            What it changes; None for the first one, and for the one that is pinned already.

        Raises:
            SettingsError: If a roster of another consortium is pinned.
            ProtocolError: If it does not follow the pinned one.
        """
        data = canonical_bytes(roster.model_dump(mode="json"))
        changes = None
        if (self.path / "roster.json").exists() and self.roster.digest != roster.digest:
            if roster.succession is None and self.roster.succession is None:
                raise SettingsError(
                    f"'{self.name}' has pinned another roster before",
                    advice="a site belongs to one consortium: make another site for another roster",
                )
            changes = changes_of(roster, old=self.roster)
        create_once(self.path / "rosters" / f"{roster.digest}.json", [data])
        replace_whole(self.path / "roster.json", [data])
        if "connection" in vars(self):
            self.connection.close()
        for known in ("roster", "connection", "_room"):
            vars(self).pop(known, None)
        return changes

    def roster_of(self, run_id: str) -> SignedRoster:
        """The roster that a run was planned under; of a run that is new here, the pinned one."""
        kept = self.run(run_id).path / ROSTER_OF_RUN
        digest = kept.read_text() if kept.exists() else self.roster.digest
        if digest == self.roster.digest:
            return self.roster
        return parse(
            SignedRoster,
            (self.path / "rosters" / f"{digest}.json").read_bytes(),
            what="the roster of the run",
        )

    def keep_roster_of(self, run_id: str, roster: SignedRoster) -> None:
        """Remember the roster that a run was planned under."""
        create_once(self.run(run_id).path / ROSTER_OF_RUN, [roster.digest.encode()])

    def ends(self) -> list[tuple[SignedRoster, datetime]]:
        """The rosters before the pinned one, each with the time until which its runs may go on."""
        chain = (self.roster, *self.earlier_rosters)
        return [
            (old, new.succession.previous_until)
            for new, old in pairwise(chain)
            if new.succession is not None and new.succession.previous == old.digest
        ]

    def demand_in_force(self, run_id: str, *, now: datetime) -> None:
        """Refuse to go on with a run whose roster has ended.

        Raises:
            ProtocolError: If it has.
        """
        planned = self.roster_of(run_id)
        for old, until in self.ends():
            if old.digest == planned.digest and now >= until:
                raise ProtocolError(
                    f"run '{run_id}' was planned under version {old.version} of the roster, which ended on {until:%Y-%m-%d %H:%M %Z}",
                    advice="lead another run: it rests on the newest roster",
                )

    def demand_role(self, role: Role) -> None:
        """Refuse a command that is another role's.

        Raises:
            SettingsError: If the site has another role.
        """
        if self.settings.role != role:
            raise SettingsError(
                f"'{self.name}' is {_a(self.settings.role)}, and this is done by {_a(role)}",
                advice=f"name the {role}'s directory with --home",
            )

    def connect(self, *, outage_seconds: float) -> "MailboxConnection | Bucket":
        """A connection to the mailbox: the roster's, or the object storage that `site.json` names.

        Args:
            outage_seconds: How long it may be out of reach.

        Raises:
            SettingsError: If there is neither, or both.
        """
        mailbox, bucket = self.roster.mailbox, self.settings.mailbox
        if bucket is not None and mailbox is None:
            return bucket_of(bucket, keys=self.keys, outage_seconds=outage_seconds)
        if mailbox is None or mailbox.address is None or bucket is not None:
            raise SettingsError(
                f"'{self.name}' and its roster name {'no mailbox' if bucket is None else 'two mailboxes'}",
                advice="name object storage as `mailbox` in site.json, or enrol a mailbox: one of the two",
            )
        tls = party_context(self.transport_key, mailbox=mailbox.certificate)
        return MailboxConnection(mailbox.address, tls=tls, outage_seconds=outage_seconds)

    @cached_property
    def connection(self) -> "MailboxConnection | Bucket":
        """The one connection of this process."""
        return self.connect(outage_seconds=self.settings.outage_seconds)

    def mailbox(self, *, copies: Path, seal: Callable[[], RunSeal] | None = None) -> Mailbox:
        """The mailbox, with copies of its blobs in a directory; models are sealed on the way where there is a seal."""
        if isinstance(self.connection, MailboxConnection):
            return HttpsMailbox(self.connection, copies=copies, seal=seal)
        return mailbox_in(self.connection, copies=copies, seal=seal)

    def run(self, run_id: str) -> RunDirectory:
        """The directory of a run."""
        return RunDirectory(self.path / "runs" / run_id)

    def in_run(self, run_id: str) -> Site:
        """This party within one run."""
        return Site(self.name, self.run(run_id).path, home=self.path)

    @property
    def earlier(self) -> EarlierRuns:
        """This party's runs so far."""
        return EarlierRuns(site=self.in_run, names=lambda: [run.run_id for run in list_runs(self.path)])

    def board(self, run_id: str) -> Board:
        """The mailbox as seen by this party in one run, under the run's seal; what nobody signed is set aside."""
        seal = self.seal(run_id)
        mailbox = self.mailbox(copies=self.run(run_id).path / "received", seal=seal)
        return replace(self.open_board(run_id), mailbox=mailbox, seal=seal)

    def open_board(self, run_id: str) -> Board:
        """The same without a seal: for what is said before there is a key."""
        roster = self.roster_of(run_id)
        earlier = [each for each in self.earlier_rosters if each.version < roster.version]
        return Board(
            mailbox=self.mailbox(copies=self.run(run_id).path / "received"),
            identity=Identity(self.name, secret_file(self.room_under(roster) / "identity")),
            roster=with_retired_keys(roster, earlier=earlier),
            run_id=run_id,
            quarantine=Quarantine(self.path / "quarantine"),
        )

    def copied_board(self, run_id: str) -> Board:
        """A run as it was copied (``motet verify fetch``): nothing of it needs the mailbox."""
        copy = replace(self.open_board(run_id), mailbox=DirectoryMailbox(self.run(run_id).mailbox))
        return replace(copy, seal=self._seal_on(copy))

    def seal(self, run_id: str) -> Callable[[], RunSeal]:
        """The key of a run: the coordinator's own, or what the coordinator has sealed to this site."""
        return self._seal_on(self.open_board(run_id))

    def _seal_on(self, board: Board) -> Callable[[], RunSeal]:
        run_id = board.run_id
        if self.settings.role == "coordinator":
            return seal_of_coordinator(lambda: self.run_key(run_id), run_id=run_id)
        roster = self.roster_of(run_id)
        return seal_of_partner(
            board,
            sealing_key=lambda: SealingKey(secret_file(self.room_under(roster) / "sealing")),
            roster=roster,
        )

    def run_key(self, run_id: str) -> bytes:
        """The key of a run that this coordinator leads; the same after a restart."""
        return self.in_run(run_id).key(f"run-key/{run_id}")

    @property
    def roster_board(self) -> Board:
        """Where the parties of the pinned roster say that they have accepted it."""
        return self.open_board(f"{ROSTER_RUN}{self.roster.digest[:32]}")


def _a(role: Role) -> str:
    return f"an {role}" if role == "auditor" else f"a {role}"


@contextmanager
def visit_site(home: Path | str) -> Iterator[SiteDirectory]:
    """Open a site's directory, and end its connection to the mailbox afterwards.

    Raises:
        SettingsError: If there is none, or its settings cannot work.
    """
    site = open_site(home)
    try:
        yield site
    finally:
        if "connection" in vars(site):  # it was used
            site.connection.close()


def open_site(home: Path | str) -> SiteDirectory:
    """Open a site's directory.

    Raises:
        SettingsError: If there is none, or its settings cannot work.
    """
    site = SiteDirectory(Path(home).resolve())
    site.settings  # noqa: B018 - reads and checks them
    return site
