"""Prefect, MLflow and the served deployment as managed processes on loopback.

Why: one command must give a person both interfaces, and no server may outlive what needs it. Runs: on every site.
Source: own; Prefect's own temporary server stays behind when its client is killed (background/prefect_mlflow.md §3).
"""

import contextlib
import fcntl
import functools
import http.client
import importlib.util
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from data_contracts.errors import SettingsError, WorkFailed
from flows import processes
from flows.mlflow_login import login_options
from flows.prefect_database import lay_out
from flows.prefect_environment import client_environment, server_environment
from flows.processes import Process
from flows.site_settings import role_at
from tasks.tracking.store import open_store

PREFECT_PORT = 4200
MLFLOW_PORT = 5000
STARTUP_SECONDS = 120.0
GRACE_SECONDS = 10.0
DEPLOYMENT = "consortium/single-machine"
CALM_SERVER = "flows.prefect_server:create_app"  # of a site, which idles for weeks
OWN_SERVER = "prefect.server.api.server:create_app"  # of one run
WITHOUT_FLOWS = {
    "mailbox": "run: motet mailbox --home HOME",
    "auditor": "run: motet verify fetch --home HOME",
}
SERVICES = ("prefect", "mlflow", "serve")  # in the order in which they start
_POLL_SECONDS = 0.1

Meanwhile = Callable[[Mapping[str, str]], object]


@dataclass(frozen=True)
class PrefectServer:
    """A healthy Prefect server.

    Attributes:
        process: Its process.
        environment: Variables that a flow's process needs, to be set before Prefect is imported.
        ours: True if this process started it and will stop it.
    """

    process: Process
    environment: dict[str, str]
    ours: bool

    @property
    def url(self) -> str:
        """Address of its interface."""
        return f"http://127.0.0.1:{self.process.port}"


@dataclass(frozen=True)
class Service:
    """One service as it stands.

    Attributes:
        name: ``prefect``, ``mlflow`` or ``serve``.
        state: ``running``, ``not answering``, or ``stopped``.
        pid: Its process; None if stopped.
        url: Address of its interface; None if stopped or without one.
        log: File of its output.
    """

    name: str
    state: str
    pid: int | None
    url: str | None
    log: Path


@dataclass(frozen=True)
class Outcome:
    """What `up` or `down` did.

    Attributes:
        changed: Services that were started or stopped now.
        services: All services as they stand after it.
    """

    changed: tuple[str, ...]
    services: tuple[Service, ...]


@contextlib.contextmanager
def prefect_server(home: Path, *, meanwhile: Meanwhile = lambda _: None) -> Iterator[PrefectServer]:
    """Have a healthy Prefect server: the one that `up` started, or a child that ends with this block or process.

    To be called in the main thread: the kernel ends the child when the thread that started it ends.

    Args:
        home: The site's home.
        meanwhile: Called once with the environment that flows need, while the server starts: set it, and import what
            takes seconds.

    Yields:
        The server.

    Raises:
        WorkFailed: If it does not start.
    """
    lasting = _running(home, "prefect")
    if lasting is not None and _answers(_health("prefect", lasting)):
        server = _prefect(home, lasting, ours=False)
        meanwhile(server.environment)
        yield server
        return
    with _starting(home):
        process = _start_prefect(home, port=processes.free_port(), detached=False, meanwhile=meanwhile)
    try:
        yield _prefect(home, process, ours=True)
    finally:
        processes.stop(process, grace_seconds=GRACE_SECONDS)


def up(home: Path, *, prefect_port: int = PREFECT_PORT, mlflow_port: int = MLFLOW_PORT) -> Outcome:
    """Start Prefect, MLflow and the process that serves the deployment; what runs already is left alone.

    Args:
        home: The site's home.
        prefect_port: Port of Prefect on loopback.
        mlflow_port: Port of MLflow on loopback.

    Returns:
        What was started.

    Raises:
        SettingsError: If a port is taken, or the home is a mailbox's, which serves no flow.
        WorkFailed: If a service does not start.
    """
    if (role := role_at(home)) in WITHOUT_FLOWS:
        raise SettingsError(
            f"a{'n' if role == 'auditor' else ''} {role} has no Prefect and no MLflow",
            advice=WITHOUT_FLOWS[role],
        )
    started = []
    with _starting(home):
        starts: dict[str, Callable[[], Process]] = {
            "prefect": lambda: _start_prefect(home, port=prefect_port, detached=True),
            "mlflow": lambda: _start_mlflow(home, port=mlflow_port),
            "serve": lambda: _start_serving(home),
        }
        for name in SERVICES:
            if _running(home, name) is None:
                processes.write_record(_record(home, name), starts[name]())
                started.append(name)
    return Outcome(tuple(started), status(home))


def down(home: Path) -> Outcome:
    """Stop what `up` started, with all children; nothing else is touched."""
    stopped = []
    with _starting(home):
        for name in reversed(SERVICES):
            process = _running(home, name)
            if process is not None:
                processes.stop(process, grace_seconds=GRACE_SECONDS)
                stopped.append(name)
            _record(home, name).unlink(missing_ok=True)
    return Outcome(tuple(stopped), status(home))


def status(home: Path) -> tuple[Service, ...]:
    """Say how each service stands."""
    return tuple(_describe(home, name) for name in SERVICES)


def prefect_address(home: Path) -> str:
    """Address of Prefect's interface: where it runs, or where `up` would start it."""
    process = _running(home, "prefect")
    return f"http://127.0.0.1:{PREFECT_PORT if process is None else process.port}"


def deployment_of(home: Path) -> str:
    """Name of the deployment that `up` serves: the flow's, and its own."""
    role = role_at(home)
    return f"{role}/site" if role else DEPLOYMENT


def mlflow_address(home: Path) -> str:
    """Address of MLflow's interface: where it runs, or where `up` would start it."""
    process = _running(home, "mlflow")
    return f"http://127.0.0.1:{MLFLOW_PORT if process is None else process.port}"


def _describe(home: Path, name: str) -> Service:
    process, log = _running(home, name), _log(home, name)
    if process is None:
        return Service(name, "stopped", None, None, log)
    url = None if process.port is None else f"http://127.0.0.1:{process.port}"
    healthy = url is None or _answers(_health(name, process))
    return Service(name, "running" if healthy else "not answering", process.pid, url, log)


def _prefect(home: Path, process: Process, *, ours: bool) -> PrefectServer:
    assert process.port is not None  # noqa: S101 - every server has one
    return PrefectServer(process, client_environment(home, port=process.port), ours)


def _start_prefect(
    home: Path, *, port: int, detached: bool, meanwhile: Meanwhile = lambda _: None
) -> Process:
    processes.require_free(port, what="Prefect", option="--prefect-port")
    found = importlib.util.find_spec("prefect")  # finds it without importing it
    assert found is not None  # noqa: S101 - a dependency of this package
    assert found.origin is not None  # noqa: S101 - a dependency of this package
    command = [
        *(sys.executable, "-P", "-m", "uvicorn", "--app-dir", str(Path(found.origin).parent.parent)),
        *("--factory", CALM_SERVER if detached else OWN_SERVER, "--lifespan", "on"),
        *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"),
    ]
    environment = server_environment(home, port=port, for_one_run=not detached)
    lay_out(Path(environment["PREFECT_HOME"]))
    return _start(
        home,
        "prefect",
        command,
        environment=environment,
        port=port,
        detached=detached,
        meanwhile=lambda: meanwhile(client_environment(home, port=port)),
    )


def _start_mlflow(home: Path, *, port: int) -> Process:
    processes.require_free(port, what="MLflow", option="--mlflow-port")
    store = (home / "mlflow").resolve()
    if not (store / "mlflow.db").exists():
        open_store(home)  # makes the schema aside: a server that is killed while it does so ruins the file
    asks, login = login_options(home)
    command = [
        *(sys.executable, "-P", "-m", "tasks.tracking.mlflow_server", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"),
        *("--artifacts-destination", str(store / "artifacts")),
        *("--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"),
        *asks,
    ]
    environment = login | {
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # else eight more processes for chat evaluations
        "MLFLOW_ENABLE_AI_GATEWAY": "false",  # it would carry what a page holds to language models elsewhere
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "none",  # and these to any address
    }
    return _start(home, "mlflow", command, environment=environment, port=port, detached=True)


def _start_serving(home: Path) -> Process:
    prefect = _running(home, "prefect")
    assert prefect is not None  # noqa: S101 - started before
    assert prefect.port is not None  # noqa: S101 - a server has one
    deployment = f"http://127.0.0.1:{prefect.port}/api/deployments/name/{deployment_of(home)}"
    since = datetime.now(UTC) + timedelta(seconds=2)  # importing the flows takes longer
    return _start(
        home,
        "serve",
        [sys.executable, "-P", "-m", "flows.deploying", str(home.resolve())],
        environment=client_environment(home, port=prefect.port),
        port=None,
        detached=True,
        works=lambda: _is_served(deployment, since=since),
    )


def _start(
    home: Path,
    name: str,
    command: list[str],
    *,
    environment: dict[str, str],
    port: int | None,
    detached: bool,
    works: Callable[[], bool] | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Process:
    log = _log(home, name)
    pid = processes.launch(command, environment=environment, log=log, detached=detached)
    process = processes.identify(pid, port=port)
    ended = processes.exit_code(pid)
    if process is not None and ended is None:
        try:
            meanwhile()
            works = works or functools.partial(_answers, _health(name, process))
            deadline = time.monotonic() + STARTUP_SECONDS
            while ended is None and time.monotonic() < deadline:
                if works():
                    return process
                time.sleep(_POLL_SECONDS)
                ended = processes.exit_code(pid)
        except BaseException:
            processes.stop(process, grace_seconds=0)
            raise
        processes.stop(process, grace_seconds=GRACE_SECONDS)
    how = (
        f"no answer within {STARTUP_SECONDS:.0f} seconds" if ended is None else f"it ended with code {ended}"
    )
    raise WorkFailed(
        f"{name} did not start: {how}",
        advice=f"read the last lines of {log}, then run the same command again",
    )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own loopback address
            return bool(answer.status == 200)  # noqa: PLR2004 - HTTP OK
    except (OSError, urllib.error.HTTPError):
        return False


def _is_served(deployment: str, *, since: datetime) -> bool:
    """Whether somebody has asked for a deployment's due runs since then: that it is registered, it may be from before.

    Prefect writes down that somebody asked up to two seconds later, so the time must lie as long after the launch.
    """
    try:
        with urllib.request.urlopen(deployment, timeout=5) as answer:  # noqa: S310 - our own loopback address
            polled = json.load(answer)["last_polled"]
            return polled is not None and datetime.fromisoformat(polled) > since
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return False


def _health(name: str, process: Process) -> str:
    path = "/api/health" if name == "prefect" else "/health"
    return f"http://127.0.0.1:{process.port}{path}"


def _running(home: Path, name: str) -> Process | None:
    process = processes.read_record(_record(home, name))
    return process if process is not None and process.runs() else None


@contextlib.contextmanager
def _starting(home: Path) -> Iterator[None]:
    """Let one process at a time start or stop services; two would make the same database at once."""
    directory = _directory(home)
    directory.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + STARTUP_SECONDS
    with (directory / "lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SettingsError(
                        f"another motet has been starting or stopping services under '{home}' for too long",
                        advice="see `motet status`, end it, and run the same command again",
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield


def _directory(home: Path) -> Path:
    return (home / "services").resolve()


def _record(home: Path, name: str) -> Path:
    return _directory(home) / f"{name}.json"


def _log(home: Path, name: str) -> Path:
    return _directory(home) / f"{name}.log"
