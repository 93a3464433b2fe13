"""One site's MLflow store: SQLite and a directory of artifacts.

Why: MLflow's fluent state crosses no thread and guesses users, paths and git commits; here every call names
its store and its run. Runs: on every site, on its own store. Source: own; MLflow 3.17, whose file store is
closed and whose schema takes seconds and 300 statements: it is made aside and published in one step, because
MLflow cannot open one that a kill cut short.
"""

import contextlib
import fcntl
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data_contracts.errors import WorkFailed

SQLITE_MAGIC = b"SQLite format 3\0"
EXPERIMENT_KIND = "custom_model_development"  # else the interface opens the experiment as a chat application
_QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_PRINT_MODEL_URLS_ON_CREATION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def quiet_mlflow() -> None:
    """Switch off MLflow's telemetry, progress bars and own log format; to be called before it is imported."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


@dataclass(frozen=True)
class TrackingStore:
    """One site's MLflow store.

    Attributes:
        directory: Holds ``mlflow.db`` and ``artifacts``; absolute.
    """

    directory: Path

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.directory / "mlflow.db"

    @property
    def uri(self) -> str:
        """Address for an MLflow client or server."""
        return f"sqlite:///{self.database}"

    @property
    def artifacts(self) -> Path:
        """Directory of all artifacts."""
        return self.directory / "artifacts"

    @cached_property
    def client(self) -> Any:
        """The ``MlflowClient`` of this store; the first one makes the schema (seconds)."""
        quiet_mlflow()
        self.artifacts.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # MLflow 3.17 on SQLAlchemy 2.1
            from mlflow import MlflowClient

            with refusals("open the store"):
                _publish_schema(self)
                return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)


def _publish_schema(store: TrackingStore) -> None:
    """Make the database if there is none, so that it appears whole or not at all."""
    with (store.directory / ".opening.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if store.database.exists():
            _require_database(store.database)
        else:
            _make_schema(store.directory / ".unfinished.db", artifacts=store.artifacts).rename(store.database)


def _make_schema(path: Path, *, artifacts: Path) -> Path:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for remains in path.parent.glob(f"{path.name}*"):  # of a kill, with SQLite's journal
        remains.unlink()
    made = SqlAlchemyStore(f"sqlite:///{path}", str(artifacts))
    made.engine.dispose()
    return path


def _require_database(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(len(SQLITE_MAGIC))
    if head not in (b"", SQLITE_MAGIC):  # an empty file is an empty database
        raise WorkFailed(
            f"<home>/mlflow/{path.name} is no SQLite database",
            advice="move it away, so that a new one is made, or restore it from a backup",
        )


def open_store(home: Path) -> TrackingStore:
    """Open the MLflow store under a home, making it at first.

    Args:
        home: A site's home; the store lies in ``<home>/mlflow``.

    Raises:
        WorkFailed: If MLflow cannot use the store.
    """
    store = TrackingStore((home / "mlflow").resolve())
    store.client  # noqa: B018 - opens it
    return store


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn MLflow's errors into the tree's; its texts hold paths, so only the code is repeated.

    Raises:
        WorkFailed: If MLflow refuses.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as exc:
        raise WorkFailed(
            f"MLflow refused to {what} ({exc.error_code})",
            advice="see that nothing else holds <home>/mlflow/mlflow.db and that the disk has room, then run again",
        ) from exc


def experiment_id(store: TrackingStore, name: str) -> str:
    """Find an experiment, or make it.

    Args:
        store: The site's store.
        name: The study for the coordinator, ``<study>/<partner>`` for a partner on one machine.

    Returns:
        MLflow's id.
    """
    with refusals(f"open experiment '{name}'"):
        found = store.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(
            store.client.create_experiment(
                name,
                artifact_location=str(store.artifacts),
                tags={"mlflow.experimentKind": EXPERIMENT_KIND},
            )
        )
