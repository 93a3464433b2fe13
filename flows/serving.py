"""Serve registered deployments: wait for runs that are due, and start each in a process of its own.

Why: it waits for weeks, and what the flows import (tables, structures, numbers: 160 MB) belongs to the runs alone.
Runs: on every site; ``flows.deploying`` becomes it. Source: own; docs/decisions/0044.
"""

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
        """Register nothing again: what it knows of the parameters would replace the registered form of them."""
        return self.registered_as

    @override
    def apply(self, *_: Any, **__: Any) -> UUID:
        """As ``aapply``."""
        return self.registered_as


def main(arguments: list[str]) -> None:
    """Serve until stopped: ``python -m flows.serving REGISTERED``, a JSON list of what was registered."""
    (known,) = arguments
    serve(*TypeAdapter(list[Registered]).validate_json(known), pause_on_shutdown=False, limit=1)


if __name__ == "__main__":
    main(sys.argv[1:])
