"""A partner's private memory of its attempts: one root secret each, one masked vector at most, then nothing.

Why: all keys of an attempt derive from its root, so a restarted partner repeats its messages bit for bit; two
different vectors under one set of masks would reveal their difference, so the first one is pinned before it
leaves; after the attempt the root is erased. Runs: on the partner. Source: own.
"""

import os
from pathlib import Path

from data_contracts.errors import UpdateMismatch
from data_contracts.plan import RoundPlan
from tasks.exchange.durable_files import create_once
from tasks.exchange.identity import secret_file


class AttemptVault:
    """Root secrets of open attempts, in a directory that only the partner can read.

    Args:
        directory: Private directory; created with mode 0700.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory

    def _path(self, plan: RoundPlan, suffix: str) -> Path:
        return self._directory / f"r{plan.round:05d}-a{plan.attempt}-{plan.digest[:32]}.{suffix}"

    def root(self, plan: RoundPlan) -> bytes | None:
        """Return the 32-byte root of an attempt, made at first; None once the attempt has ended."""
        if self._path(plan, "ended").exists():
            return None
        return secret_file(self._path(plan, "root"))

    def pin(self, plan: RoundPlan, what: str, digest: bytes) -> None:
        """Fix the one vector that an attempt may mask, or the one set of survivors it may unmask.

        A restarted partner has forgotten what it said; the pin has not.

        Raises:
            UpdateMismatch: If something else was pinned before; nothing was sent.
        """
        path = self._path(plan, what)
        if not create_once(path, [digest]) and path.read_bytes() != digest:
            raise UpdateMismatch(
                f"round {plan.round}, attempt {plan.attempt}: this partner has already fixed another {what} under "
                f"the same masks; a second one would reveal the difference, so it was not sent",
                advice="remove nothing; the coordinator must open a new attempt, with new masks",
            )

    def end(self, plan: RoundPlan) -> None:
        """Erase the root; the attempt can never be joined again."""
        create_once(self._path(plan, "ended"), [b""])
        root = self._path(plan, "root")
        if root.exists():
            with root.open("r+b") as file:
                file.write(os.urandom(32))
                file.flush()
                os.fsync(file.fileno())
            root.unlink()
