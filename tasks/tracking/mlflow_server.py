"""MLflow's server as one process that runs no commands: ``python -m tasks.tracking.mlflow_server`` takes the options of ``mlflow server``.

Why: ``mlflow server`` imports all of MLflow, then starts the web server as a child and stays beside it doing nothing, with
240 MiB; and that web server has an assistant. Here it becomes ``mlflow_app``, which has none. Runs: on every site, started by `motet up`. Source: own;
``mlflow.server._run_server`` of MLflow 3 calls ``_exec_cmd`` with uvicorn's command line; whatever else it would start is refused.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import mlflow.server
from mlflow.cli import cli


def become(command: Sequence[str], *, extra_env: Mapping[str, str], **_: Any) -> NoReturn:
    """Go on as the web server, under the same process number."""
    program = ["-m", "uvicorn"]
    if list(command[1:3]) != program:
        sys.exit(
            f"this MLflow starts '{command[1:3]}' where motet expects '{program}'; install the version that motet pins"
        )
    served = [sys.executable, "-P", "-m", "tasks.tracking.mlflow_app", *command[3:]]
    os.execvpe(served[0], served, {**os.environ, **extra_env})  # noqa: S606 - MLflow's own options, no shell


if __name__ == "__main__":
    if not hasattr(mlflow.server, "_exec_cmd"):
        sys.exit("this MLflow starts its web server in another way; install the version that motet pins")
    mlflow.server._exec_cmd = become  # noqa: SLF001 - it has no public way
    cli(["server", *sys.argv[1:]])
