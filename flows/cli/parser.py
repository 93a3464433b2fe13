"""All commands and their arguments, with an example each.

Why: in one place a person sees what motet can be asked. Runs: anywhere. Source: own.
"""

import argparse
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flows.cli.data_parser import add_dask, add_data_commands, add_own_formats
from flows.cli.people_parser import add_membership_commands, add_steward_commands, add_until
from flows.cli.training_parser import add_course, add_search

DEFAULT_HOME = Path("motet-home")


def _example(text: str) -> dict[str, Any]:
    return {"epilog": f"example:\n  {text}", "formatter_class": argparse.RawDescriptionHelpFormatter}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``motet``; imports nothing heavy."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--json", action="store_true", help="print one JSON object on the last line of the output"
    )
    shared.add_argument(
        "--verbose", action="store_true", help="show the full log, and tracebacks of unexpected errors"
    )
    shared.add_argument(
        "--home",
        type=Path,
        default=DEFAULT_HOME,
        help="where runs, models and services live (default: ./motet-home)",
    )
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
    _add_sites(commands, shared)
    add_steward_commands(commands, shared, _add)
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
        ("status", "say what runs, and where to look"),
    ):
        service = _add(
            commands, shared, name, text, handler=f"flows.cli.services:{name}", example=f"motet {name}"
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
    _add_training(run)
    _add_machine(run)
    add_dask(run.add_argument_group("where to featurize (default: processes of this machine)"))
    which = run.add_argument_group("which run")
    which.add_argument("--run-id", help="name of the run; the same name resumes it")
    which.add_argument("--fresh", action="store_true", help="start anew even if an equal run is unfinished")


def _add_sites(commands: Any, shared: argparse.ArgumentParser) -> None:
    """A consortium of separate hosts; see docs/running-a-consortium.md."""
    text = "make a site on this host: settings, keys, and the public enrolment file"
    init = commands.add_parser("init", help=text, description=text)
    roles = init.add_subparsers(title="roles", metavar="ROLE", required=True)
    handler = "flows.cli.sites:init"
    example = "motet init coordinator --home motet-home --name coordinator"
    coordinator = _add(roles, shared, "coordinator", "who leads the runs", handler=handler, example=example)
    example = "motet init mailbox --home mailbox --name mailbox --address mailbox.example.org:8443"
    mailbox = _add(roles, shared, "mailbox", "where messages lie", handler=handler, example=example)
    mailbox.add_argument("--address", required=True, help="host:port under which all others reach it")
    mailbox.add_argument("--listen", help="host:port that it listens on (default: all interfaces, that port)")
    example = (
        "motet init partner --name acme --activities a.csv --structures s.csv --assays t.csv "
        "--grant qsar-2026 --expires 2027-01-01"
    )
    partner = _add(roles, shared, "partner", "a company with data", handler=handler, example=example)
    for name in ("activities", "structures", "assays"):
        partner.add_argument(f"--{name}", type=Path, required=True, help=f"its {name}: Parquet, Arrow or CSV")
    partner.add_argument(
        "--catalogue", type=Path, help="the consortium's catalogue, for the profile melloddy"
    )
    partner.add_argument(
        "--grant", action="append", default=[], metavar="DATA_SET", help="runs on this data set are granted"
    )
    partner.add_argument(
        "--profile",
        action="append",
        default=[],
        help="rules by which its data may be prepared: simple, melloddy or a YAML file (default: the first two)",
    )
    partner.add_argument(
        "--ask",
        action="append",
        default=[],
        metavar="DATA_SET",
        help="runs on this data set wait for the data steward's signature",
    )
    partner.add_argument(
        "--expires", required=True, metavar="DATE", help="last day of what is granted, 2027-01-01"
    )
    partner.add_argument(
        "--simulated", action="store_true", help="its activities are invented; its models say so"
    )
    _add_machine(partner)
    example = "motet init auditor --name auditor"
    auditor = _add(roles, shared, "auditor", "who reads and verifies", handler=handler, example=example)
    for role in (coordinator, mailbox, partner, auditor):
        role.set_defaults(role=role.prog.split()[-1])
        role.add_argument("--name", required=True, help="its name in the consortium")
    for role in (coordinator, partner):
        role.add_argument(
            "--mailbox", metavar="S3_URL", help="s3://bucket/prefix, where no party runs a mailbox"
        )
    _add_roster(commands, shared)
    _add_taking_part(commands, shared)


def _add_machine(command: argparse.ArgumentParser) -> None:
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


def _add_roster(commands: Any, shared: argparse.ArgumentParser) -> None:
    text = "who takes part under which keys: one list that all compare and pin"
    roster = commands.add_parser("roster", help=text, description=text)
    acts = roster.add_subparsers(title="acts", metavar="ACT", required=True)
    example = "motet roster make mailbox.json acme.json bolt.json cure.json"
    text = "on the coordinator: assemble the roster from enrolment files, and sign it"
    make = _add(acts, shared, "make", text, handler="flows.cli.sites:roster_make", example=example)
    make.add_argument(
        "enrolments",
        nargs="+",
        type=Path,
        help="enrolment files of all others; with --after, of what changes",
    )
    make.add_argument(
        "--after", type=Path, metavar="ROSTER", help="make the one that follows the pinned roster"
    )
    add_until(make)
    example = "motet roster accept roster.json --digest 5d41402abc4b2a76b9719d911017c592..."
    text = "pin the coordinator's roster, if its digest is the one that all others have"
    accept = _add(acts, shared, "accept", text, handler="flows.cli.sites:roster_accept", example=example)
    accept.add_argument("roster", type=Path, help="the roster's file")
    accept.add_argument("--digest", required=True, help="its digest, as you heard it from the others")
    add_membership_commands(commands, acts, shared, _add)


def _add_taking_part(commands: Any, shared: argparse.ArgumentParser) -> None:
    text = "run the mailbox until it is stopped; or make room in it"
    mailbox = _add(
        commands, shared, "mailbox", text, handler="flows.cli.mailboxes:mailbox", example="motet mailbox"
    )
    days: dict[str, Any] = {
        "type": float,
        "metavar": "DAYS",
        "help": "how long large bodies of a closed run stay",
    }
    mailbox.add_argument("--keep-days", **days)
    text = "remove the masked vectors, shares and models of runs that were closed long ago"
    acts = mailbox.add_subparsers(title="acts", metavar="ACT")
    handler, example = "flows.cli.mailboxes:collect", "motet mailbox collect --keep-days 30"
    collect = _add(acts, shared, "collect", text, handler=handler, example=example)
    collect.add_argument("--keep-days", required=True, **days)
    text = "say what is wrong with this site, and what to do"
    _add(commands, shared, "doctor", text, handler="flows.cli.doctor:doctor", example="motet doctor")
    text = "on a partner: take part in the next run, or in a named one; the same command resumes it"
    join = _add(commands, shared, "join", text, handler="flows.cli.sites:join", example="motet join")
    join.add_argument("--run-id", help="name of the run (default: the next one that the coordinator opens)")
    add_dask(join)
    text = "on the coordinator: lead a run of all partners; the same command resumes it"
    example = "motet lead --data-set qsar-2026 --run-id first --rounds 20 --hidden 400"
    lead = _add(commands, shared, "lead", text, handler="flows.cli.sites:lead", example=example)
    lead.add_argument(
        "--data-set", dest="data", required=True, help="name of the data set, as partners grant it"
    )
    lead.add_argument("--run-id", help="name of the run; the same name resumes it")
    lead.add_argument(
        "--catalogue", type=Path, help="file of endpoint ids that partners may share, one a line"
    )
    lead.add_argument(
        "--take-over", action="store_true", help="this site was moved, and what led the run before has ended"
    )
    lead.add_argument("--simulated", action="store_true", help="the activities are invented; models say so")
    add_course(lead)
    _add_training(lead)


def _add_modality(learning: Any) -> None:
    learning.add_argument(
        "--modality",
        choices=("classification", "regression", "hybrid"),
        help="learn classes (default), numbers, or both on one trunk",
    )
    learning.add_argument(
        "--regression-loss", choices=("tobit", "one_sided"), help="what a number costs (default: tobit)"
    )
    learning.add_argument(
        "--regression-weight", type=float, help="the numbers' share of a hybrid loss (default: 0.5)"
    )


def _add_training(run: argparse.ArgumentParser) -> None:
    run.add_argument_group("preparation").add_argument(
        "--profile", help="how data is prepared: simple (default), melloddy, or a YAML file of your own rules"
    )
    learning = run.add_argument_group("training")
    _add_modality(learning)
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
        choices=("shared-assays", "disjoint-assays"),
        default="shared-assays",
        help="companies share assays and no compound (default), or compounds and no assay",
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
