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
from flows.site_directory import SiteDirectory
from flows.site_settings import Policy, SiteSettings
from tasks.exchange.board import Board, Message
from tasks.exchange.durable_files import create_once
from tasks.exchange.enrolment import Enrolment, SignedRoster, Statement, parse
from tasks.exchange.identity import secret_file
from tasks.exchange.shared_secret import SharedSecret, confirmation_of
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


def accept_roster(site: SiteDirectory, data: bytes, *, digest: str) -> SignedRoster:
    """Pin the roster that a coordinator made, if it is the one that everybody else has.

    Args:
        site: The site.
        data: The roster's file.
        digest: Its digest as a person heard it from the others.

    Raises:
        ProtocolError: If it is malformed, has another digest, or says of this site what it did not say.
    """
    roster = parse(SignedRoster, data, what="the roster")
    if roster.digest != digest.strip().lower():
        raise ProtocolError(
            "the roster's digest is not the one you were told",
            advice="compare both with the coordinator by telephone: somebody has another roster",
        )
    if roster.statement(site.name) != site.enrolment.statement:
        raise ProtocolError(f"the roster does not say of '{site.name}' what its enrolment says")
    site.pin(roster)
    return roster


async def join_consortium(site: SiteDirectory) -> None:
    """Say that this partner has accepted the roster, and come to share the partners' secret.

    Raises:
        ProtocolError: If the proposing partner stays silent or its secret does not open.
    """
    board = site.roster_board
    board.post_json(Kind.ROSTER_ACCEPTED, {"digest": site.roster.digest})
    proposer = board.roster.partners[0]
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


def propose_secret(site: SiteDirectory, board: Board) -> None:
    """Make the secret, once, and seal it to every partner. The first partner by name does so, and nobody else."""
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
