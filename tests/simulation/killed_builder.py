"""A builder that is killed at its Nth step: ``python killed_builder.py DIRECTORY STEP``."""

import os
import signal
import sys
from pathlib import Path

from tasks.simulation import datasets
from tests.simulation.test_datasets import build

steps = 0


def killing(function):
    def step(*arguments, **keywords):
        global steps  # noqa: PLW0603 - this program is one counter
        if steps == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
        return function(*arguments, **keywords)

    return step


if __name__ == "__main__":
    datasets.write_parquet = killing(datasets.write_parquet)
    datasets.replace_whole = killing(datasets.replace_whole)
    Path.rename = killing(Path.rename)
    build(Path(sys.argv[1]))
