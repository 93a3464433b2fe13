"""A featurization worker: SMILES in, parents, scaffolds and set bits out, over a pipe of Arrow messages.

Why: parsing SMILES holds Python's global lock, so molecules are spread over processes; Arrow buffers cross the
pipe, never pickles; no key does. Runs: on the partner, as ``python -m tasks.featurization.worker PARENT_PID OPTIONS``.
Source: own; prctl(2).

A frame is eight bytes of length (little endian) and an Arrow IPC stream of one record batch. The worker says
that it is ready by an answer without rows; end of input, or the end of its parent, ends it.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from rdkit import rdBase
from rdkit.Chem import MolFromSmiles, rdMolHash

from tasks.featurization.fingerprints import N_BITS, RADIUS, Hasher
from tasks.featurization.folds import generic_scaffold
from tasks.featurization.published_folds import network_scaffold
from tasks.featurization.standardization import PROFILE, PUBLISHED_PROFILE, Parent, standardizer_of

LENGTH_BYTES = 8
PR_SET_PDEATHSIG = 1
REQUEST = pa.schema([pa.field("smiles", pa.string())])
ANSWER = pa.schema(
    [
        pa.field("parent", pa.string()),
        pa.field("identity", pa.string()),
        pa.field("scaffold", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("bits", pa.list_(pa.uint16())),
        pa.field("counts", pa.list_(pa.uint16())),
    ]
)
STANDARDIZATIONS: Mapping[str, str] = {"fast": PROFILE, "published": PUBLISHED_PROFILE}
Featurize = Callable[[Sequence[str]], Any]
SCAFFOLDS: Mapping[str, Callable[[Any], str]] = {
    "generic": generic_scaffold,
    "published": network_scaffold,
    "none": lambda _: "",
}


@dataclass(frozen=True)
class Options:
    """What a worker makes of a structure.

    Attributes:
        standardization: ``fast``, ``published``, or ``as_given`` for structures that need none.
        identity: ``parent`` or ``tautomer_hash``.
        scaffold: A key of ``SCAFFOLDS``.
        radius, n_bits, counts, chirality: Of the fingerprint.
    """

    standardization: str = "fast"
    identity: str = "parent"
    scaffold: str = "generic"
    radius: int = RADIUS
    n_bits: int = N_BITS
    counts: bool = False
    chirality: bool = False

    def to_json(self) -> str:
        """Write the options for a worker's command line."""
        return json.dumps(asdict(self), sort_keys=True)


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


def as_given(smiles: str) -> Parent:
    """Take a structure for its own parent: it was standardized before, or is public and needs it not."""
    mol: Any = MolFromSmiles(smiles)
    return Parent(None, None, "parse") if mol is None else Parent(mol, smiles, None)


def _parent_finder(options: Options) -> Callable[[str], Parent]:
    if options.standardization == "as_given":
        return as_given
    return standardizer_of(STANDARDIZATIONS[options.standardization], keep_stereo=options.chirality).parent


class Featurizer:
    """Standardizes and hashes structures; keep one per process."""

    def __init__(self, options: Options) -> None:
        """Build the rules once."""
        self._options = options
        self._parent = _parent_finder(options)
        self._hasher = Hasher(radius=options.radius, n_bits=options.n_bits, chirality=options.chirality)
        self._scaffold = SCAFFOLDS[options.scaffold]

    def __call__(self, smiles: Sequence[str]) -> Any:
        """Featurize structures.

        Args:
            smiles: Structures, n of them.

        Returns:
            A record batch of ``ANSWER`` with n rows; where ``reason`` is set, the other columns are null or empty;
            ``identity`` is null where it is the parent.
        """
        parents = [self._parent(text) for text in smiles]
        found = np.array([parent.reason is None for parent in parents], dtype=bool)
        starts, bits, counts = self._hasher.rows_of(p.mol for p in parents if p.reason is None)
        ends = np.zeros(len(parents) + 1, dtype=np.int32)
        ends[1:][found] = np.diff(starts)
        np.cumsum(ends, out=ends)
        none = np.zeros_like(ends)
        return pa.record_batch(
            [
                pa.array([p.smiles for p in parents], pa.string()),
                pa.array([self._identity(p) for p in parents], pa.string()),
                pa.array([None if p.mol is None else self._scaffold(p.mol) for p in parents], pa.string()),
                pa.array([p.reason for p in parents], pa.string()),
                pa.ListArray.from_arrays(pa.array(ends), pa.array(bits)),
                pa.ListArray.from_arrays(
                    pa.array(ends if self._options.counts else none),
                    pa.array(counts if self._options.counts else counts[:0]),
                ),
            ],
            schema=ANSWER,
        )

    def _identity(self, parent: Parent) -> str | None:
        if parent.mol is None or self._options.identity == "parent":
            return None
        return str(rdMolHash.MolHash(parent.mol, rdMolHash.HashFunction.HetAtomTautomerv2))


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
    """Serve chunks with rules that are made once; the second argument says which, as JSON."""
    return run(Featurizer(Options(**json.loads(sys.argv[2]))))


if __name__ == "__main__":
    sys.exit(main())
