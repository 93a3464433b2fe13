"""A Prefect database whose tables are there at once.

Why: a fresh server spends seven of its first twelve processor seconds on a hundred migrations that end in the same
empty tables. They lie here as text, as Prefect's own migrations left them; whatever comes after them the server migrates itself.
Runs: on every site, before its first Prefect server. Source: ``prefect server database upgrade``, Prefect 3.8.8 (Apache 2.0).

``python -m flows.prefect_database FILE`` writes the text anew from a database that ``prefect server database upgrade``
has made; a test compares the two.
"""

import contextlib
import os
import sqlite3
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

TABLES = Path(__file__).with_suffix(".sql")
DATABASE = "prefect.db"
CONNECTION_URL = "PREFECT_API_DATABASE_CONNECTION_URL"


def lay_out(prefect_home: Path) -> bool:
    """Make the database of a server that has never run.

    Nothing is done where there is one, where the server keeps its data elsewhere, or where the installed Prefect is
    another one: its server then migrates as ever. A crash leaves no half-made database.

    Args:
        prefect_home: The server's ``PREFECT_HOME``; created where it is not there.

    Returns:
        Whether a database was made.
    """
    place, tables = prefect_home / DATABASE, TABLES.read_text(encoding="utf-8")
    if CONNECTION_URL in os.environ or place.exists() or not tables.startswith(_header()):
        return False
    prefect_home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with TemporaryDirectory(dir=prefect_home, prefix=".part-") as scratch:
        made = Path(scratch) / DATABASE
        with contextlib.closing(sqlite3.connect(made)) as database:
            database.executescript(tables)
        made.chmod(0o600)
        with contextlib.suppress(FileExistsError):
            os.link(made, place)
            return True
    return False


def tables_of(database: Path) -> str:
    """The text of a database as this module keeps it."""
    with contextlib.closing(sqlite3.connect(database)) as opened:
        # One line for each statement; no literal among them holds more than single spaces.
        return "\n".join([_header(), *(" ".join(line.split()) for line in opened.iterdump()), ""])


def _header() -> str:
    return (
        f"-- Prefect {version('prefect')}, as `prefect server database upgrade` leaves an empty SQLite file"
    )


if __name__ == "__main__":
    TABLES.write_text(tables_of(Path(sys.argv[1])), encoding="utf-8")
