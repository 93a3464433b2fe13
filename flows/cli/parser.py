"""All commands and their arguments, with an example each.

Why: in one place a person sees what motet can be asked. Runs: anywhere. Source: own.
"""

import argparse
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flows.cli.data_parser import add_dask, add_data_commands, add_own_formats
from flows.cli.people_parser import add_steward_commands
from flows.cli.sites_parser import add_site_commands
from flows.cli.training_parser import add_course, add_machine, add_search, add_training

DEFAULT_HOME = Path("motet-home")


def _example(text: str) -> dict[str, Any]:
    return {"epilog": f"example:\n  {text}", "formatter_class": argparse.RawDescriptionHelpFormatter}


def shared_options(*, of_act: bool = False) -> argparse.ArgumentParser:
    """Make the options that every command has; those of an act leave alone what was said before it."""
    keep: dict[str, Any] = {"default": argparse.SUPPRESS} if of_act else {}
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--json", action="store_true", help="print one JSON object on the last line of the output", **keep
    )
    shared.add_argument(
        "--verbose",
        action="store_true",
        help="show the full log, and tracebacks of unexpected errors",
        **keep,
    )
    shared.add_argument(
        "--home",
        type=Path,
        help="where runs, models and services live (default: ./motet-home)",
        **({"default": DEFAULT_HOME} | keep),
    )
    return shared


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``motet``; imports nothing heavy."""
    shared = shared_options()
    parser = argparse.ArgumentParser(
        prog="motet",
        description="Rival companies train one model together; every record stays behind its owner's firewall.",
        **_example(
            "motet run              # four simulated companies, real molecules, ends with registered models"
        ),
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands, shared)
    text = (
        "try settings in tuning runs, for the federation and for every partner alone, and write down the best"
    )
    example = "motet search space.yaml --name first-search"
    add_search(_add(commands, shared, "search", text, handler="flows.cli.search:search", example=example))
    _add_import(commands, shared)
    _add_predict(commands, shared)
    _add_contracts(commands, shared)
    _add_verify(commands, shared)
    add_data_commands(commands, shared, _add)
    _add_services(commands, shared)
    of_act = shared_options(of_act=True)
    add_site_commands(commands, shared, _add, of_act=of_act)
    add_steward_commands(commands, shared, _add, of_act=of_act)
    _add(
        commands,
        shared,
        "runs",
        "list the runs under this home",
        handler="flows.cli.runs:runs",
        example="motet runs --json",
    )
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command; structures may stand before and behind options."""
    parser = build_parser()
    arguments, left = parser.parse_known_args(argv)
    if any(word.startswith("-") for word in left) or (left and not hasattr(arguments, "smiles")):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:  # argparse of Python 3.11 takes positional arguments from one place only
        arguments.smiles += left
    return arguments


def load_handler(arguments: argparse.Namespace) -> Callable[[argparse.Namespace], dict[str, Any]]:
    """Import the function behind the chosen command."""
    module, function = arguments.handler.split(":")
    handler: Callable[[argparse.Namespace], dict[str, Any]] = getattr(
        importlib.import_module(module), function
    )
    return handler


def _add(
    commands: Any, shared: argparse.ArgumentParser, name: str, text: str, *, handler: str, example: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, parents=[shared], **_example(example)
    )
    command.set_defaults(handler=handler)
    return command


def _add_services(commands: Any, shared: argparse.ArgumentParser) -> None:
    for name, text in (
        ("up", "start Prefect, MLflow and the scheduled deployment on this machine"),
        ("down", "stop what `motet up` started"),
        ("status", "say what runs, where to look, and at a site how each run stands and whom it waits for"),
    ):
        service = _add(
            commands, shared, name, text, handler=f"flows.cli.services:{name}", example=f"motet {name}"
        )
        if name == "status":
            service.add_argument(
                "run", nargs="?", help="one run, with its rounds and what has left the building"
            )
        if name == "up":
            service.add_argument(
                "--prefect-port", type=int, default=4200, help="Prefect's port (default: 4200)"
            )
            service.add_argument(
                "--mlflow-port", type=int, default=5000, help="MLflow's port (default: 5000)"
            )


def _add_run(commands: Any, shared: argparse.ArgumentParser) -> None:
    run = _add(
        commands,
        shared,
        "run",
        "run a whole consortium (coordinator and partners) on this machine, to a registered model",
        handler="flows.cli.run:run",
        example="motet run --data motet-home/data/chembl-4 --hidden 400 --seed 1",
    )
    data = run.add_argument_group("data (default: real molecules with simulated assays)")
    data.add_argument("--data", help="directory of an imported dataset, as `motet import` prints it")
    data.add_argument(
        "--activities", type=Path, help="your own activities (Parquet, Arrow or CSV), split among companies"
    )
    data.add_argument("--structures", type=Path, help="your own structures; needed with --activities")
    data.add_argument(
        "--assays", type=Path, help="your own assays; without it thresholds 5.5, 6.5, 7.5 apply to all"
    )
    data.add_argument("--partners", type=int, help="number of simulated companies, 3 to 20 (default: 4)")
    data.add_argument(
        "--permuted-labels", action="store_true", default=None, help="control: shuffled labels, no uplift"
    )
    run.add_argument_group("reference").add_argument(
        "--no-pooled-arm",
        dest="pooled_arm",
        action="store_false",
        default=None,
        help="skip the reference that sees all data",
    )
    run.add_argument(
        "--local-trunk",
        type=int,
        help="width of a trunk of its own that each company grows beside the shared one",
    )
    add_course(run)
    add_training(run)
    add_machine(run)
    add_dask(run.add_argument_group("where to featurize (default: processes of this machine)"))
    which = run.add_argument_group("which run")
    which.add_argument("--run-id", help="name of the run; the same name resumes it")
    which.add_argument("--fresh", action="store_true", help="start anew even if an equal run is unfinished")


def _add_import(commands: Any, shared: argparse.ArgumentParser) -> None:
    text = "import a public table split into simulated companies, or a partner's own files"
    importing = commands.add_parser("import", help=text, description=text)
    formats = importing.add_subparsers(title="formats", metavar="FORMAT", required=True)
    add_own_formats(formats, shared, _add)
    wide = _add(
        formats,
        shared,
        "wide",
        "a table with one SMILES column and one numeric column per target",
        handler="flows.cli.importing:wide",
        example="motet import wide chembl_5thresh.csv.gz --partners 4",
    )
    wide.add_argument("file", type=Path, help="CSV (also .gz) or Parquet")
    wide.add_argument("--partners", type=int, default=4, help="number of simulated companies (default: 4)")
    wide.add_argument(
        "--scenario",
        choices=("shared-assays", "same-assays", "disjoint-assays"),
        default="shared-assays",
        help="companies share some assays and no compound (default), all assays and no compound, or compounds and no assay",
    )
    wide.add_argument("--seed", type=int, default=0, help="public seed of the split (default: 0)")
    wide.add_argument("--name", help="name of the dataset (default: from the file)")
    wide.add_argument(
        "--unit", default="p", help="unit of the numbers: p (-log10 M, default), M, mM, uM, nM or pM"
    )


def _add_predict(commands: Any, shared: argparse.ArgumentParser) -> None:
    predict = _add(
        commands,
        shared,
        "predict",
        "predict with a registered model",
        handler="flows.cli.predict:predict",
        example="motet predict partner-a-qsar@challenger 'CC(=O)Oc1ccccc1C(=O)O'",
    )
    predict.add_argument("model", help="NAME, NAME@ALIAS, NAME/VERSION, or the directory of a model")
    predict.add_argument("smiles", nargs="*", help="structures; quote them")
    predict.add_argument(
        "--input", type=Path, help="a file with one SMILES per line, or - for standard input"
    )
    predict.add_argument("--endpoint", action="append", help="only this endpoint; may be repeated")
    predict.add_argument(
        "--significance",
        type=float,
        help="how often a conformal set or interval may miss the truth: 0.05, 0.1, 0.2 (default) or 0.3",
    )
    predict.add_argument(
        "--embeddings", action="store_true", help="the trunk's features instead of predictions"
    )
    predict.add_argument("--output", type=Path, help="write the table to a .csv or .parquet file")


def _add_contracts(commands: Any, shared: argparse.ArgumentParser) -> None:
    contracts = _add(
        commands,
        shared,
        "contracts",
        "list the data contracts, or show one: columns, types, rules",
        handler="flows.cli.contracts:contracts",
        example="motet contracts activities",
    )
    contracts.add_argument("name", nargs="?", help="name of a contract")


def _add_verify(commands: Any, shared: argparse.ArgumentParser) -> None:
    text = "repeat what the coordinator says it did, and compare"
    verifying = commands.add_parser("verify", help=text, description=text)
    subjects = verifying.add_subparsers(title="subjects", metavar="SUBJECT", required=True)
    verify = _add(
        subjects,
        shared,
        "round",
        "repeat a round's secure sum from its messages, bit for bit",
        handler="flows.cli.verification:verify",
        example="motet verify round 20261125-093931-2ddb 3",
    )
    verify.add_argument("run", help="name of the run, as `motet runs` lists it")
    verify.add_argument("round", type=int, help="number of the round")
    fetch = _add(
        subjects,
        shared,
        "fetch",
        "at a site: copy the messages of a run, or of all, so that they can be verified without the mailbox",
        handler="flows.cli.verification:fetch",
        example="motet verify fetch first",
    )
    fetch.add_argument("run", nargs="?", help="name of the run (default: all that lie in the mailbox)")
