"""From an empty directory to a consortium: make a site, assemble the roster, accept it, share the partners' secret.

Why: nobody hands out keys; each party makes its own, and all compare one digest. Runs: on every site.
Source: own.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel

from data_contracts.envelope import Kind
from data_contracts.errors import ProtocolError, SettingsError
from flows.approvals import STEWARD
from flows.site_directory import GENERATION, SiteDirectory
from flows.site_settings import Policy, SiteSettings
from tasks.exchange.board import Board, Message
from tasks.exchange.durable_files import create_once
from tasks.exchange.enrolment import (
    Departure,
    Enrolment,
    Rotation,
    SignedRoster,
    Statement,
    Succession,
    parse,
)
from tasks.exchange.identity import Identity, secret_file
from tasks.exchange.sealing import SealingKey
from tasks.exchange.shared_secret import SharedSecret, confirmation_of
from tasks.exchange.succession import Changes, changes_of
from tasks.exchange.transport_keys import make_transport_key
from tasks.rounds.patience import Patience

SECRET = "consortium_secret"  # noqa: S105 - a file name
SECRET_CONTEXT = b"motet/consortium-secret/v1\x00"


def make_site(
    home: Path, settings: SiteSettings, *, policy: Policy | None, address: str | None, now: datetime
) -> SiteDirectory:
    """Make a site: keys that only their owner reads, settings, and the public enrolment.

    Args:
        home: The directory.
        settings: What the site says about itself.
        policy: What a partner grants; None for others.
        address: Where others reach a mailbox; None for others.
        now: The time.

    Raises:
        SettingsError: If a site is there already.
    """
    site = SiteDirectory(home.resolve())
    if not (site.path / "site.json").exists() and policy is not None:
        steward = Identity(STEWARD, secret_file(site.keys / STEWARD))
        settings = settings.model_copy(update={"steward_key": steward.public_key.hex()})
    if not create_once(site.path / "site.json", [_written(settings)]):
        raise SettingsError(
            f"there is a site under '{home}' already", advice="choose another directory with --home"
        )
    if policy is not None:
        create_once(site.path / "policy.json", [_written(policy)])
    secret_file(site.keys / "site_secret")
    statement = Statement(
        role=settings.role,
        name=settings.name,
        public_key=site.identity.public_key.hex(),
        sealing_key=site.sealing_key.public.hex(),
        certificate=make_transport_key(site.transport_key, name=settings.name, now=now),
        address=address,
    )
    create_once(site.path / "enrolment.json", [_written(Enrolment.make(statement, site.identity))])
    return site


def _written(model: BaseModel) -> bytes:
    return json.dumps(model.model_dump(mode="json"), indent=2).encode() + b"\n"


def make_roster(site: SiteDirectory, files: Iterable[Path]) -> SignedRoster:
    """Assemble the roster from enrolment files, sign it and pin it; the coordinator's own is added.

    Raises:
        SettingsError: If the site is no coordinator, or has pinned another roster.
        ProtocolError: If an enrolment is refused, or they make no consortium.
    """
    site.demand_role("coordinator")
    others = (parse(Enrolment, path.read_bytes(), what=f"the enrolment '{path.name}'") for path in files)
    roster = SignedRoster.make((site.enrolment, *others), site.identity)
    site.pin(roster)
    return roster


def make_successor(
    site: SiteDirectory,
    files: Iterable[Path],
    *,
    removed: Iterable[str] = (),
    until: datetime,
) -> tuple[SignedRoster, Changes]:
    """Make the roster that follows the pinned one, from enrolments, rotations and departures; sign it and pin it.

    Args:
        site: The coordinator's.
        files: What parties sent.
        removed: Parties that leave without a word.
        until: Runs planned under the pinned roster may go on until then.

    Raises:
        SettingsError: If the site is no coordinator, or a named party is not on the roster.
        ProtocolError: If a file is none of these, or the changes do not hold.
    """
    site.demand_role("coordinator")
    old = site.roster
    inside = {each.statement.name: each for each in old.enrolments}
    rotations, departures, joined = [], [], []
    for path in files:
        said = _said_in(path)
        if isinstance(said, Rotation):
            rotations.append(said)
            inside[said.enrolment.statement.name] = said.enrolment
        elif isinstance(said, Departure):
            departures.append(said)
        else:
            if said.statement.name in inside:
                raise ProtocolError(
                    f"'{said.statement.name}' is on the roster already",
                    advice="new keys are announced with `motet keys rotate`; a lost key needs another name",
                )
            joined.append(said.statement.name)
            inside[said.statement.name] = said
    for name in (*removed, *(each.name for each in departures)):
        if inside.pop(name, None) is None:
            raise SettingsError(f"'{name}' is not on the roster", advice="see `motet roster show`")
    succession = Succession(
        version=old.version + 1,
        previous=old.digest,
        previous_until=until,
        joined=tuple(sorted(joined)),
        rotations=tuple(rotations),
        departures=tuple(departures),
    )
    own = next(each for each in inside.values() if each.statement.name == site.name)
    signer = next(
        identity for identity in site.identities if identity.public_key.hex() == own.statement.public_key
    )
    roster = SignedRoster.make(tuple(inside.values()), signer, succession=succession)
    changes = changes_of(roster, old=old)
    site.pin(roster)
    return roster, changes


def _said_in(path: Path) -> Enrolment | Rotation | Departure:
    data = path.read_bytes()
    kinds: tuple[type[Enrolment | Rotation | Departure], ...] = (Enrolment, Rotation, Departure)
    for kind in kinds:
        try:
            fields = set(json.loads(data))
        except (ValueError, TypeError):
            break
        if fields == set(kind.model_fields):
            return parse(kind, data, what=f"'{path.name}'")
    raise ProtocolError(
        f"'{path.name}' is no enrolment, no rotation and no departure",
        advice="ask its sender for another one",
    )


def rotate_keys(site: SiteDirectory, *, now: datetime) -> Path:
    """Make new signing, sealing and transport keys, vouched for by the present ones; they count from the next roster on.

    Returns:
        The public file for the coordinator; the same one while that rotation waits.
    """
    roster = site.roster
    present = site.room_under(roster)
    file = site.path / f"rotation-{roster.version}.json"
    newest = site.rooms[-1]
    if newest == present:
        newest = site.keys / f"{GENERATION}{len(site.rooms) + 1:03d}"
    said = roster.statement(site.name)
    if said is None:
        raise SettingsError(f"'{site.name}' is not on the pinned roster")
    new = Identity(site.name, secret_file(newest / "identity"))
    sealing = SealingKey(secret_file(newest / "sealing"))
    if not (newest / "enrolment.json").exists():
        (newest / "transport.pem").unlink(missing_ok=True)  # a kill left it without its enrolment
        certificate = make_transport_key(newest / "transport.pem", name=site.name, now=now)
        statement = said.model_copy(
            update={
                "public_key": new.public_key.hex(),
                "sealing_key": sealing.public.hex(),
                "certificate": certificate,
            }
        )
        create_once(newest / "enrolment.json", [_written(Enrolment.make(statement, new))])
    enrolment = parse(Enrolment, (newest / "enrolment.json").read_bytes(), what="enrolment.json")
    old = Identity(site.name, secret_file(present / "identity"))
    create_once(file, [_written(Rotation.make(enrolment, previous=roster.digest, old=old))])
    return file


def leave_consortium(site: SiteDirectory) -> Path:
    """Sign that this site leaves; the coordinator makes a roster without it.

    Returns:
        The public file for the coordinator.
    """
    file = site.path / f"departure-{site.roster.version}.json"
    create_once(file, [_written(Departure.make(previous=site.roster.digest, leaver=site.identity))])
    return file


def accept_roster(site: SiteDirectory, data: bytes, *, digest: str) -> tuple[SignedRoster, Changes | None]:
    """Pin the roster that a coordinator made, if it is the one that everybody else has.

    Args:
        site: The site.
        data: The roster's file.
        digest: Its digest as a person heard it from the others.

    Raises:
        ProtocolError: If it is malformed, has another digest, says of this site what it did not say, or does not
            follow the one that is pinned.
    """
    roster = parse(SignedRoster, data, what="the roster")
    if roster.digest != digest.strip().lower():
        raise ProtocolError(
            "the roster's digest is not the one you were told",
            advice="compare both with the coordinator by telephone: somebody has another roster",
        )
    if roster.statement(site.name) not in [each.statement for each in site.enrolments]:
        raise ProtocolError(f"the roster does not say of '{site.name}' what its enrolment says")
    return roster, site.pin(roster)


async def join_consortium(site: SiteDirectory) -> None:
    """Say that this partner has accepted the roster, and come to share the partners' secret.

    Raises:
        ProtocolError: If the proposing partner stays silent or its secret does not open.
    """
    board = site.roster_board
    board.post_json(Kind.ROSTER_ACCEPTED, {"digest": site.roster.digest})
    proposer = proposer_of(site)
    if site.name == proposer:
        propose_secret(site, board)
        return
    patience = Patience(site.settings.patience_seconds)
    message = await patience.until(lambda: board.read(Kind.CONSORTIUM_SECRET, proposer))
    if message is None:
        raise ProtocolError(
            f"'{proposer}' has not shared the partners' secret within {patience.deadline_seconds:g} s",
            advice=f"ask '{proposer}' to run `motet join`, then run again",
        )
    site.in_run(board.run_id).install_secret(SECRET, open_secret(site, message))
    demand_same_secret(site, message)


def proposer_of(site: SiteDirectory) -> str:
    """Who shares the partners' secret: the first by name, on a later roster the first that was there before."""
    succession, partners = site.roster.succession, site.roster.roster.partners
    joined = succession.joined if succession is not None else ()
    return next((name for name in partners if name not in joined), partners[0])


def propose_secret(site: SiteDirectory, board: Board) -> None:
    """Seal the secret to every partner, once: its proposer makes it at first, and carries it on to later rosters."""
    if board.read(Kind.CONSORTIUM_SECRET, site.name) is not None:
        return
    secret = secret_file(site.keys / SECRET)
    body = SharedSecret.make(secret, names=board.roster.partners, roster=site.roster, context=_context(site))
    board.post_json(Kind.CONSORTIUM_SECRET, body.model_dump())


def open_secret(site: SiteDirectory, message: Message) -> bytes:
    """Open the partners' secret.

    Raises:
        ProtocolError: If it was not sealed to this site, or is not the one that all partners got.
    """
    sender = message.head.sender
    return SharedSecret.read(message).open(
        site.sealing_key, name=site.name, context=_context(site), sender=sender
    )


def demand_same_secret(site: SiteDirectory, message: Message) -> None:
    """Refuse to go on with another secret than the shared one.

    Raises:
        SettingsError: If the site holds another one.
    """
    held = secret_file(site.keys / SECRET)
    if confirmation_of(held, _context(site)) != SharedSecret.read(message).confirmation:
        raise SettingsError(
            f"'{site.name}' holds another {SECRET} than '{message.head.sender}' shared",
            advice="move keys/consortium_secret and prepared/ away, and run again",
        )


def _context(site: SiteDirectory) -> bytes:
    return SECRET_CONTEXT + site.roster.digest.encode()


async def await_acceptance(site: SiteDirectory) -> None:
    """Wait until every partner has signed that it pinned this very roster.

    Raises:
        ProtocolError: If one stays silent, or has accepted another roster.
    """
    board = site.roster_board

    def missing() -> list[str]:
        return [name for name in board.roster.partners if not _accepts(board, name, site.roster.digest)]

    patience = Patience(site.settings.patience_seconds)
    if await patience.until(lambda: True if not missing() else None) is None:
        raise ProtocolError(
            f"these partners have not accepted the roster: {', '.join(missing())}",
            advice="each runs `motet roster accept`, then `motet join`",
        )


def _accepts(board: Board, name: str, digest: str) -> bool:
    message = board.read(Kind.ROSTER_ACCEPTED, name)
    if message is not None and message.json() != {"digest": digest}:
        raise ProtocolError(f"'{name}' has accepted another roster")
    return message is not None
