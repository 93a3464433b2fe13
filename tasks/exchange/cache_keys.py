"""Explicit cache keys for Prefect tasks.

Why: Prefect's default key holds the id of the flow run, so a resumed run would find nothing; ours holds the
step's version and the inputs that decide its result, and nothing private. Runs: on every site. Source: own.
"""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from data_contracts.canonical_json import digest_of


def cache_key(version: str, *names: str) -> Callable[[Any, dict[str, Any]], str]:
    """Make a ``cache_key_fn`` from a step's version and the names of the arguments that decide its result.

    Args:
        version: To be raised when the step computes something else from the same inputs.
        names: Arguments to include: JSON values or pydantic models.

    Returns:
        A function of Prefect's task context and arguments to a file name.
    """

    def key(context: Any, arguments: dict[str, Any]) -> str:
        values = {
            name: value.model_dump(mode="json") if isinstance(value := arguments[name], BaseModel) else value
            for name in names
        }
        return f"{context.task.name}-{digest_of([version, values])}"

    return key
