"""One site's MLflow store: opened twice it is one, and what MLflow says about paths stays inside."""

import os
import signal
import subprocess
import sys

import pytest

from data_contracts.errors import WorkFailed
from tasks.tracking.store import EXPERIMENT_KIND, experiment_id, open_store


def test_an_experiment_is_made_once_and_shown_as_model_development(store):
    first = experiment_id(store, "qsar-training/partner-a")
    assert experiment_id(store, "qsar-training/partner-a") == first
    assert experiment_id(store, "qsar-training/partner-b") != first
    assert store.client.get_experiment(first).tags["mlflow.experimentKind"] == EXPERIMENT_KIND


def test_a_second_opening_sees_what_the_first_wrote(store):
    first = experiment_id(store, "study")
    again = open_store(store.directory.parent)
    assert experiment_id(again, "study") == first
    again.client._tracking_client.store.engine.dispose()


def test_two_sites_have_nothing_in_common(store, empty_home):
    other = open_store(empty_home)
    experiment_id(store, "study")
    assert other.client.get_experiment_by_name("study") is None
    assert not {other.uri, str(other.artifacts)} & {store.uri, str(store.artifacts)}


def test_a_relative_home_gives_absolute_addresses(store, monkeypatch):
    monkeypatch.chdir(store.directory.parent)
    opened = open_store(type(store.directory)())
    assert opened == store
    opened.client._tracking_client.store.engine.dispose()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mlflow").mkdir()
    database = tmp_path / "mlflow" / "mlflow.db"
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(WorkFailed, match="no SQLite database") as refused:
        open_store(tmp_path)
    assert str(tmp_path) not in str(refused.value)
    assert database.read_bytes() == b"no database" * 1000


# MLflow's schema is 334 statements; after this one its own migration cannot be run again.
HALFWAY = 90
KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tasks.tracking.store import open_store

def count(connection, cursor, statement, *rest):
    count.done += statement.lstrip().upper().startswith(("CREATE", "ALTER", "DROP"))
    if count.done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

count.done = 0
event.listen(Engine, "before_cursor_execute", count)
open_store(Path(sys.argv[1]))
"""


def test_kill_9_while_the_schema_is_made_leaves_no_store_and_the_next_opening_makes_it(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(HALFWAY)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "mlflow" / "mlflow.db").exists()
    opened = open_store(tmp_path)
    assert experiment_id(opened, "study") == experiment_id(opened, "study")
    opened.client._tracking_client.store.engine.dispose()
    assert sorted(path.name for path in opened.directory.iterdir()) == [
        ".opening.lock",
        "artifacts",
        "mlflow.db",
    ]


def test_the_first_use_switches_telemetry_off_before_mlflow_is_imported(empty_home):
    # In a process of its own, because here MLflow is imported already.
    program = """
import os, sys
from pathlib import Path
from tasks.tracking.store import open_store
assert "mlflow" not in sys.modules
open_store(Path(sys.argv[1]))
from mlflow.telemetry.utils import is_telemetry_disabled
print(os.environ["DO_NOT_TRACK"], is_telemetry_disabled())
"""
    environment = {"PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", program, str(empty_home)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "True"]
