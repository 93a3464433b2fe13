"""A Prefect database whose tables are there at once.

Why: a fresh server spends seven of its first twelve processor seconds on a hundred migrations that end in the same
empty tables. They lie here as text, as Prefect's own migrations left them; whatever comes after them the server migrates itself.
Runs: on every site, before its first Prefect server. Source: ``prefect server database upgrade``, Prefect 3.8.8 (Apache 2.0).

``python -m flows.prefect_database FILE`` writes the text anew from a database that ``prefect server database upgrade``
has made; a test compares the two.
"""

import contextlib
import os
import shutil
import sqlite3
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.exchange.durable_files import SCRAP_PREFIX

TABLES = Path(__file__).with_suffix(".sql")
DATABASE = "prefect.db"
SETTINGS_OF_A_DATABASE = ("PREFECT_SERVER_DATABASE_", "PREFECT_API_DATABASE_")


def lay_out(prefect_home: Path) -> bool:
    """Make the database of a server that has never run.

    Nothing is done where there is one or what is left of one (a write-ahead log would be replayed into the new file),
    where the server keeps its data elsewhere, where the installed Prefect is another one, or where SQLite cannot write:
    the server then migrates as ever, or says what is wrong. A crash leaves no half-made database.

    Args:
        prefect_home: The server's ``PREFECT_HOME``; created where it is not there.

    Returns:
        Whether a database was made.
    """
    tables = TABLES.read_text(encoding="utf-8")
    is_elsewhere = any(name.startswith(SETTINGS_OF_A_DATABASE) for name in os.environ)
    if is_elsewhere or any(prefect_home.glob(f"{DATABASE}*")) or not tables.startswith(_header()):
        return False
    prefect_home.mkdir(parents=True, exist_ok=True, mode=0o700)
    for scrap in prefect_home.glob(f"{SCRAP_PREFIX}*"):  # of a start that was killed
        shutil.rmtree(scrap, ignore_errors=True)
    with TemporaryDirectory(dir=prefect_home, prefix=SCRAP_PREFIX) as scratch:
        made = Path(scratch) / DATABASE
        try:
            with contextlib.closing(sqlite3.connect(made)) as database:
                database.executescript(tables)
        except sqlite3.Error:  # a full disk, say
            return False
        made.chmod(0o600)
        with contextlib.suppress(FileExistsError):
            os.link(made, prefect_home / DATABASE)
            return True
    return False


def tables_of(database: Path) -> str:
    """The text of a database as this module keeps it."""
    with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as opened:
        # One line for each statement; no literal among them holds more than single spaces.
        return "\n".join([_header(), *(" ".join(line.split()) for line in opened.iterdump()), ""])


def _header() -> str:
    return (
        f"-- Prefect {version('prefect')}, as `prefect server database upgrade` leaves an empty SQLite file"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 - the program and its one argument
        sys.exit("usage: python -m flows.prefect_database FILE")
    TABLES.write_text(tables_of(Path(sys.argv[1])), encoding="utf-8")
