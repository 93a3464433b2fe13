"""How the trials of a search are called, so that a search finds its own again, and a partner its part of them.

Why: names are all that a resumed search needs. Runs: on every site. Source: own.
"""

import re
from collections.abc import Iterable


def trial_name(search: str, *, rung: int, number: int) -> str:
    """Name of the run of one trial."""
    return f"{search}-r{rung}-t{number:03d}"


def trials_of(search: str, runs: Iterable[str]) -> list[str]:
    """The trials of a search among the names of runs, in order; none without a search."""
    pattern = re.compile(rf"{re.escape(search)}-r\d-t\d{{3}}")
    return sorted(name for name in runs if pattern.fullmatch(name)) if search else []
