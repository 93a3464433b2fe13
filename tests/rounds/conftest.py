"""A small consortium over a directory mailbox, with real keys and no Prefect."""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.plan import Lane, RoundPlan
from tasks.exchange.board import Board
from tasks.exchange.identity import Identity, Roster
from tasks.exchange.mailbox import DirectoryMailbox
from tasks.rounds.attempts import AttemptVault
from tasks.rounds.coordinator import conduct, publish_plan
from tasks.rounds.partner import Contributor, next_plan
from tasks.rounds.patience import Patience
from tasks.rounds.study import Study, write_contribution

RUN = "run-1"
COUNTS = Lane(name="counts", length=3, ring_bits=64, value_bits=48)


def total(plan, secure_sum, inputs):
    return {"total": [int(value) for value in secure_sum.values["counts"]], "n": len(secure_sum.survivors)}


async def count(plan, inputs, directory):
    write_contribution(directory, {"counts": np.array(inputs, dtype=np.int64)})


def accept(plan):
    """Whatever is asked, these partners answer."""


COUNTING = Study(name="counting", accept=accept, compute=count, combine=total)


@dataclass(frozen=True)
class Consortium:
    """Everybody's board and private directory."""

    root: Path
    boards: dict[str, Board]

    @property
    def partners(self) -> tuple[str, ...]:
        return self.boards["coordinator"].roster.partners

    def contributor(self, name: str, *, seconds: float = 20.0) -> Contributor:
        return Contributor(
            board=self.boards[name],
            vault=AttemptVault(self.root / name / "attempts"),
            rounding_key=name.encode().ljust(32, b"\0"),
            patience=Patience(deadline_seconds=seconds),
        )

    def draft(
        self, *, round_number: int = 1, threshold: int = 3, seconds: float = 10.0, **fields: Any
    ) -> RoundPlan:
        plan = self.plan(COUNTS, threshold=threshold, round_number=round_number, seconds=seconds)
        return plan.model_copy(update=fields)

    def run_round(self, draft: RoundPlan, counts: dict[str, list[int]], **of_partners: Any) -> list[Any]:
        """One round; the outcomes of the coordinator and of the partners that count."""
        return asyncio.run(self.play(draft, counts, **of_partners))

    async def play(self, draft: RoundPlan, counts: dict[str, list[int]], **of_partners: Any) -> list[Any]:
        plan = publish_plan(self.boards["coordinator"], draft)
        return await asyncio.gather(
            conduct(self.boards["coordinator"], plan, study=COUNTING, inputs=None),
            *(self.take_part(name, plan, values, **of_partners) for name, values in counts.items()),
            return_exceptions=True,
        )

    async def take_part(
        self, name: str, plan: RoundPlan, values: list[int], **of_partner: Any
    ) -> dict[str, Any]:
        contributor = replace(self.contributor(name), **of_partner)
        found = await next_plan(contributor.board, plan.round, patience=contributor.patience)
        directory = self.root / name / f"r{plan.round}-a{found.attempt}"
        await count(found, values, directory)
        return await contributor.contribute(found, directory)

    def plan(self, *lanes: Lane, threshold: int, round_number: int = 1, seconds: float = 20.0) -> RoundPlan:
        return RoundPlan(
            run_id=RUN,
            round=round_number,
            study="counting",
            cohort=self.partners,
            threshold=threshold,
            lanes=lanes,
            deadline_seconds=seconds,
        )


@pytest.fixture
def make_consortium(tmp_path):
    def make(n_partners: int) -> Consortium:
        names = ["coordinator", *(f"partner-{chr(97 + i)}" for i in range(n_partners))]
        identities = {name: Identity(name, bytes([i + 1]) * 32) for i, name in enumerate(names)}
        roster = Roster(
            coordinator="coordinator",
            public_keys={name: one.public_key.hex() for name, one in identities.items()},
        )
        mailbox = DirectoryMailbox(tmp_path / "mailbox")
        boards = {
            name: Board(mailbox=mailbox, identity=one, roster=roster, run_id=RUN)
            for name, one in identities.items()
        }
        return Consortium(root=tmp_path, boards=boards)

    return make
