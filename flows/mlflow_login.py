"""A password before MLflow's interface: asked for once a site has written one down.

Why: a partner's registry may be reached through a proxy by its own colleagues, and nobody else's. Without a
password file MLflow answers on loopback only, as it does everywhere else here. Runs: on every site.
Source: own; MLflow 3.17's ``basic-auth`` application, which needs Flask-WTF.
"""

import importlib.util
from pathlib import Path

from data_contracts.errors import SettingsError
from tasks.exchange.durable_files import replace_whole
from tasks.exchange.identity import secret_file

PASSWORD_FILE = "mlflow_password"  # noqa: S105 - a file name
USER = "admin"
FEWEST_CHARACTERS = 12


def login_options(home: Path) -> tuple[list[str], dict[str, str]]:
    """What MLflow's server is started with so that it asks for a password; nothing where there is no file.

    Args:
        home: The site's home; the password stands in ``<home>/keys/mlflow_password``.

    Returns:
        Arguments and environment variables.

    Raises:
        SettingsError: If others can read the password, it is too short, or the server cannot ask for one.
    """
    path = (home / "keys" / PASSWORD_FILE).resolve()
    if not path.exists():
        return [], {}
    if path.stat().st_mode & 0o077:
        raise SettingsError(f"secret file '{path.name}' is readable by others", advice=f"chmod go= {path}")
    password = path.read_text().strip()
    if len(password) < FEWEST_CHARACTERS:
        raise SettingsError(
            f"the password in keys/{path.name} has fewer than {FEWEST_CHARACTERS} characters",
            advice="write a longer one there",
        )
    if importlib.util.find_spec("flask_wtf") is None:
        raise SettingsError(
            "MLflow cannot ask for a password: Flask-WTF is not installed", advice="install motet[login]"
        )
    store = (home / "mlflow").resolve()
    written = (
        "[mlflow]\ndefault_permission = NO_PERMISSIONS\n"
        f"database_uri = sqlite:///{store / 'login.db'}\nadmin_username = {USER}\n"
    )
    replace_whole(store / "login.ini", [written.encode()])
    return ["--app-name", "basic-auth"], {
        "MLFLOW_AUTH_CONFIG_PATH": str(store / "login.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secret_file(home / "keys" / "mlflow_sessions").hex(),
    }
