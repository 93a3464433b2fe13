"""A small consortium over a directory mailbox, with real keys and no Prefect."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from data_contracts.plan import Lane, RoundPlan
from tasks.exchange.board import Board
from tasks.exchange.identity import Identity, Roster
from tasks.exchange.mailbox import DirectoryMailbox
from tasks.rounds.attempts import AttemptVault
from tasks.rounds.partner import Contributor
from tasks.rounds.patience import Patience

RUN = "run-1"


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
