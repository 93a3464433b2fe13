"""A pool of long-lived featurization workers.

Why: a worker costs half a second to start, so it stays; a molecule that hangs or kills its worker costs that
molecule only, which is found by halving its chunk. Runs: on the partner. Source: own.

One thread waits for all pipes at once, so that Ctrl-C ends everything and no worker outlives its starter: the
kernel ends a worker with the thread that started it (PR_SET_PDEATHSIG).
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from data_contracts.errors import WorkFailed
from tasks.featurization.worker import ANSWER, REQUEST, Options, decode_frame, encode_frame

IN_FLIGHT_PER_WORKER = 2
MAX_LOST = 20  # structures; with more the fault lies in the machine, not in the structures
LOST_REASONS = CRASHED, TIMEOUT = ("crashed", "timeout")
READ_BYTES = 1 << 20
DEFAULT_OPTIONS = Options()
COMMAND = (
    sys.executable,
    "-P",
    "-m",
    "tasks.featurization.worker",
)  # -P: no `tasks` of the current directory
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}


@dataclass(frozen=True)
class Deadlines:
    """How long a worker may take.

    Attributes:
        start_seconds: Until it is ready.
        chunk_seconds: For a chunk of any size ...
        seconds_per_structure: ... and for each structure in addition; a usual one takes a millisecond.
    """

    start_seconds: float = 60.0
    chunk_seconds: float = 5.0
    seconds_per_structure: float = 0.02

    def of_chunk(self, n_structures: int) -> float:
        """Seconds for a chunk."""
        return self.chunk_seconds + self.seconds_per_structure * n_structures


@dataclass(frozen=True)
class _Part:
    """A run of rows of one chunk."""

    chunk: int
    first: int
    smiles: Any

    def halves(self) -> tuple["_Part", "_Part"]:
        middle = len(self.smiles) // 2
        return (
            _Part(self.chunk, self.first, self.smiles.slice(0, middle)),
            _Part(self.chunk, self.first + middle, self.smiles.slice(middle)),
        )


@dataclass
class _Chunk:
    """What is known of a chunk: its length, and the answers by their first row."""

    n_rows: int
    answers: dict[int, Any] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return bool(sum(answer.num_rows for answer in self.answers.values()) == self.n_rows)

    def joined(self) -> Any:
        parts = [self.answers[first] for first in sorted(self.answers)]
        return parts[0] if len(parts) == 1 else pa.concat_batches(parts)


class _Worker:
    """One worker process: its pipes, what it works on, and until when it may."""

    def __init__(self, name: str, *, command: Sequence[str], options: str, start_seconds: float) -> None:
        self.name = name
        self.part: _Part | None = None
        self.is_ready = False
        self.until = time.monotonic() + start_seconds
        self._received = bytearray()
        self._process = subprocess.Popen(
            [*command, str(os.getpid()), options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # whatever a library prints there may name a structure
            env={**os.environ, **ONE_THREAD},
        )
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        assert self._process.stdout is not None  # noqa: S101
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def fileno(self) -> int:
        """Descriptor of the answers, for ``selectors``."""
        return self._answers.fileno()

    def send(self, part: _Part, *, seconds: float) -> None:
        """Hand over a part; a worker that is gone shows at its answers."""
        self.part, self.until = part, time.monotonic() + seconds
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(encode_frame(pa.record_batch([part.smiles], schema=REQUEST)))
            self._requests.flush()

    def receive(self) -> Any | None:
        """Return the answer, None if it is not complete yet.

        Raises:
            EOFError: If there is no worker any more, or what it says makes no sense.
        """
        block = os.read(self.fileno(), READ_BYTES)
        self._received += block
        if not block:
            raise EOFError
        try:
            frame = decode_frame(self._received)
        except pa.ArrowException:
            raise EOFError from None
        if frame is None:
            return None
        answer, size = frame
        expected = len(self.part.smiles) if self.part is not None else 0
        if answer.schema != ANSWER or answer.num_rows != expected or size != len(self._received):
            raise EOFError
        self._received.clear()
        return answer

    def end(self) -> int:
        """End the process and return its exit status: what it died of, or -SIGKILL."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(
                timeout=0 if self.part is None else 0.1
            )  # its pipe closes just before it is gone
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._answers.close()
        return self._process.wait()


class WorkerPool:
    """Featurizes chunks of SMILES on several processes; a context manager.

    Args:
        n_workers: Number of processes.
        deadlines: How long they may take.
        command: Starts a worker; the pool's process id and the options are added.
        options: What the workers make of a structure.
    """

    def __init__(
        self,
        n_workers: int,
        *,
        deadlines: Deadlines | None = None,
        command: Sequence[str] = COMMAND,
        options: Options = DEFAULT_OPTIONS,
    ) -> None:
        self._deadlines = deadlines or Deadlines()
        self._options = options.to_json()
        self._command = tuple(command)
        self._names = [f"featurization worker {number + 1}" for number in range(n_workers)]
        self._workers: dict[str, _Worker] = {}
        self._selector = selectors.DefaultSelector()
        self._todo: deque[_Part] = deque()
        self._open: dict[int, _Chunk] = {}
        self._n_lost = 0

    def __enter__(self) -> Self:
        """Start the workers; they load RDKit while the caller goes on."""
        try:
            for name in self._names:
                self._start(name)
        except BaseException:
            self._end_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers, also in the middle of a chunk."""
        self._end_all()

    def _end_all(self) -> None:
        self._selector.close()
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()

    def map(self, chunks: Iterable[Any]) -> Iterator[Any]:
        """Featurize chunks; at most two per worker are taken ahead of the caller.

        Args:
            chunks: Non-empty Arrow string arrays without nulls.

        Yields:
            For each chunk, in order, a record batch of ``worker.ANSWER`` with as many rows. A structure over which
            a worker died has the reason ``crashed``, one that took too long ``timeout``.

        Raises:
            WorkFailed: If a worker cannot start, or workers die over more than 20 structures.
        """
        source = enumerate(chunks)
        following = 0
        while True:
            while len(self._open) < IN_FLIGHT_PER_WORKER * len(self._names):
                taken = next(source, None)
                if taken is None:
                    break
                number, smiles = taken
                self._open[number] = _Chunk(len(smiles))
                self._todo.append(_Part(number, 0, smiles))
            if not self._open:
                return
            self._work()
            while following in self._open and self._open[following].is_complete:
                yield self._open.pop(following).joined()
                following += 1

    def _start(self, name: str) -> None:
        try:
            worker = _Worker(
                name,
                command=self._command,
                options=self._options,
                start_seconds=self._deadlines.start_seconds,
            )
        except OSError as exc:
            raise WorkFailed(f"{name} could not start: {exc.strerror}; free memory and processes") from None
        self._workers[name] = worker
        self._selector.register(worker, selectors.EVENT_READ, worker)

    def _work(self) -> None:
        """Hand out parts, wait for the next event, and take in what has come."""
        for worker in self._workers.values():
            if worker.is_ready and worker.part is None and self._todo:
                part = self._todo.popleft()
                worker.send(part, seconds=self._deadlines.of_chunk(len(part.smiles)))
        busy = [w for w in self._workers.values() if w.part is not None or not w.is_ready]
        patience = min(worker.until for worker in busy) - time.monotonic()
        heard = [key.data for key, _ in self._selector.select(max(patience, 0.0))]
        for worker in heard:
            try:
                answer = worker.receive()
            except EOFError:
                self._on_end(worker, reason=CRASHED)
                continue
            if answer is not None:
                self._on_answer(worker, answer)
        for worker in busy:
            if worker not in heard and worker.until <= time.monotonic():
                self._on_end(worker, reason=TIMEOUT)

    def _on_answer(self, worker: _Worker, answer: Any) -> None:
        if worker.part is not None:
            self._open[worker.part.chunk].answers[worker.part.first] = answer
        worker.is_ready, worker.part = True, None

    def _on_end(self, worker: _Worker, *, reason: str) -> None:
        """Replace a worker; what it worked on is halved, or lost if it was one structure."""
        self._selector.unregister(worker)
        status = worker.end()
        if not worker.is_ready:
            raise WorkFailed(
                f"{worker.name} could not start ({_ending(status)}); expected an answer within "
                f"{self._deadlines.start_seconds:g} s",
                advice="free memory, and see whether `python -c 'import tasks.featurization.worker'` works",
            )
        part = worker.part
        if part is not None and len(part.smiles) > 1:
            self._todo.extendleft(reversed(part.halves()))
        elif part is not None:
            self._n_lost += 1
            self._open[part.chunk].answers[part.first] = _lost(reason)
        if self._n_lost > MAX_LOST:
            raise WorkFailed(
                f"featurization workers ended over {self._n_lost} structures, at most {MAX_LOST} are set aside; "
                f"last {worker.name} ({_ending(status)})"
            )
        self._start(worker.name)


def _ending(status: int) -> str:
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _lost(reason: str) -> Any:
    row = dict.fromkeys(ANSWER.names) | {"reason": reason, "bits": [], "counts": []}
    return pa.RecordBatch.from_pylist([row], schema=ANSWER)
