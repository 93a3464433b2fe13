"""Rows about a run, as a page and a terminal show them.

Why: one wording for both, and the terminal needs no Prefect. Runs: on every site. Source: own.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.watching import RunStanding, Sent

ROUND_SECONDS = "rounds.jsonl"
ROUND_COLUMNS = ("round", "study", "phase", "partners", "awaited", "validation AUPRC", "MB masked", "seconds")


def round_rows(standing: RunStanding, *, seconds: Mapping[int, float]) -> list[list[Any]]:
    """One row for each round, the newest first.

    Args:
        standing: The run.
        seconds: How long rounds took, where this party has measured it.
    """
    return [
        [
            each.round,
            each.study,
            each.phase if each.attempt == 0 else f"{each.phase} (attempt {each.attempt + 1})",
            f"{len(each.survivors)} of {len(each.cohort)}",
            ", ".join(each.awaited) or "-",
            _shown(each.metrics.get("validation/auprc", each.metrics.get("test/federated/auprc"))),
            f"{each.masked_bytes / 1e6:.3f}",
            _shown(seconds.get(each.round), digits=1),
        ]
        for each in reversed(standing.rounds)
    ]


def sent_rows(sent: Sequence[Sent]) -> list[list[Any]]:
    """One row for each round and one for the run: bytes by kind, kinds sorted, and their sum."""
    kinds = sorted({each.kind for each in sent})
    rounds = sorted({each.round for each in sent}, key=lambda number: -1 if number is None else number)
    rows = []
    for number in rounds:
        here = [each for each in sent if each.round == number]
        by_kind = [sum(each.bytes for each in here if each.kind == kind) for kind in kinds]
        rows.append(["run" if number is None else number, *by_kind, sum(by_kind)])
    totals = [sum(each.bytes for each in sent if each.kind == kind) for kind in kinds]
    return [*rows, ["all", *totals, sum(totals)]]


def own_figures(uplift: Mapping[str, Any]) -> dict[str, str]:
    """A partner's own test figures, which nobody else sees, as name and text."""
    found = {}
    for metric, values in uplift["metrics"].items():
        for arm, interval in values["arms"].items():
            found[f"{metric.upper()} {arm}"] = f"{interval['value']:.3f}"
        found[f"{metric.upper()} uplift"] = f"{values['uplift']['value']:+.3f}"
    return found


def seconds_of(run: Path) -> dict[int, float]:
    """How long each round of a run took at the coordinator; a round that was found again keeps its first time."""
    found: dict[int, float] = {}
    path = run / ROUND_SECONDS
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError, KeyError, TypeError):  # a kill may have torn the last line
            row = json.loads(line)
            found.setdefault(int(row["round"]), float(row["seconds"]))
    return found


def _shown(value: float | None, *, digits: int = 4) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
