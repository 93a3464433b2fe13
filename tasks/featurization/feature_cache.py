"""Featurized structures that outlive a run: shards of compressed sparse rows, found again by keyed names.

Why: an unchanged molecule is never featurized twice, and a run killed at any moment goes on where it was.
Runs: on the partner. Source: own; content addressing, with BLAKE2b under the consortium's key (RFC 7693).

A shard holds no structure: names are keyed digests, because a plain digest of a private structure confirms a guess.
It is written whole or not at all and mapped into memory, not loaded; the cache stays in the partner's directory.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.catalogue import FEATURIZED_STRUCTURES
from data_contracts.errors import ContractViolation
from data_contracts.writing import read_table, write_table
from tasks.featurization.key_positions import UNKNOWN, KeyPositions

NAME_BYTES = 16
NAMES_AT_ONCE = 1 << 16
Digests = npt.NDArray[np.uint64]
PERSON = b"motet/structure"


def digests_of(smiles: Any, *, key: bytes) -> Digests:
    """Digest structures as they are written, under a key.

    Args:
        smiles: ``pa.Array`` of strings without nulls, n of them.
        key: At most 64 bytes.

    Returns:
        16 bytes each, shape ``(n, 2)``.
    """
    keyed = hashlib.blake2b(key=key, digest_size=NAME_BYTES, person=PERSON)
    digests = []
    for text in smiles.cast(pa.binary()).to_pylist():
        one = keyed.copy()
        one.update(text)
        digests.append(one.digest())
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


def names_from(digests: Digests) -> Any:
    """Spell digests as names: ``pa.StringArray`` of 32 hexadecimal characters each."""
    text = digests.tobytes().hex().encode()
    ends = np.arange(0, len(text) + 1, 2 * NAME_BYTES, dtype=np.int32)
    return pa.StringArray.from_buffers(len(digests), pa.py_buffer(ends), pa.py_buffer(text))


def names_of(smiles: Any, *, key: bytes) -> Any:
    """Name structures as they are written; see ``digests_of`` and ``names_from``."""
    return names_from(digests_of(smiles, key=key))


def shard_name(names: Any) -> str:
    """Name a run of structures by a digest of their keyed names, 32 hexadecimal characters."""
    return hashlib.sha256("".join(names.to_pylist()).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Found:
    """What the cache knows about asked structures.

    Attributes:
        table: ``pa.Table`` of all cached rows; its columns lie in the mapped files.
        row: Row of each asked structure, ``UNKNOWN`` where it is not cached.
    """

    table: Any
    row: npt.NDArray[np.int64]


class FeatureCache:
    """The shards of one partner made under one set of options.

    Args:
        directory: Holds the shards; created if needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def find(self, digests: Digests) -> Found:
        """Look structures up; a damaged shard counts as absent, and is removed.

        Args:
            digests: As ``digests_of`` gives them.
        """
        tables = [
            table for path in sorted(self._directory.glob("*.arrow")) if (table := _read(path)) is not None
        ]
        table = pa.concat_tables([FEATURIZED_STRUCTURES.schema.empty_table(), *tables])
        row = np.full(len(digests), UNKNOWN, dtype=np.int64)
        if table.num_rows:
            positions = KeyPositions(table.column("name"))
            for start in range(0, len(row), NAMES_AT_ONCE):
                part = slice(start, start + NAMES_AT_ONCE)
                row[part] = positions.of(names_from(digests[part]))
        return Found(table, row)

    def add(self, batches: Iterable[Any]) -> None:
        """Write one more shard of rows whose names are not cached yet; afterwards it survives a crash."""
        table = pa.Table.from_batches(list(batches), schema=FEATURIZED_STRUCTURES.schema)
        name = shard_name(table.column("name"))
        write_table(self._directory / f"{name}.arrow", FEATURIZED_STRUCTURES, table)


def _read(path: Path) -> Any | None:
    try:
        return read_table(path, FEATURIZED_STRUCTURES)
    except ContractViolation:
        path.unlink(missing_ok=True)
        return None


def fixed_width(names: Any) -> npt.NDArray[np.bytes_]:
    """Return names of 32 characters as fixed-width bytes that sort and compare at memory speed; null becomes empty."""
    width = f"S{2 * NAME_BYTES}"
    found = np.empty(len(names), dtype=width)
    start = 0
    for chunk in names.chunks:
        filled = pc.fill_null(chunk, "\0" * (2 * NAME_BYTES))
        if len(filled):
            data = np.frombuffer(filled.buffers()[2], dtype=width, count=filled.offset + len(filled))
            found[start : start + len(filled)] = data[filled.offset :]
        start += len(filled)
    return found
