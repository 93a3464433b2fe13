"""The database that a fresh Prefect server finds is the one that it would have made itself."""

import os
import re
import sqlite3
import subprocess
import sys

import pytest

from flows import prefect_database
from flows.prefect_database import DATABASE, lay_out, tables_of


def statements(text):
    """Statements as bags of words: migrations put the constraints of a table in another order each time."""
    return sorted(sorted(re.findall(r"\w+|\S", line)) for line in text.splitlines())


@pytest.mark.timeout(180)
def test_the_tables_are_those_that_prefect_migrates_to(tmp_path):
    made = tmp_path / "migrated.db"
    subprocess.run(
        [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"],
        env={
            **os.environ,
            "PREFECT_HOME": str(tmp_path),
            "DO_NOT_TRACK": "1",
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{made}",
        },
        check=True,
        capture_output=True,
    )
    assert statements(tables_of(made)) == statements(prefect_database.TABLES.read_text(encoding="utf-8"))


def test_a_database_is_laid_out_once_and_private(tmp_path):
    home = tmp_path / "prefect"
    assert lay_out(home)
    assert [path.name for path in home.iterdir()] == [DATABASE]
    assert (home / DATABASE).stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(home / DATABASE) as database:
        database.execute("DELETE FROM alembic_version")
    before = tables_of(home / DATABASE)
    assert not lay_out(home)
    assert tables_of(home / DATABASE) == before


def test_a_server_of_another_version_makes_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(prefect_database, "version", lambda _: "3.9.0")
    assert not lay_out(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["SERVER", "API"])
def test_so_does_one_that_keeps_its_data_elsewhere(tmp_path, monkeypatch, kind):
    monkeypatch.setenv(f"PREFECT_{kind}_DATABASE_CONNECTION_URL", "postgresql+asyncpg://localhost/prefect")
    assert not lay_out(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_write_ahead_log_that_was_left_is_never_replayed_into_new_tables(tmp_path):
    (tmp_path / f"{DATABASE}-wal").write_bytes(b"left by a kill")
    assert not lay_out(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{DATABASE}-wal"]


def test_a_start_after_a_kill_leaves_no_scrap(tmp_path):
    (tmp_path / ".part-x").mkdir()
    (tmp_path / ".part-x" / DATABASE).write_bytes(b"half")
    assert lay_out(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [DATABASE]


def test_where_sqlite_cannot_write_the_server_says_what_is_wrong(tmp_path, monkeypatch):
    def full(_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(prefect_database.sqlite3, "connect", full)
    assert not lay_out(tmp_path)
    assert list(tmp_path.iterdir()) == []
