"""Refusals of the contract engine: how they are worded, and how foreign exceptions are kept out of them.

Why: texts of pyarrow's exceptions quote values, and ``raise ... from None`` still keeps the original in
``__context__``; so foreign calls are made through ``attempt`` and the refusal is raised outside any handler.
Runs: anywhere. Source: own; the canary test in tests/data_contracts proves it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from data_contracts.errors import ContractViolation

MAX_NAME_CHARACTERS = 80
Result = TypeVar("Result")


def refusal(source: str, *, got: str, expected: str, advice: str | None = None) -> ContractViolation:
    """Word a refusal: who, got, expected, and what to do next.

    Args:
        source: Base name of the file or name of the table.
        got: What was found; never a value, and never a name that came from the data.
        expected: What the contract asks for.
        advice: What to do next, where the advice of the error tree is not the best one.
    """
    return ContractViolation(f"{source}: got {got}; expected {expected}", advice=advice)


def source_name(path: Path) -> str:
    """Return the base name of a path, printable and at most 80 characters long."""
    name = "".join(c if c.isprintable() else "?" for c in path.name)
    return name if len(name) <= MAX_NAME_CHARACTERS else name[:MAX_NAME_CHARACTERS] + "..."


def attempt(call: Callable[[], Result], *, otherwise: ContractViolation) -> Result:
    """Call into pyarrow or the file system; if it fails, raise ``otherwise`` with no trace of the original.

    Raises:
        ContractViolation: ``otherwise``, with ``__cause__`` and ``__context__`` empty.
        MemoryError: As it came: it says nothing about the content.
    """
    try:
        return call()
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError):
        pass
    raise otherwise
