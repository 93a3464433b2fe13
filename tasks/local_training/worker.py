"""The template process: imports torch once, then forks one child per job.

Why: a fresh interpreter pays two CPU seconds and 220 MB for torch; a fork pays milliseconds and shares the
pages. A child can be killed for real, which a thread cannot. Runs: on the partner, as
``python -m tasks.local_training.worker PARENT_PID``. Source: own; prctl(2), fork(2), pidfd_open(2).

One JSON line per request on standard input: ``{"id", "job", "machine", "memory_limit_bytes"}`` or ``{"kill": id}``; one per
event on standard output: ``{"id", "result"}`` or ``{"id", "failed"}``. End of input ends all children.
No thread runs here, so fork is safe; standard input is read unbuffered, so no request hides from ``select``.
"""

import contextlib
import ctypes
import json
import os
import resource
import selectors
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd  # noqa: F401 - pyarrow imports it on first use, which no child should pay

from data_contracts.errors import MotetError
from tasks.local_training.jobs import JOB, RESULT, Machine
from tasks.local_training.training import train

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
READ_BLOCK = 65_536


@dataclass
class Child:
    """One running job: its process, and what it has answered so far."""

    job_id: int
    pid: int
    answer: bytearray = field(default_factory=bytearray)


def main() -> int:
    """Serve requests until standard input ends."""
    _harden(parent_pid=int(sys.argv[1]))
    requests = bytearray()
    children: dict[int, Child] = {}  # by the descriptor of the answer pipe
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                block = os.read(key.fd, READ_BLOCK)
                if key.fd != sys.stdin.fileno():
                    _on_answer(key.fd, block, children=children, selector=selector)
                elif not block:
                    _kill_all(children)
                    return 0
                else:
                    requests += block
                    *lines, rest = requests.split(b"\n")
                    requests = bytearray(rest)
                    for line in lines:
                        _on_request(json.loads(line), children=children, selector=selector)


def _on_request(
    request: dict[str, Any], *, children: dict[int, Child], selector: selectors.BaseSelector
) -> None:
    if "kill" in request:
        for child in children.values():
            if child.job_id == request["kill"]:
                _kill(child)
        return
    answer_in, answer_out = os.pipe()
    parent_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(answer_in)
        for descriptor in children:
            os.close(descriptor)
        _run_child(request, answer_out, parent_pid=parent_pid)
    os.close(answer_out)
    children[answer_in] = Child(request["id"], pid)
    selector.register(answer_in, selectors.EVENT_READ)


def _on_answer(
    descriptor: int, block: bytes, *, children: dict[int, Child], selector: selectors.BaseSelector
) -> None:
    """Collect a child's answer; at its end, reap the child and report."""
    child = children[descriptor]
    if block:
        child.answer += block
        return
    selector.unregister(descriptor)
    os.close(descriptor)
    del children[descriptor]
    _, status = os.waitpid(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        event = json.loads(child.answer)
    elif code < 0:
        event = {"failed": {"type": "WorkFailed", "message": f"was ended by {signal.Signals(-code).name}"}}
    else:
        event = {"failed": {"type": "WorkFailed", "message": f"ended with exit code {code}"}}
    line = json.dumps({"id": child.job_id, **event})
    os.write(sys.stdout.fileno(), line.encode() + b"\n")


def _run_child(request: dict[str, Any], answer_out: int, *, parent_pid: int) -> None:
    """Do one job in a session of its own; never returns."""
    code = 1
    try:
        os.setsid()
        _die_with_parent(parent_pid)
        _silence()
        _limit_memory(request.get("memory_limit_bytes"))
        answer = json.dumps(_answer(request["job"], request["machine"])).encode()
        while answer:
            answer = answer[os.write(answer_out, answer) :]
        code = 0
    finally:
        os._exit(code)


def _answer(job: Any, machine: Any) -> dict[str, Any]:
    """Do a job; a failure says what kind and where, never what the data was."""
    try:
        found = train(JOB.validate_python(job), machine=Machine.model_validate(machine))
        return {"result": RESULT.dump_python(found, mode="json")}
    except MotetError as error:
        return {"failed": {"type": type(error).__name__, "message": str(error)}}
    except MemoryError:
        return {"failed": {"type": "WorkFailed", "message": "ran out of memory"}}
    except Exception as error:  # noqa: BLE001 - the text of a foreign error may hold data, so only its kind leaves
        if "can't allocate memory" in str(error):  # torch's allocator raises RuntimeError
            return {"failed": {"type": "WorkFailed", "message": "ran out of memory"}}
        return {"failed": {"type": "WorkFailed", "message": f"failed with {_place_of(error)}"}}


def _place_of(error: BaseException) -> str:
    """Name an error's type and the last line of ours that it passed."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if f"{os.sep}tasks{os.sep}" in code.co_filename:
            place = f" in {Path(code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{place}"


def _harden(*, parent_pid: int) -> None:
    """Die with the parent, leave no core dump of private data, write files for the owner only."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(PR_SET_DUMPABLE, 0)
    _die_with_parent(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; it closes our standard input


def _die_with_parent(parent_pid: int) -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl refused")


def _silence() -> None:
    """Nothing that a library prints about its data leaves the child."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def _limit_memory(memory_limit_bytes: int | None) -> None:
    """Limit the address space to what the template has mapped already, plus the job's share."""
    if memory_limit_bytes is not None:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a kernel file
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        limit = mapped + memory_limit_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _kill(child: Child) -> None:
    """End a child and all that it started; it is not reaped yet, so its number is still its own."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):  # its group exists from setsid on
        os.killpg(child.pid, signal.SIGKILL)


def _kill_all(children: dict[int, Child]) -> None:
    for child in children.values():
        _kill(child)
        os.waitpid(child.pid, 0)


if __name__ == "__main__":
    sys.exit(main())
