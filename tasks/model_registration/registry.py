"""Where a registered model lies: read from MLflow's database without importing MLflow.

Why: `motet predict` answers in a second; MLflow takes longer than that to import. Runs: anywhere.
Source: own; MLflow 3.17 schema, opened read-only.
"""

import contextlib
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from data_contracts.errors import SettingsError

_NAME = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(@(?P<alias>[A-Za-z0-9._-]+)|/(?P<version>[1-9][0-9]*))?")
DEFAULT_ALIASES = ("champion", "challenger")


@dataclass(frozen=True)
class StoredVersion:
    """A version as the registry knows it.

    Attributes:
        name: Registered model.
        version: Its number.
        bundle: Directory of card, weights and sources.
        card_sha256: Digest of the card's canonical JSON at registration.
    """

    name: str
    version: int
    bundle: Path
    card_sha256: str


def find_version(database: Path, model: str) -> StoredVersion:
    """Find a registered version.

    Args:
        database: ``<home>/mlflow/mlflow.db``.
        model: ``NAME``, ``NAME@ALIAS`` or ``NAME/VERSION``. A bare name is its champion, else its challenger.

    Raises:
        SettingsError: If there is no such registry, model, alias or version.
    """
    asked = _NAME.fullmatch(model)
    if asked is None:
        raise SettingsError(
            f"'{model}' names no model; expected NAME, NAME@ALIAS, NAME/VERSION, or a directory"
        )
    if not database.is_file():
        raise SettingsError(
            f"there is no model registry under '{database.parent.parent}'",
            advice="name the home of the run with --home, or make a model with `motet run`",
        )
    name = asked["name"]
    with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as reader:
        version = int(asked["version"]) if asked["version"] else _aliased(reader, name, asked["alias"])
        return _stored(reader, name, version)


def _aliased(reader: sqlite3.Connection, name: str, alias: str | None) -> int:
    rows = dict(
        reader.execute(
            "SELECT alias, version FROM registered_model_aliases WHERE name = ?", [name]
        ).fetchall()
    )
    for wanted in [alias] if alias else DEFAULT_ALIASES:
        if wanted in rows:
            return int(rows[wanted])
    names = [row[0] for row in reader.execute("SELECT name FROM registered_models ORDER BY name")]
    if name not in names:
        raise SettingsError(f"there is no model '{name}'; registered are: {', '.join(names) or 'none'}")
    raise SettingsError(
        f"model '{name}' has no alias '{alias or 'champion'}'; it has: {sorted(rows) or 'none'}"
    )


def _stored(reader: sqlite3.Connection, name: str, version: int) -> StoredVersion:
    row = reader.execute(
        "SELECT storage_location, source FROM model_versions WHERE name = ? AND version = ?", [name, version]
    ).fetchone()
    tag = reader.execute(
        "SELECT value FROM model_version_tags WHERE name = ? AND version = ? AND key = 'motet.card_sha256'",
        [name, version],
    ).fetchone()
    if row is None or tag is None:
        raise SettingsError(f"model '{name}' has no version {version} that motet registered")
    return StoredVersion(name, version, Path(row[0] or row[1]) / "artifacts" / "bundle", str(tag[0]))
