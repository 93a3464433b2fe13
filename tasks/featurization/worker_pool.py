"""A pool of long-lived featurization workers.

Why: a worker costs half a second to start, so it stays; a molecule that kills its worker costs that molecule
only, which is found by halving its chunk. Runs: on the partner. Source: own.
"""

import contextlib
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from data_contracts.errors import WorkFailed
from tasks.featurization.worker import ANSWER, REQUEST, read_frame, write_frame

IN_FLIGHT_PER_WORKER = 2
COMMAND = (sys.executable, "-P", "-m", "tasks.featurization.worker")


class _Worker:
    """One worker process and its pipes."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def ask(self, smiles: Any) -> Any | None:
        """Have one chunk featurized; None if the worker died over it."""
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        assert self._process.stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            write_frame(self._process.stdin, pa.record_batch([smiles], schema=REQUEST))  # type: ignore[arg-type]
            return read_frame(self._process.stdout)  # type: ignore[arg-type]
        return None

    def end(self) -> int:
        """Kill the process and return its exit status."""
        self._process.kill()
        with self._process:
            return self._process.wait()

    def await_death(self) -> int:
        """Exit status of a worker that is known to die."""
        try:
            return self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return self.end()


class WorkerPool:
    """Featurizes chunks on several processes, in order.

    Args:
        n_workers: Number of processes.
    """

    def __init__(self, n_workers: int) -> None:
        self._threads = ThreadPoolExecutor(n_workers, thread_name_prefix="featurization")
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._n_workers = n_workers
        for _ in range(n_workers):
            self._free.put(_Worker())

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers, also in the middle of a chunk."""
        self._threads.shutdown(wait=kind is None, cancel_futures=True)
        for _ in range(self._n_workers):
            with contextlib.suppress(queue.Empty):
                self._free.get(timeout=60).end()

    def map(self, chunks: Iterable[Any]) -> Iterator[Any]:
        """Featurize chunks of SMILES.

        Args:
            chunks: Arrow string arrays without nulls.

        Yields:
            For each chunk, in order, a record batch of ``worker.ANSWER`` with as many rows.

        Raises:
            WorkFailed: If workers die before they have read a molecule.
        """
        waiting: deque[Future[Any]] = deque()
        for chunk in chunks:
            waiting.append(self._threads.submit(self._featurize, chunk))
            if len(waiting) >= IN_FLIGHT_PER_WORKER * self._n_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _featurize(self, smiles: Any) -> Any:
        worker = self._free.get()
        try:
            answer = worker.ask(smiles)
            if answer is not None:
                return answer
            status = worker.await_death()
            worker = _Worker()
        finally:
            self._free.put(worker)
        if status in {0, 1}:
            raise WorkFailed(f"a featurization worker could not start (exit status {status})")
        if len(smiles) == 1:
            return _lost("timeout" if status == -signal.SIGALRM else "crashed")
        half = len(smiles) // 2
        parts = [self._featurize(smiles.slice(0, half)), self._featurize(smiles.slice(half))]
        return pa.Table.from_batches(parts, schema=ANSWER).combine_chunks().to_batches()[0]


def _lost(reason: str) -> Any:
    columns = [pa.array([None]), pa.array([None]), pa.array([reason]), pa.array([[]])]
    return pa.record_batch([c.cast(f.type) for c, f in zip(columns, ANSWER, strict=True)], schema=ANSWER)
