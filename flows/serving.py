"""Serve the deployments of a home: wait for runs that are due, and start each in a process of its own.

Why: it waits for weeks; what the flows import (tables, structures, numbers: 160 MB) belongs to the process that registers
them, which ends, and to the runs. Runs: on every site, started by `motet up`. Source: own; docs/decisions/0044.
"""

import os
import subprocess
import sys
from typing import Any
from uuid import UUID

from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from pydantic import TypeAdapter
from typing_extensions import override


class Registered(RunnerDeployment):
    """A deployment that the site's Prefect knows already.

    Attributes:
        registered_as: Its id there.
    """

    registered_as: UUID

    @override
    async def aapply(self, *_: Any, **__: Any) -> UUID:
        """Register nothing again."""
        return self.registered_as


def registered(home: str) -> list[Registered]:
    """Have the deployments of a home registered, by a process that imports their flows and ends.

    Raises:
        CalledProcessError: If that process failed; it said why.
    """
    command = [sys.executable, "-P", "-m", "flows.deploying", home]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return TypeAdapter(list[Registered]).validate_json(done.stdout.splitlines()[-1])


def main(arguments: list[str]) -> None:
    """Serve until stopped: ``python -m flows.serving HOME``."""
    (home,) = arguments
    os.umask(0o077)
    try:
        found = registered(home)
    except subprocess.CalledProcessError as exc:
        sys.exit(exc.returncode)
    serve(*found, pause_on_shutdown=False, limit=1)


if __name__ == "__main__":
    main(sys.argv[1:])
