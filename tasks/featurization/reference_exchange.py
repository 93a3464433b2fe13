"""Partners compare, before the first round and without a word to the coordinator, how they prepare the same molecules.

Why: bits of another RDKit, profile or secret sum up without any error, and the model is quietly worth less.
Runs: on the partner. Source: own; docs/decisions/0025.

Each posts digests keyed under the secret that only partners share, and reads those of the others before it sends
anything of a round. Of any two that differ, whoever comes later sees the other; both see it if both come in time.
"""

import hmac
import logging
from collections.abc import Mapping
from contextlib import suppress

from data_contracts.canonical_json import canonical_bytes
from data_contracts.envelope import Kind
from data_contracts.errors import Equivocation, ProtocolError, UpdateMismatch
from data_contracts.plan import RoundPlan
from tasks.exchange.board import Board, Message
from tasks.featurization.reference_set import STEPS, require_same
from tasks.rounds.patience import Patience

PURPOSE = b"motet/reference/v1"
SECRET = "secret"  # noqa: S105 - the name of a step
SHARE_OF_DEADLINE = 0.5  # of round 0, for which those that are slow to prepare are waited for

logger = logging.getLogger("motet")


def keyed_digests(digests: Mapping[str, str], *, secret: bytes, run_id: str) -> dict[str, str]:
    """Key reference digests, so that only partners can compare them, and two runs not with each other.

    Args:
        digests: As ``reference_set.reference_digests`` gives them.
        secret: The consortium's 32-byte secret.
        run_id: The run.

    Returns:
        64 hexadecimal digits for the secret itself and for each step, in their order.
    """
    return {
        step: hmac.digest(secret, canonical_bytes([PURPOSE.decode(), run_id, step, digest]), "sha256").hex()
        for step, digest in ((SECRET, ""), *((step, digests[step]) for step in STEPS))
    }


class PreparationCheck:
    """One partner's comparison with the others of its run.

    Args:
        board: Its view of the mailbox.
        digests: Its own, from ``keyed_digests``.
    """

    def __init__(self, board: Board, digests: Mapping[str, str]) -> None:
        self._board = board
        self._ours = dict(digests)
        self._us = board.identity.name
        self._same = {self._us}

    def announce(self) -> None:
        """Say how this partner prepares.

        Raises:
            UpdateMismatch: If it prepared in another way when the run began.
        """
        try:
            self._board.post_json(Kind.PREPARED, self._ours)
        except Equivocation:
            earlier = self._board.read(Kind.PREPARED, self._us)
            if earlier is None:
                raise
            require_same(_read(earlier), self._ours, us=f"{self._us} at the start of the run", who=self._us)

    async def compare(self, plan: RoundPlan, *, wait: bool = False) -> None:
        """Compare with everybody of a plan's cohort who has spoken; a refusal is said to all.

        Args:
            plan: What this partner is about to contribute to.
            wait: Wait for those that have not spoken, half as long as the round may take.

        Raises:
            UpdateMismatch: Names both partners and the step that differs.
            ProtocolError: If what another partner said is malformed.
        """
        patience = Patience(SHARE_OF_DEADLINE * plan.deadline_seconds if wait else 0.0)
        if await patience.until(lambda: self._look(plan) or None) is None and wait:
            silent = sorted(set(plan.cohort) - self._same)
            logger.warning("%s: not compared before round %d: %s", self._us, plan.round, ", ".join(silent))

    def _look(self, plan: RoundPlan) -> bool:
        """Compare with those that have spoken since; tell whether everybody has."""
        for name in sorted(set(plan.cohort) - self._same):
            message = self._board.read(Kind.PREPARED, name)
            if message is None:
                continue
            try:
                require_same(self._ours, _read(message), us=self._us, who=name)
            except UpdateMismatch as exc:
                with suppress(Equivocation):  # it has refused this plan before, for another reason
                    self._board.post_json(Kind.REFUSAL, {"reason": str(exc)}, plan=plan)
                raise
            self._same.add(name)
        return set(plan.cohort) <= self._same


def _read(message: Message) -> dict[str, str]:
    value = message.json()
    if not isinstance(value, dict) or set(value) != {SECRET, *STEPS}:
        raise ProtocolError(
            f"what '{message.head.sender}' says of its preparation is malformed",
            advice="all partners need the same version of motet",
        )
    return {name: str(digest) for name, digest in value.items()}
