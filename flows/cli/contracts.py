"""``motet contracts``: what a partner's files must look like.

Why: a data owner sees what is asked for before exporting anything. Runs: anywhere. Source: own.
"""

import argparse
from typing import Any

from data_contracts.catalogue import CONTRACTS
from data_contracts.description import describe
from data_contracts.errors import SettingsError
from flows.cli.tables import print_table


def contracts(arguments: argparse.Namespace) -> dict[str, Any]:
    """List the contracts, or show one.

    Raises:
        SettingsError: If there is no contract of that name.
    """
    if arguments.name is None:
        rows = [[name, contract.version, contract.digest[:16]] for name, contract in CONTRACTS.items()]
        print_table(("contract", "version", "digest"), rows)
        return {"contracts": {name: contract.version for name, contract in CONTRACTS.items()}}
    contract = CONTRACTS.get(arguments.name)
    if contract is None:
        raise SettingsError(f"there is no contract '{arguments.name}'; there are: {', '.join(CONTRACTS)}")
    print(describe(contract))
    return {"contract": contract.name, "version": contract.version, "digest": contract.digest}
