"""A partner's private memory of its attempts: one root secret each, one masked vector at most, then nothing.

Why: all keys of an attempt derive from its root, so a restarted partner repeats its messages; two different
vectors under one set of masks would reveal their difference, so the first one is pinned before it leaves; after
the attempt the root is erased. Runs: on the partner. Source: own.
"""

import contextlib
import os
import re
import resource
from pathlib import Path

from data_contracts.errors import UpdateMismatch
from data_contracts.plan import RoundPlan
from tasks.exchange.durable_files import create_once
from tasks.exchange.identity import secret_file
from tasks.rounds.releases import ReleaseRegister

SMALLEST_CORE = (
    1  # the kernel then writes none, not even to a handler that it pipes to; 0 would not stop a pipe
)


class AttemptVault:
    """Root secrets of open attempts, in a directory that only the partner can read.

    Args:
        directory: Private directory; created with mode 0700.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory

    @property
    def releases(self) -> ReleaseRegister:
        """Which sums this partner knows to be out."""
        return ReleaseRegister(self._directory / "released")

    def _path(self, plan: RoundPlan, suffix: str) -> Path:
        step = f"r{plan.round:06d}-a{plan.attempt:04d}"
        return self._directory / f"{plan.run_id}-{step}-{plan.digest[:32]}.{suffix}"

    def root(self, plan: RoundPlan) -> bytes | None:
        """Return the 32-byte root of an attempt, made at first; None once the attempt has ended.

        From here on this process leaves no core dump, and roots of earlier attempts of the run are erased.
        """
        forbid_core_dumps()
        self._end_earlier(plan)
        if self._path(plan, "ended").exists():
            return None
        return secret_file(self._path(plan, "root"))

    def keep(self, plan: RoundPlan, what: str, message: bytes) -> bytes:
        """Keep a message that cannot be made a second time; of two, the first stands and is returned."""
        path = self._path(plan, what)
        return message if create_once(path, [message]) else path.read_bytes()

    def kept(self, plan: RoundPlan, what: str) -> bytes | None:
        """The message kept before a restart, if any."""
        try:
            return self._path(plan, what).read_bytes()
        except FileNotFoundError:
            return None

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
        if not self._path(plan, "ended").exists():
            create_once(self._path(plan, "ended"), [b""])
        self._path(plan, "shares").unlink(missing_ok=True)
        _erase(self._path(plan, "root"))

    def _end_earlier(self, plan: RoundPlan) -> None:
        """Erase what a crash left of attempts that the run has gone past."""
        of_this_run = re.compile(rf"{re.escape(plan.run_id)}-r(\d{{6}})-a(\d{{4}})-[0-9a-f]{{32}}\.root")
        for root in self._directory.glob("*.root"):
            found = of_this_run.fullmatch(root.name)
            if found and (int(found[1]), int(found[2])) < (plan.round, plan.attempt):
                create_once(root.with_suffix(".ended"), [b""])
                root.with_suffix(".shares").unlink(missing_ok=True)
                _erase(root)


def forbid_core_dumps() -> None:
    """Let the kernel write no image of this process's memory, where keys lie."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    limit = SMALLEST_CORE if most == resource.RLIM_INFINITY else min(SMALLEST_CORE, most)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, most))


def _erase(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # another process of this party was faster
        with path.open("r+b") as file:
            file.write(os.urandom(32))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
