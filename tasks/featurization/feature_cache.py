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
from tasks.featurization.executors import shard_name
from tasks.featurization.key_positions import UNKNOWN, KeyPositions

NAME_BYTES = 16
PERSON = b"motet/structure"


def names_of(smiles: Any, *, key: bytes) -> Any:
    """Name structures as they are written.

    Args:
        smiles: ``pa.Array`` of strings without nulls.
        key: At most 64 bytes.

    Returns:
        ``pa.StringArray`` of 32 hexadecimal characters each.
    """
    keyed = hashlib.blake2b(key=key, digest_size=NAME_BYTES, person=PERSON)
    names = []
    for text in smiles.to_pylist():
        one = keyed.copy()
        one.update(text.encode())
        names.append(one.hexdigest())
    return pa.array(names, pa.string())


@dataclass(frozen=True)
class Found:
    """What the cache knows about asked names.

    Attributes:
        table: ``pa.Table`` of all cached rows; its columns lie in the mapped files.
        row: Row of each asked name, ``UNKNOWN`` where it is not cached.
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

    def find(self, names: Any) -> Found:
        """Look names up; a damaged shard counts as absent, and is removed.

        Args:
            names: ``pa.StringArray`` as ``names_of`` gives it.
        """
        tables = [
            table for path in sorted(self._directory.glob("*.arrow")) if (table := _read(path)) is not None
        ]
        table = pa.concat_tables([FEATURIZED_STRUCTURES.schema.empty_table(), *tables])
        cached = table.column("name").combine_chunks()
        row = KeyPositions(cached).of(names) if len(cached) else np.full(len(names), UNKNOWN, dtype=np.int64)
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
    filled = pc.fill_null(names, "\0" * (2 * NAME_BYTES)).combine_chunks()
    if not len(filled):
        return np.empty(0, dtype=f"S{2 * NAME_BYTES}")
    data = np.frombuffer(filled.buffers()[2], dtype=f"S{2 * NAME_BYTES}", count=filled.offset + len(filled))
    return data[filled.offset :]
