"""Bytes that nobody on the roster said: kept as evidence, counted as absent.

Why: whoever can write to a mailbox could otherwise stop a round with one bad file. Runs: anywhere. Source: own.
"""

import hashlib
import logging
from pathlib import Path

from data_contracts.canonical_json import canonical_bytes
from data_contracts.envelope import MAX_ENVELOPE_BYTES
from tasks.exchange.durable_files import create_once

logger = logging.getLogger("motet")

MAX_ENTRIES = 1000
MAX_KEPT_BYTES = MAX_ENVELOPE_BYTES + 1  # an envelope whole, its signature last


class Quarantine:
    """A directory of refused bytes, each beside the reason.

    Args:
        directory: Created on the first entry.
        max_entries: After so many nothing more is kept, so that nobody fills the disk.
    """

    def __init__(self, directory: Path, *, max_entries: int = MAX_ENTRIES) -> None:
        self.directory = directory
        self._max_entries = max_entries

    def keep(self, data: bytes, *, why: str) -> None:
        """Keep what was refused, once; at most its first ``MAX_KEPT_BYTES`` bytes."""
        name = hashlib.sha256(why.encode() + data).hexdigest()[:32]
        reason = self.directory / f"{name}.json"
        if reason.exists() or len(self.reasons()) >= self._max_entries:
            return
        logger.warning("set aside: %s", why)
        create_once(self.directory / f"{name}.bytes", [data[:MAX_KEPT_BYTES]])
        create_once(reason, [canonical_bytes({"why": why, "bytes": len(data)})])

    def reasons(self) -> list[Path]:
        """One file per entry, with the reason in it."""
        return sorted(self.directory.glob("*.json"))
