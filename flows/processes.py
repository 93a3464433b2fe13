"""Processes that motet started: known by number and start time, stopped with all their children.

Why: a pid file alone may name a stranger after a reboot; here nothing is signalled that was not started by us.
Runs: on every site. Source: proc(5), field 22 of ``stat`` and ``boot_id``.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_contracts.errors import SettingsError
from tasks.exchange.durable_files import replace_whole

_PARENT, _START = 1, 19  # fields 4 and 22 of stat, counted behind the command's name
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for another one.

    Attributes:
        pid: Its number; also that of its process group.
        started: Its start in clock ticks since boot.
        boot: Identity of the boot.
        port: Its port on loopback; None if it listens on none.
    """

    pid: int
    started: int
    boot: str
    port: int | None

    def runs(self) -> bool:
        """Whether it still runs."""
        return self.boot == _boot() and _started(self.pid) == self.started


def identify(pid: int, *, port: int | None = None) -> Process | None:
    """Identify a living process; None if there is none."""
    started = _started(pid)
    return None if started is None else Process(pid, started, _boot(), port)


def write_record(path: Path, process: Process) -> None:
    """Write a process's record in one step."""
    replace_whole(path, [json.dumps(asdict(process)).encode()])


def read_record(path: Path) -> Process | None:
    """Read a record; None if there is none or it is damaged."""
    try:
        return Process(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def launch(command: Sequence[str], *, environment: Mapping[str, str], log: Path, detached: bool) -> int:
    """Start a process in a group of its own.

    Args:
        command: Program (an absolute path) and arguments.
        environment: Variables added to this process's own.
        log: File that its output is appended to.
        detached: True: it outlives this process. False: the kernel kills it when the calling thread ends.

    Returns:
        Its number; ``exit_code`` says whether it has ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    bound = [] if detached else [sys.executable, "-P", "-m", "flows.child", str(os.getpid())]
    return os.posix_spawn(
        [*bound, *command][0],
        [*bound, *command],
        {**os.environ, **environment},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def exit_code(pid: int) -> int | None:
    """Say how a child of this process ended, once; None while it runs."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if ended else None


def stop(process: Process, *, grace_seconds: float) -> None:
    """Stop a process, its group and all its descendants: SIGTERM, and after the grace SIGKILL.

    Args:
        process: One that motet started.
        grace_seconds: How long it may take to end by itself.
    """
    family = [process, *descendants(process)]
    if not process.runs():
        return
    _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while process.runs() and time.monotonic() < deadline:
        exit_code(process.pid)
        time.sleep(_POLL_SECONDS)
    for member in family:
        if member.runs():
            _signal(member, signal.SIGKILL)
    while any(member.runs() for member in family):
        exit_code(process.pid)
        time.sleep(_POLL_SECONDS)


def descendants(process: Process) -> list[Process]:
    """Find all living descendants of a process, whatever their group."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _fields(int(entry.name))) is not None:
            parents.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    found, frontier = [], [process.pid]
    while frontier:
        children = parents.get(frontier.pop(), [])
        frontier += children
        found += [member for pid in children if (member := identify(pid)) is not None]
    return found


def free_port() -> int:
    """Find a port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free(port: int, *, what: str, option: str) -> None:
    """Refuse a port that is taken.

    Raises:
        SettingsError: If somebody listens on it, or it may not be used.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise SettingsError(
                f"port {port} for {what} cannot be used: {exc.strerror}",
                advice=f"stop what listens there (`ss -ltnp 'sport = :{port}'`), or choose another with {option}",
            ) from None


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        if process.runs():
            send = os.killpg if os.getpgid(process.pid) == process.pid else os.kill
            send(process.pid, number)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started(pid: int) -> int | None:
    fields = _fields(pid)
    return None if fields is None or fields[0] == "Z" else int(fields[_START])


def _fields(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, IndexError):
        return None
