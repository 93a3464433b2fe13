"""The handle on the template process: starts it, sends jobs, kills what takes too long.

Why: a flow needs a timeout that ends the work, not only the waiting; threads cannot give that.
Runs: on the partner, in the flow's event loop; imports no torch. Source: own; background on task runners:
threads share torch's random state and cannot be interrupted.
"""

import asyncio
import contextlib
import itertools
import json
import os
import sys
from types import TracebackType
from typing import Any, Self, overload

from data_contracts import errors
from data_contracts.errors import MotetError, WorkFailed
from tasks.local_training.jobs import (
    RESULT,
    Adapt,
    Centralised,
    CentralisedResult,
    LocalSteps,
    LocalStepsResult,
    Machine,
    MinibatchGradient,
    MinibatchResult,
    Score,
    ScoreBaseline,
    ScoreResult,
    TrainingJob,
    TrainingResult,
)

MAX_ANSWER_BYTES = 16 * 2**20
GRACE_SECONDS = 5.0
ANY = Machine()
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""No library may start a thread pool in the template: a fork would copy its locks but not its threads."""


class TrainingProcess:
    """Runs training jobs in children of one template process, which dies with this one.

    Use as ``async with TrainingProcess() as process: result = await process.run(job, timeout_seconds=600)``.
    Several jobs may run at a time; how many is the caller's business.

    Args:
        machine: What the children compute on.
        memory_limit_bytes: Address space of a child beyond the template's; None sets no limit. Not for CUDA, which
            reserves far more addresses than memory.
    """

    def __init__(self, *, machine: Machine = ANY, memory_limit_bytes: int | None = None) -> None:
        self._machine = machine
        self._memory_limit_bytes = memory_limit_bytes
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start the template; it imports torch while the caller goes on."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the current directory may hold a `tasks` of its own
            "-m",
            "tasks.local_training.worker",
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **ONE_THREAD},
            limit=MAX_ANSWER_BYTES,
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read_answers(self._process))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all children and the template."""
        process, reader = self._started()
        assert process.stdin is not None  # noqa: S101 - asked for above
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), GRACE_SECONDS)
        except TimeoutError:
            process.kill()  # its children go with it: PR_SET_PDEATHSIG
            await process.wait()
        await reader

    @overload
    async def run(self, job: LocalSteps, *, timeout_seconds: float) -> LocalStepsResult: ...
    @overload
    async def run(self, job: Centralised | Adapt, *, timeout_seconds: float) -> CentralisedResult: ...
    @overload
    async def run(self, job: MinibatchGradient, *, timeout_seconds: float) -> MinibatchResult: ...
    @overload
    async def run(self, job: Score | ScoreBaseline, *, timeout_seconds: float) -> ScoreResult: ...
    async def run(self, job: TrainingJob, *, timeout_seconds: float) -> TrainingResult:
        """Do one job in a child process.

        On timeout and on cancellation the child's process group is killed before this returns.

        Raises:
            WorkFailed: If the child crashed, ran out of memory or out of time.
            MotetError: The child's own error, of its own branch of the tree.
        """
        process, reader = self._started()
        if reader.done():
            raise WorkFailed(self._epitaph(job))
        job_id = next(self._ids)
        answer = self._waiting[job_id] = asyncio.get_running_loop().create_future()
        self._send(
            process,
            {
                "id": job_id,
                "job": job.model_dump(mode="json"),
                "machine": self._machine.model_dump(),
                "memory_limit_bytes": self._memory_limit_bytes,
            },
        )
        try:
            event = await asyncio.wait_for(asyncio.shield(answer), timeout_seconds)
        except TimeoutError:
            await self._kill(process, job_id, answer)
            raise WorkFailed(
                f"training job '{job.kind}' took longer than {timeout_seconds:g} s and was ended"
            ) from None
        except asyncio.CancelledError:
            await self._kill(process, job_id, answer)
            raise
        finally:
            self._waiting.pop(job_id, None)
        return self._result(job, event)

    def _started(self) -> tuple[asyncio.subprocess.Process, "asyncio.Task[None]"]:
        if self._process is None or self._reader is None:
            raise WorkFailed("the training process was not started; use it as `async with TrainingProcess()`")
        return self._process, self._reader

    @staticmethod
    def _send(process: asyncio.subprocess.Process, request: dict[str, Any]) -> None:
        assert process.stdin is not None  # noqa: S101 - asked for in __aenter__
        if not process.stdin.is_closing():
            process.stdin.write(json.dumps(request).encode() + b"\n")

    async def _kill(
        self, process: asyncio.subprocess.Process, job_id: int, answer: "asyncio.Future[dict[str, Any]]"
    ) -> None:
        """Have a child killed and wait until it is gone."""
        self._send(process, {"kill": job_id})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(answer), GRACE_SECONDS)

    async def _read_answers(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - asked for in __aenter__
        while line := await process.stdout.readline():
            event = json.loads(line)
            answer = self._waiting.get(event["id"])
            if answer is not None and not answer.done():
                answer.set_result(event)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_result({"gone": True})

    def _result(self, job: TrainingJob, event: dict[str, Any]) -> TrainingResult:
        if "result" in event:
            return RESULT.validate_python(event["result"])
        if "gone" in event:
            raise WorkFailed(self._epitaph(job))
        failed = event["failed"]
        kind = getattr(errors, failed["type"], WorkFailed)
        if kind is WorkFailed or not issubclass(kind, MotetError):
            raise WorkFailed(f"training job '{job.kind}' {failed['message']}")
        raise kind(failed["message"])

    @staticmethod
    def _epitaph(job: TrainingJob) -> str:
        return f"training job '{job.kind}' was lost: the training process is gone; run the same command again"
