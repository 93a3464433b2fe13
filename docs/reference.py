"""Write the reference: every contract, every command, every module in one line.

Why: what the code already says is rendered, never repeated by hand, so it cannot go stale.
Runs: by hand, ``make docs``. Source: own.
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from data_contracts.catalogue import CONTRACTS
from data_contracts.description import describe
from flows.cli.parser import build_parser

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data_contracts", "tasks", "flows")


def contracts_page() -> str:
    """Render every data contract."""
    return "\n".join(describe(contract) for contract in CONTRACTS.values())


def commands_page() -> str:
    """Render the help of every command."""
    pages = (f"# {parser.prog}\n\n```\n{parser.format_help()}```\n" for parser in _parsers(build_parser()))
    return "\n".join(pages)


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list its commands
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for command in action.choices.values():
                yield from _parsers(command)


def modules_page() -> str:
    """Render the first line of every module, room by room."""
    lines = ["# Modules", ""]
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            said = ast.get_docstring(ast.parse(path.read_text())) or ""
            lines.append(f"- `{path.relative_to(ROOT)}` {said.splitlines()[0]}")
    return "\n".join(lines) + "\n"


def main(directory: Path) -> None:
    """Write all pages."""
    directory.mkdir(parents=True, exist_ok=True)
    pages = {"contracts": contracts_page(), "commands": commands_page(), "modules": modules_page()}
    for name, text in pages.items():
        (directory / f"{name}.md").write_text(text)
        print(directory / f"{name}.md")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
