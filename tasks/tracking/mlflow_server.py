"""MLflow's server as one process: ``python -m tasks.tracking.mlflow_server`` takes the options of ``mlflow server``.

Why: ``mlflow server`` imports all of MLflow, then starts the web server as a child and stays beside it doing nothing, with
240 MiB. Here it becomes that web server. Runs: on every site, started by `motet up`. Source: own; ``mlflow.server._run_server`` of MLflow 3 calls
``_exec_cmd``; should a later version not, the parent stays, and nothing else changes.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import mlflow.server
from mlflow.cli import cli


def become(command: Sequence[str], *, extra_env: Mapping[str, str], **_: Any) -> NoReturn:
    """Go on as another program, under the same process number."""
    os.execvpe(command[0], list(command), {**os.environ, **extra_env})  # noqa: S606 - MLflow's own command, no shell


if __name__ == "__main__":
    mlflow.server._exec_cmd = become  # noqa: SLF001 - it has no public way
    cli(["server", *sys.argv[1:]])
