"""A featurization worker: SMILES in, parents, scaffolds and set bits out, over a pipe of Arrow messages.

Why: parsing SMILES holds Python's global lock, so molecules are spread over processes; Arrow buffers cross the
pipe, never pickles; no key does. Runs: on the partner, as ``python -m tasks.featurization.worker``. Source: own.

A frame is eight bytes of length (little endian) and an Arrow IPC stream. End of input ends the worker; a chunk
that takes longer than its deadline ends it by SIGALRM, also if nobody is left to kill it.
"""

import signal
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from rdkit import rdBase

from tasks.featurization.fingerprints import hashed_bits_of
from tasks.featurization.folds import generic_scaffold
from tasks.featurization.standardization import Standardizer

LENGTH_BYTES = 8
BASE_SECONDS, SECONDS_PER_MOLECULE = 10.0, 0.05
REQUEST = pa.schema([pa.field("smiles", pa.string())])
ANSWER = pa.schema(
    [
        pa.field("parent", pa.string()),
        pa.field("scaffold", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("bits", pa.list_(pa.uint16())),
    ]
)


def write_frame(pipe: BinaryIO, batch: Any) -> None:
    """Send one record batch."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data = sink.getvalue()
    pipe.write(data.size.to_bytes(LENGTH_BYTES, "little"))
    pipe.write(data)
    pipe.flush()


def read_frame(pipe: BinaryIO) -> Any | None:
    """Receive one record batch; None at the end of the pipe."""
    length = pipe.read(LENGTH_BYTES)
    if len(length) < LENGTH_BYTES:
        return None
    data = pipe.read(int.from_bytes(length, "little"))
    if len(data) < int.from_bytes(length, "little"):
        return None
    with pa.ipc.open_stream(data) as reader:
        return reader.read_next_batch()


def featurize(smiles: Sequence[str], *, standardizer: Standardizer) -> Any:
    """Standardize and hash structures.

    Args:
        smiles: Structures, n of them.
        standardizer: The rules, made once per process.

    Returns:
        A record batch of ``ANSWER`` with n rows; where ``reason`` is set, the other columns are null or empty.
    """
    parents = [standardizer.parent(text) for text in smiles]
    mols = [parent.mol for parent in parents if parent.mol is not None]
    starts, bits = hashed_bits_of(mols)
    n_bits = np.zeros(len(parents), dtype=np.int64)
    n_bits[[parent.mol is not None for parent in parents]] = np.diff(starts)
    ends = np.concatenate([[0], np.cumsum(n_bits)]).astype(np.int32)
    return pa.record_batch(
        [
            pa.array([parent.smiles for parent in parents], pa.string()),
            pa.array([generic_scaffold(p.mol) if p.mol is not None else None for p in parents], pa.string()),
            pa.array([parent.reason for parent in parents], pa.string()),
            pa.ListArray.from_arrays(pa.array(ends), pa.array(bits)),
        ],
        schema=ANSWER,
    )


def main() -> int:
    """Serve chunks until the input ends."""
    standardizer = Standardizer()
    with rdBase.BlockLogs():
        while (request := read_frame(sys.stdin.buffer)) is not None:
            signal.setitimer(signal.ITIMER_REAL, BASE_SECONDS + SECONDS_PER_MOLECULE * request.num_rows)
            answer = featurize(request.column("smiles").to_pylist(), standardizer=standardizer)
            signal.setitimer(signal.ITIMER_REAL, 0)
            write_frame(sys.stdout.buffer, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
