"""A featurization worker: SMILES in, parents, scaffolds and set bits out, over a pipe of Arrow messages.

Why: parsing SMILES holds Python's global lock, so molecules are spread over processes; Arrow buffers cross the
pipe, never pickles; no key does. Runs: on the partner, as ``python -m tasks.featurization.worker PARENT_PID``.
Source: own; prctl(2).

A frame is eight bytes of length (little endian) and an Arrow IPC stream of one record batch. The worker says
that it is ready by an answer without rows; end of input, or the end of its parent, ends it.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from rdkit import rdBase

from tasks.featurization.fingerprints import hashed_bits_of
from tasks.featurization.folds import generic_scaffold
from tasks.featurization.standardization import Standardizer

LENGTH_BYTES = 8
PR_SET_PDEATHSIG = 1
REQUEST = pa.schema([pa.field("smiles", pa.string())])
ANSWER = pa.schema(
    [
        pa.field("parent", pa.string()),
        pa.field("scaffold", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("bits", pa.list_(pa.uint16())),
    ]
)
Featurize = Callable[[Sequence[str]], Any]


def encode_frame(batch: Any) -> bytes:
    """Serialize one record batch as a frame."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data = sink.getvalue()
    return b"".join((data.size.to_bytes(LENGTH_BYTES, "little"), data))


def decode_frame(data: bytes | bytearray) -> tuple[Any, int] | None:
    """Take the first frame from what has arrived so far.

    Returns:
        A validated record batch and the number of bytes it took; None while it is incomplete.

    Raises:
        pyarrow.ArrowInvalid: If the bytes are no valid batch.
    """
    size = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    if len(data) < LENGTH_BYTES or len(data) < size:
        return None
    with pa.ipc.open_stream(pa.py_buffer(bytes(data[LENGTH_BYTES:size]))) as reader:
        batch = reader.read_next_batch()
    batch.validate(full=True)
    return batch, size


def featurize(smiles: Sequence[str], *, standardizer: Standardizer) -> Any:
    """Standardize and hash structures.

    Args:
        smiles: Structures, n of them.
        standardizer: The rules, made once per process.

    Returns:
        A record batch of ``ANSWER`` with n rows; where ``reason`` is set, the other columns are null or empty.
    """
    parents = [standardizer.parent(text) for text in smiles]
    found = np.array([parent.reason is None for parent in parents], dtype=bool)
    starts, bits = hashed_bits_of([parent.mol for parent in parents if parent.reason is None])
    ends = np.zeros(len(parents) + 1, dtype=np.int32)
    ends[1:][found] = np.diff(starts)
    np.cumsum(ends, out=ends)
    return pa.record_batch(
        [
            pa.array([parent.smiles for parent in parents], pa.string()),
            pa.array(
                [None if p.reason is not None else generic_scaffold(p.mol) for p in parents], pa.string()
            ),
            pa.array([parent.reason for parent in parents], pa.string()),
            pa.ListArray.from_arrays(pa.array(ends), pa.array(bits)),
        ],
        schema=ANSWER,
    )


def serve(featurize: Featurize, *, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer chunks until the requests end.

    Args:
        featurize: From SMILES to a batch of ``ANSWER``.
        requests: Frames of ``REQUEST``.
        answers: Takes one frame of ``ANSWER`` for each, after a first one without rows.
    """
    nothing = pa.record_batch([pa.array([], field.type) for field in ANSWER], schema=ANSWER)
    answers.write(encode_frame(nothing))
    answers.flush()
    while len(head := requests.read(LENGTH_BYTES)) == LENGTH_BYTES:
        frame = decode_frame(head + requests.read(int.from_bytes(head, "little")))
        if frame is None:
            return
        answers.write(encode_frame(featurize(frame[0].column("smiles").to_pylist())))
        answers.flush()


def harden(*, parent_pid: int) -> None:
    """Die with the parent, leave no core dump of private structures, let the parent decide about Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before the line above
        os._exit(1)


def run(featurize: Featurize) -> int:
    """Serve chunks on the standard streams of a process of its own; its first argument is its parent's id."""
    harden(parent_pid=int(sys.argv[1]))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    with open(os.devnull, "wb") as null:  # noqa: PTH123 - a device
        os.dup2(null.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    with rdBase.BlockLogs(), answers:
        serve(featurize, requests=sys.stdin.buffer, answers=answers)
    return 0


def main() -> int:
    """Serve chunks with rules that are made once."""
    standardizer = Standardizer()
    return run(lambda smiles: featurize(smiles, standardizer=standardizer))


if __name__ == "__main__":
    sys.exit(main())
