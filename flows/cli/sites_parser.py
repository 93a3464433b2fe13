"""``motet init``, ``roster``, ``mailbox``, ``doctor``, ``join`` and ``lead``: a consortium of separate hosts.

Why: ``parser`` stays readable. Runs: anywhere. Source: own.
"""

import argparse
from pathlib import Path
from typing import Any

from flows.cli.data_parser import Add, add_dask
from flows.cli.people_parser import add_membership_commands, add_until
from flows.cli.training_parser import add_course, add_machine, add_training

HANDLER = "flows.cli.sites:init"


def add_site_commands(
    commands: Any, shared: argparse.ArgumentParser, add: Add, *, of_act: argparse.ArgumentParser
) -> None:
    """A consortium of separate hosts; see docs/running-a-consortium.md."""
    text = "make a site on this host: settings, keys, and the public enrolment file"
    init = commands.add_parser("init", help=text, description=text)
    roles = init.add_subparsers(title="roles", metavar="ROLE", required=True)
    example = "motet init coordinator --home motet-home --name coordinator"
    coordinator = add(roles, shared, "coordinator", "who leads the runs", handler=HANDLER, example=example)
    example = "motet init mailbox --home mailbox --name mailbox --address mailbox.example.org:8443"
    mailbox = add(roles, shared, "mailbox", "where messages lie", handler=HANDLER, example=example)
    mailbox.add_argument("--address", required=True, help="host:port under which all others reach it")
    mailbox.add_argument("--listen", help="host:port that it listens on (default: all interfaces, that port)")
    partner = _add_partner(roles, shared, add)
    example = "motet init auditor --name auditor"
    auditor = add(roles, shared, "auditor", "who reads and verifies", handler=HANDLER, example=example)
    for role in (coordinator, mailbox, partner, auditor):
        role.set_defaults(role=role.prog.split()[-1])
        role.add_argument("--name", required=True, help="its name in the consortium")
    for role in (coordinator, partner):
        role.add_argument(
            "--mailbox", metavar="S3_URL", help="s3://bucket/prefix, where no party runs a mailbox"
        )
    _add_roster(commands, shared, add)
    _add_taking_part(commands, shared, add, of_act=of_act)


def _add_partner(roles: Any, shared: argparse.ArgumentParser, add: Add) -> argparse.ArgumentParser:
    example = (
        "motet init partner --name acme --activities a.csv --structures s.csv --assays t.csv "
        "--grant qsar-2026 --expires 2027-01-01"
    )
    partner = add(roles, shared, "partner", "a company with data", handler=HANDLER, example=example)
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
    add_machine(partner)
    return partner


def _add_roster(commands: Any, shared: argparse.ArgumentParser, add: Add) -> None:
    text = "who takes part under which keys: one list that all compare and pin"
    roster = commands.add_parser("roster", help=text, description=text)
    acts = roster.add_subparsers(title="acts", metavar="ACT", required=True)
    example = "motet roster make mailbox.json acme.json bolt.json cure.json"
    text = "on the coordinator: assemble the roster from enrolment files, and sign it"
    make = add(acts, shared, "make", text, handler="flows.cli.sites:roster_make", example=example)
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
    accept = add(acts, shared, "accept", text, handler="flows.cli.sites:roster_accept", example=example)
    accept.add_argument("roster", type=Path, help="the roster's file")
    accept.add_argument("--digest", required=True, help="its digest, as you heard it from the others")
    add_membership_commands(commands, acts, shared, add)


def _add_taking_part(
    commands: Any, shared: argparse.ArgumentParser, add: Add, *, of_act: argparse.ArgumentParser
) -> None:
    text = "run the mailbox until it is stopped; or make room in it"
    mailbox = add(
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
    collect = add(acts, of_act, "collect", text, handler=handler, example=example)
    collect.add_argument("--keep-days", required=True, **days)
    text = "say what is wrong with this site, and what to do"
    add(commands, shared, "doctor", text, handler="flows.cli.doctor:doctor", example="motet doctor")
    text = "on a partner: take part in the next run, or in a named one; the same command resumes it"
    join = add(commands, shared, "join", text, handler="flows.cli.sites:join", example="motet join")
    join.add_argument("--run-id", help="name of the run (default: the next one that the coordinator opens)")
    add_dask(join)
    text = "on the coordinator: lead a run of all partners; the same command resumes it"
    example = "motet lead --data-set qsar-2026 --run-id first --rounds 20 --hidden 400"
    lead = add(commands, shared, "lead", text, handler="flows.cli.sites:lead", example=example)
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
    add_training(lead)
