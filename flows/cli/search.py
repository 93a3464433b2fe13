"""``motet search``: trials over a grid or by successive halving, to a file of settings for ``motet run``.

Why: the federation's and every partner's single settings get the same budget. Runs: on one machine. Source: own.
"""

import argparse
import re
from pathlib import Path
from typing import Any

from data_contracts.errors import SettingsError
from flows.cli.earlier import read_mapping
from flows.cli.performing import log_to_terminal, perform, prefect_with
from flows.cli.tables import print_table
from flows.search_space import open_search, parse_space

NAME = r"[a-z0-9][a-z0-9-]{2,47}"


def search(arguments: argparse.Namespace) -> dict[str, Any]:
    """Search, or go on with a search that was interrupted."""
    log_to_terminal(verbose=arguments.verbose)
    if not re.fullmatch(NAME, arguments.name):
        raise SettingsError("--name must be 3 to 48 lower-case letters, digits and hyphens")
    home = Path(arguments.home).resolve()
    home.mkdir(parents=True, exist_ok=True)
    space = parse_space(read_mapping(arguments.space), file=arguments.space.name)
    open_search(home, arguments.name, space=space, base=_base(arguments))

    async def perform_search() -> Any:
        from flows.search import search as search_flow

        return await search_flow(name=arguments.name, home=str(home))

    with prefect_with(home, "flows.search", verbose=arguments.verbose):
        result: dict[str, Any] = perform(perform_search)
    columns = list(result["trials"][0])
    print_table(columns, [[row.get(column) for column in columns] for row in result["trials"]])
    print(f"\nbest: {result['best']['trial']}\nreport on it: motet run --settings {result['settings']}")
    return result


def _base(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {
        name: getattr(arguments, name)
        for name in ("partners", "seed")
        if getattr(arguments, name) is not None
    }
    if arguments.data is None:
        return given
    from tasks.simulation.datasets import open_dataset

    data = Path(arguments.data).resolve()
    return given | {"data": str(data), "partners": len(open_dataset(data).partners)}
