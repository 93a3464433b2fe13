"""One party's MLflow run: found again after a crash, one batch of metrics a round, files by name.

Why: a person compares runs in MLflow; a resumed run must continue there and no round may count twice.
Runs: on every site, on its own store. Source: own; ``log_batch`` costs a hundredth of single metrics.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data_contracts.errors import SettingsError, WorkFailed
from tasks.tracking.store import TrackingStore, experiment_id, refusals

MAX_METRICS = 1000  # of one batch, MLflow's own limit
_METRIC = re.compile(r"[a-z0-9_-]+(/[a-z0-9_.-]+)+")
_PARAMETER = re.compile(r"[a-z0-9_]+")
_SECRET = re.compile(r"seed|secret|(^|_)key(_|$)|password|token")
_NEUTRAL = {"mlflow.user": "motet", "mlflow.source.name": "motet", "mlflow.source.type": "LOCAL"}


@dataclass(frozen=True)
class TrackedRun:
    """One party's MLflow run.

    Attributes:
        store: The site's store.
        experiment: MLflow's id of the experiment.
        mlflow_run: MLflow's id of the run.
    """

    store: TrackingStore
    experiment: str
    mlflow_run: str

    def url(self, server: str) -> str:
        """Address of the run's page, given that of an MLflow server (``http://127.0.0.1:5000``)."""
        return f"{server.rstrip('/')}/#/experiments/{self.experiment}/runs/{self.mlflow_run}"


def open_run(
    store: TrackingStore,
    *,
    experiment: str,
    run_id: str,
    party: str,
    tags: Mapping[str, str] | None = None,
) -> TrackedRun:
    """Find a party's run by its tags, or make it; a stopped run is set running again.

    Args:
        store: The site's store.
        experiment: Name of the experiment.
        run_id: The federated run.
        party: ``coordinator`` or the partner.
        tags: Further tags, such as ``data.synthetic``; written at every call.

    Returns:
        The same run for the same store, experiment, run id and party.

    Raises:
        SettingsError: If the run id or party could not be searched for.
        WorkFailed: If MLflow refuses.
    """
    for value in (run_id, party):
        if not re.fullmatch(r"[A-Za-z0-9._-]+", value):
            raise SettingsError(
                f"'{value}' is no name for tracking, expected letters, digits, '.', '_' or '-'"
            )
    where = experiment_id(store, experiment)
    wanted = {**(tags or {}), "motet.run_id": run_id, "motet.party": party, **_NEUTRAL}
    with refusals(f"open run '{run_id}' of '{party}'"):
        found = store.client.search_runs(
            [where],
            filter_string=f"tags.motet.run_id = '{run_id}' and tags.motet.party = '{party}'",
            max_results=1,
        )
        if not found:
            made = store.client.create_run(where, tags=wanted, run_name=f"{run_id}/{party}")
            return TrackedRun(store, where, made.info.run_id)
        run = TrackedRun(store, where, found[0].info.run_id)
        if found[0].info.status != "RUNNING":
            store.client.update_run(run.mlflow_run, status="RUNNING")
    set_tags(run, wanted)
    return run


def log_round(
    run: TrackedRun, metrics: Mapping[str, float | None], *, round_number: int, time_ms: int
) -> None:
    """Log one round's metrics in one transaction; keys that this round already has are left alone.

    Args:
        run: The party's run.
        metrics: ``group/name`` to a finite number; None means that nothing could be measured, and is left out.
        round_number: The round; MLflow's step.
        time_ms: Milliseconds since 1970, UTC.

    Raises:
        WorkFailed: If a value is not finite, a name has no group, or MLflow refuses.
    """
    from mlflow.entities import Metric

    measured = {name: float(value) for name, value in metrics.items() if value is not None}
    for name, value in measured.items():
        if not _METRIC.fullmatch(name):
            raise WorkFailed(f"metric '{name}' of round {round_number} has no name of the form group/name")
        if not math.isfinite(value):
            raise WorkFailed(
                f"metric '{name}' of round {round_number} is {value}, expected a finite number",
                advice="training diverged: lower the learning rate or the clip",
            )
    with refusals(f"log round {round_number}"):
        present = _already_logged(run, set(measured), step=round_number)
        batch = [
            Metric(name, value, time_ms, round_number)
            for name, value in sorted(measured.items())
            if name not in present
        ]
        for start in range(0, len(batch), MAX_METRICS):
            run.store.client.log_batch(run.mlflow_run, metrics=batch[start : start + MAX_METRICS])


def _already_logged(run: TrackedRun, names: set[str], *, step: int) -> set[str]:
    known = names & set(run.store.client.get_run(run.mlflow_run).data.metrics)
    return {
        name
        for name in known
        if any(metric.step == step for metric in run.store.client.get_metric_history(run.mlflow_run, name))
    }


def log_parameters(run: TrackedRun, parameters: Mapping[str, str | int | float | bool]) -> None:
    """Log what a run computes; once, and the same again is a no-op.

    Args:
        run: The party's run.
        parameters: Plain names to plain values; no seed, key or path.

    Raises:
        SettingsError: If a name or value could reveal a seed, key or path, or differs from what was logged.
    """
    from mlflow.entities import Param

    for name, value in parameters.items():
        if not _PARAMETER.fullmatch(name) or _SECRET.search(name) or str(value).startswith(("/", "~")):
            raise SettingsError(f"parameter '{name}' may not be tracked: no seed, key or path leaves a site")
    logged = run.store.client.get_run(run.mlflow_run).data.params
    changed = sorted(name for name, value in parameters.items() if logged.get(name, str(value)) != str(value))
    if changed:
        raise SettingsError(
            f"the run was tracked with other values of {changed}",
            advice="a run keeps its settings: start another with --fresh",
        )
    fresh = [Param(name, str(value)) for name, value in sorted(parameters.items()) if name not in logged]
    with refusals("log parameters"):
        run.store.client.log_batch(run.mlflow_run, params=fresh)


def set_tags(run: TrackedRun, tags: Mapping[str, str]) -> None:
    """Set tags of a run, such as ``prefect.flow_run_id`` and ``prefect.flow_run_url``."""
    from mlflow.entities import RunTag

    with refusals("set tags"):
        run.store.client.log_batch(run.mlflow_run, tags=[RunTag(key, value) for key, value in tags.items()])


def log_files(run: TrackedRun, files: Mapping[str, Path]) -> None:
    """Copy files into the run; a file of the same name is replaced.

    Args:
        run: The party's run.
        files: Directory inside the run and name (``pictures/uplift.png``) to the file; the suffixes must agree.

    Raises:
        SettingsError: If a name leads out of the run.
        WorkFailed: If MLflow refuses.
    """
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        for name, path in files.items():
            inside = Path(name)
            if inside.is_absolute() or ".." in inside.parts:
                raise SettingsError(f"artifact '{name}' leads out of the run")
            link = Path(scratch) / inside.name
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve(strict=True))
            folder = None if inside.parent == Path() else inside.parent.as_posix()
            with refusals(f"log file '{name}'"):
                run.store.client.log_artifact(run.mlflow_run, str(link), folder)


def end_run(run: TrackedRun, *, succeeded: bool) -> None:
    """Mark a run as finished or failed; ``open_run`` sets it running again."""
    with refusals("end the run"):
        run.store.client.set_terminated(run.mlflow_run, "FINISHED" if succeeded else "FAILED")
