"""The key of a run: the coordinator makes it and seals it to partners and auditors before it says anything else.

Why: plans, sums and models pass through a mailbox whose operator must not read them. Runs: on every site.
Source: own.
"""

from collections.abc import Callable
from functools import lru_cache

from data_contracts.envelope import Kind
from data_contracts.errors import ProtocolError
from tasks.exchange.board import Board
from tasks.exchange.enrolment import SignedRoster
from tasks.exchange.run_seal import RunSeal
from tasks.exchange.sealing import SealingKey
from tasks.exchange.shared_secret import SharedSecret

CONTEXT = b"motet/run-key/v1\x00"


def share_run_key(board: Board, *, key: bytes, roster: SignedRoster) -> None:
    """Seal the run's key to every partner and auditor; a key that was shared before a restart stays.

    Args:
        board: The coordinator's, of the run.
        key: 32 bytes.
        roster: Where the partners' sealing keys stand.
    """
    if board.read(Kind.RUN_KEY, board.identity.name) is None:
        context = _context(roster, board.run_id)
        names = (*board.roster.partners, *roster.auditors)
        shared = SharedSecret.make(key, names=names, roster=roster, context=context)
        board.post_json(Kind.RUN_KEY, shared.model_dump())


def seal_of_coordinator(key: Callable[[], bytes], *, run_id: str) -> Callable[[], RunSeal]:
    """The seal of a run that this site leads."""
    return lru_cache(maxsize=1)(lambda: RunSeal(key(), run_id=run_id))


def seal_of_partner(
    board: Board, *, sealing_key: Callable[[], SealingKey], roster: SignedRoster
) -> Callable[[], RunSeal]:
    """The seal of a run that this site takes part in, once its key is needed.

    Args:
        board: The partner's, of the run, without a seal.
        sealing_key: Opens what was sealed to this site.
        roster: The pinned one.
    """

    def opened() -> RunSeal:
        coordinator = board.roster.coordinator
        message = board.read(Kind.RUN_KEY, coordinator)
        if message is None:
            raise ProtocolError(
                f"'{coordinator}' has not shared the key of run '{board.run_id}' with '{board.identity.name}'",
                advice=f"ask '{coordinator}' to run `motet lead` again: it shares the key first",
            )
        context = _context(roster, board.run_id)
        shared = SharedSecret.read(message)
        key = shared.open(sealing_key(), name=board.identity.name, context=context, sender=coordinator)
        return RunSeal(key, run_id=board.run_id)

    return lru_cache(maxsize=1)(opened)


def _context(roster: SignedRoster, run_id: str) -> bytes:
    return CONTEXT + roster.digest.encode() + run_id.encode() + b"\x00"
