"""The arguments of ``motet run``, ``lead`` and ``search`` that say how a model is trained, and from what it starts.

Why: three commands ask for the same settings in the same words. Runs: anywhere. Source: own.
"""

import argparse
from pathlib import Path
from typing import Any


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


def add_training(run: argparse.ArgumentParser) -> None:
    """Network, local training, server and secure sum."""
    run.add_argument_group("preparation").add_argument(
        "--profile", help="how data is prepared: simple (default), melloddy, or a YAML file of your own rules"
    )
    learning = run.add_argument_group("training")
    learning.add_argument(
        "--seed", type=int, help="public seed of the split and of the training (default: 0)"
    )
    learning.add_argument("--rounds", type=int, help="rounds of federated training")
    learning.add_argument(
        "--local-epochs", type=int, help="passes over its data that a partner makes in a round"
    )
    learning.add_argument("--hidden", type=int, help="width of the shared trunk")
    learning.add_argument("--layers", type=int, help="residual layers of the trunk (default: 0)")
    learning.add_argument("--learning-rate", type=float, help="Adam's, on the partner")
    learning.add_argument(
        "--learning-rate-decay", type=float, help="factor on the learning rate from round to round"
    )
    learning.add_argument(
        "--proximal", type=float, help="pull of local training towards the shared trunk (FedProx)"
    )
    _add_server(learning)


def _add_server(learning: Any) -> None:
    learning.add_argument(
        "--server-optimizer",
        choices=("average", "momentum", "adam", "yogi"),
        help="what the server makes of the mean update (default: average)",
    )
    learning.add_argument("--server-learning-rate", type=float, help="factor on the server's step")
    learning.add_argument(
        "--patience", type=int, help="end after so many rounds without a better validation AUPRC"
    )
    learning.add_argument(
        "--round-deadline-seconds",
        type=float,
        metavar="S",
        help="how long each phase of a round waits for partners that do not answer (default: 3600)",
    )
    learning.add_argument("--dropout", type=float, help="share of hidden units dropped while training")
    learning.add_argument("--batch-size", type=int, help="molecules in a minibatch")
    learning.add_argument(
        "--baselines",
        nargs="*",
        choices=("logistic", "boosted"),
        help="what each partner's report sets beside the networks (default: logistic; boosted needs LightGBM)",
    )
    learning.add_argument("--ring-bits", type=int, choices=(16, 32), help="ring of the masked update")
    learning.add_argument("--value-bits", type=int, help="bits of a quantized coordinate")
    learning.add_argument(
        "--no-catalogue-heads",
        dest="catalogue_heads",
        action="store_false",
        default=None,
        help="keep every head row private, also those of endpoints that enough companies train",
    )


def add_machine(command: argparse.ArgumentParser) -> None:
    """What trains and scores: a local matter, which changes no plan."""
    machine = command.add_argument_group("machine")
    machine.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where networks are computed (default: auto, which takes CUDA where there is one)",
    )
    machine.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of matrix products; all that leaves the device is float32 (default: float32)",
    )
