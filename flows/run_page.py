"""One page about a run: how it stands, whom everybody waits for, its rounds, and what has left the building.

Why: a person looks once and knows whom to call. The same rows go to Prefect's page and to `motet status`.
Runs: on every site; figures of the coordinator's page are secure sums, a partner's own stay on its own page. Source: own.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.context import FlowRunContext

from data_contracts.errors import MotetError
from flows.run_tables import ROUND_COLUMNS, round_rows, seconds_of, sent_rows
from flows.watching import RunStanding, Sent, Watch
from tasks.exchange.board import Board
from tasks.rounds.patience import beside

logger = logging.getLogger("motet")

LOOK_SECONDS = 20.0


@dataclass
class RunPage:
    """The page of one run at one party.

    Attributes:
        board: The party's view.
        own: Whether to show what this party has sent.
        run: Directory of the run.
        figures: The party's own results, once there are any: name and text.
    """

    board: Board
    own: bool
    run: Path
    figures: dict[str, str] = field(default_factory=dict)
    _artifact: UUID | None = None
    _shown: str = ""

    def __post_init__(self) -> None:
        """Watch the run."""
        self._watch = Watch(self.board)

    async def refresh(self) -> None:
        """Read the run, and write the page if it reads otherwise than before; without a flow run there is none."""
        if FlowRunContext.get() is None:
            return
        me = self.board.identity.name
        standing = await beside(self._watch.standing)
        sent = await beside(lambda: self._watch.sent(me)) if self.own else []
        text = as_markdown(standing, me=me, sent=sent, figures=self.figures, seconds=seconds_of(self.run))
        if text == self._shown:
            return
        if self._artifact is None:
            description = f"Run {self.board.run_id} as {me} sees it."
            self._artifact = await acreate_markdown_artifact(
                markdown=text, key="run-page", description=description
            )
        else:
            async with get_client() as client:
                await client.update_artifact(self._artifact, ArtifactUpdate(data=text))
        self._shown = text


@contextlib.asynccontextmanager
async def kept_up_to_date(page: RunPage, *, look_seconds: float = LOOK_SECONDS) -> AsyncIterator[RunPage]:
    """Keep a page up to date while a run lasts, and once at its end; a page that fails never stops a run."""

    async def look() -> None:
        while True:
            await _refreshed(page)
            await asyncio.sleep(look_seconds)

    looking = asyncio.create_task(look())
    try:
        yield page
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
        await _refreshed(page)


async def _refreshed(page: RunPage) -> None:
    try:
        await page.refresh()
    except (MotetError, OSError, RuntimeError, ValueError) as exc:
        logger.debug("the page of run %s was not written: %s", page.board.run_id, type(exc).__name__)


def as_markdown(
    standing: RunStanding,
    *,
    me: str,
    sent: Sequence[Sent],
    figures: Mapping[str, str],
    seconds: Mapping[int, float],
) -> str:
    """The page as Markdown."""
    awaited = ", ".join(standing.awaited) or "nobody"
    parts = [
        f"# Run {standing.run_id}",
        f"**{standing.phase}**" + (f", round {standing.rounds[-1].round}" if standing.rounds else ""),
        f"Awaited: **{awaited}**",
        "## Rounds",
        _table(ROUND_COLUMNS, round_rows(standing, seconds=seconds)),
    ]
    if figures:
        parts += [f"## {me}: own results", _table(("", ""), [list(pair) for pair in figures.items()])]
    if sent:
        total = sum(each.bytes for each in sent)
        kinds = Counter(each.kind for each in sent)
        parts += [
            f"## What has left the building of {me}: {total:,} bytes in {len(sent)} messages",
            "Masked updates, keys, shares and signatures; every byte that this site has posted in this run.",
            _table(("round", *sorted(kinds), "bytes"), sent_rows(sent)),
        ]
    return "\n\n".join(parts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return "none yet"
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join("-" if cell is None else str(cell) for cell in line) + " |" for line in lines
    )
