"""The arguments of ``motet run``, ``lead`` and ``search`` that say how a model is trained, and from what it starts.

Why: three commands ask for the same settings in the same words. Runs: anywhere. Source: own.
"""

import argparse
from pathlib import Path


def add_course(run: argparse.ArgumentParser) -> None:
    """Add what decides the course of a run: algorithm, phase, start, and a file of settings."""
    course = run.add_argument_group("course")
    course.add_argument(
        "--settings",
        dest="settings_file",
        type=Path,
        metavar="FILE",
        help="settings as YAML or JSON; options go first",
    )
    course.add_argument(
        "--algorithm",
        choices=("fedavg", "fedsgd"),
        help="average after local epochs (default), or sum the gradients of every minibatch as MELLODDY did",
    )
    course.add_argument(
        "--batch-ratio", type=float, help="fedsgd: share of its molecules in a minibatch (0.02)"
    )
    course.add_argument(
        "--loss-normalizer", type=float, help="fedsgd: what every partner divides a summed loss by (100000)"
    )
    course.add_argument(
        "--evaluate-every",
        type=int,
        help="score the model after every so many rounds (1; fedsgd: once an epoch)",
    )
    course.add_argument(
        "--phase",
        choices=("tune", "report", "final"),
        help="train on folds 1-3 and choose on 4; on 1-4 and report on 0; or on all (default: as tune, tested on 0)",
    )
    course.add_argument(
        "--rounds-from",
        metavar="RUN",
        help="settings and best round of a tuning run, or of a report for a final model",
    )
    course.add_argument(
        "--warm-start",
        metavar="RUN|models:/NAME@ALIAS",
        help="start from the model of an earlier run under this home",
    )


def add_search(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``motet search``."""
    command.add_argument(
        "space", type=Path, help="YAML: 'choices' by setting, 'method', and settings that stay"
    )
    command.add_argument("--name", required=True, help="name of the search; the same name resumes it")
    command.add_argument("--data", help="directory of an imported dataset, as `motet import` prints it")
    command.add_argument("--partners", type=int, help="number of simulated companies of the embedded data")
    command.add_argument("--seed", type=int, help="public seed of the split and of the training (default: 0)")
