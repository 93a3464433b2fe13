"""A private PostgreSQL cluster, by Debian's packages, for one host's Prefect."""

import shutil
import subprocess
import tempfile
from pathlib import Path

USER = "postgres"  # PostgreSQL refuses to run as root


def programs():
    """Directory of the newest installed version's programs; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


class Cluster:
    """One database server on a host's own loopback, and on a socket in a directory of its own."""

    def __init__(self, *, inside):
        self.inside, self.process = inside, None
        self.root = Path(tempfile.mkdtemp(prefix="motet-postgresql-"))
        shutil.chown(self.root, USER)

    def start(self):
        data, password = self.root / "data", self.root / "password"
        password.write_text("prefect-of-one-site")
        shutil.chown(password, USER)
        self._as_user(
            "initdb", "-D", data, "-U", "prefect", "-A", "scram-sha-256", "--pwfile", password, "-E", "UTF8"
        )
        settings = ("listen_addresses=127.0.0.1", "port=5432", f"unix_socket_directories={self.root}")
        with (self.root / "log").open("w") as log:
            self.process = subprocess.Popen(
                [*self._user("postgres"), "-D", data, *(word for each in settings for word in ("-c", each))],
                stdout=log,
                stderr=log,
            )
        ready = "until pg_isready -q -h 127.0.0.1 -t 1; do sleep 0.1; done; createdb -h 127.0.0.1 -U prefect motet"
        self._run(*self.inside, "env", "PGPASSWORD=prefect-of-one-site", "timeout", "60", "sh", "-c", ready)
        return self

    @property
    def url(self):
        return "postgresql+asyncpg://prefect:prefect-of-one-site@127.0.0.1:5432/motet"

    def ask(self, query):
        done = self._run(
            *(*self.inside, "env", "PGPASSWORD=prefect-of-one-site"),
            *("psql", "-h", "127.0.0.1", "-U", "prefect", "-d", "motet", "-Atc", query),
        )
        return done.stdout.strip()

    def _user(self, program):
        return [
            *self.inside,
            "setpriv",
            f"--reuid={USER}",
            f"--regid={USER}",
            "--clear-groups",
            programs() / program,
        ]

    def _as_user(self, program, *words):
        self._run(*self._user(program), *words)

    @staticmethod
    def _run(*command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd="/")
        assert done.returncode == 0, done.stderr[-2000:]
        return done

    def close(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=60)
        shutil.rmtree(self.root)
