"""The commands of people who decide: stewards, auditors, and whoever changes the consortium's membership.

Why: ``parser`` stays readable. Runs: anywhere. Source: own.
"""

import argparse
from pathlib import Path
from typing import Any

from flows.cli.data_parser import Add


def add_steward_commands(
    commands: Any, shared: argparse.ArgumentParser, add: Add, *, of_act: argparse.ArgumentParser
) -> None:
    """``requests``, ``approve`` and ``refuse``."""
    handler = "flows.cli.requests"
    text = "on a partner: runs that wait for the data steward, and how earlier ones were decided"
    listing = add(commands, shared, "requests", text, handler=f"{handler}:requests", example="motet requests")
    acts = listing.add_subparsers(title="acts", metavar="ACT")
    text = "show one request: who asks for what, and what would leave the building"
    example = "motet requests show first-5d41402abc4b"
    show = add(acts, of_act, "show", text, handler=f"{handler}:show", example=example)
    text = "sign an approval of one request with the data steward's key"
    example = "motet approve first-5d41402abc4b --key /media/steward/key"
    approve = add(commands, shared, "approve", text, handler=f"{handler}:approve", example=example)
    approve.add_argument("--until", metavar="DATE", help="last day of the approval (default: the policy's)")
    approve.add_argument("--print", action="store_true", help="show the signed line to paste; keep nothing")
    text = "refuse one request, or take an approval back"
    example = "motet refuse first-5d41402abc4b --reason 'not before the contract is signed'"
    refuse = add(commands, shared, "refuse", text, handler=f"{handler}:refuse", example=example)
    refuse.add_argument("--reason", required=True, help="why; it stays on this site")
    refuse.add_argument("--tell", action="store_true", help="tell the coordinator the reason, too")
    for command in (show, approve, refuse):
        command.add_argument("request", help="its name, or the beginning of it, as `motet requests` lists it")
    for command in (approve, refuse):
        command.add_argument("--key", type=Path, help="the steward's key file (default: keys/steward)")


def add_membership_commands(commands: Any, acts: Any, shared: argparse.ArgumentParser, add: Add) -> None:
    """``roster leave``, ``roster show`` and ``keys rotate``; ``acts`` are those of ``roster``."""
    handler = "flows.cli.membership"
    text = "at a party: sign that it leaves; on the coordinator: make the next roster without a party"
    leave = add(acts, shared, "leave", text, handler=f"{handler}:leave", example="motet roster leave bolt")
    leave.add_argument("name", help="who leaves")
    add_until(leave)
    text = "show the pinned roster: its version, its parties and its digest"
    add(acts, shared, "show", text, handler=f"{handler}:show", example="motet roster show")
    text = "this site's own keys"
    keys = commands.add_parser("keys", help=text, description=text)
    inside = keys.add_subparsers(title="acts", metavar="ACT", required=True)
    text = "make new keys, signed by the present ones; they count from the next roster on"
    add(inside, shared, "rotate", text, handler=f"{handler}:rotate", example="motet keys rotate")


def add_until(command: argparse.ArgumentParser) -> None:
    """How long runs of the roster before may go on."""
    command.add_argument(
        "--until",
        metavar="DATE",
        help="last day on which runs planned under the roster before may go on (default: in seven days)",
    )
    command.add_argument("--now", action="store_true", help="they end at once, as after the loss of a key")
