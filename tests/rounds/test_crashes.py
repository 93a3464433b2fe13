"""A partner that dies anywhere and comes back says the same again, masks one vector, and leaves no secret behind."""

import asyncio
import threading
from dataclasses import replace
from itertools import count

import pytest

from data_contracts.envelope import Kind
from data_contracts.errors import UpdateMismatch
from tasks.exchange.board import Board
from tasks.rounds.attempts import AttemptVault
from tasks.rounds.coordinator import conduct, publish_plan
from tasks.rounds.partner import Contributor
from tasks.rounds.patience import Patience
from tasks.rounds.study import read_contribution
from tasks.secure_aggregation.attempt_secrets import AttemptSecrets
from tests.rounds.conftest import COUNTING


class Killed(BaseException):
    """The process is gone: nothing in the code under test catches this."""


def points():
    """Where a partner does something that lasts: it may die right before or right after any of them."""
    return [(owner, name) for owner, name in (
        (Board, "post"), (AttemptVault, "root"), (AttemptVault, "keep"), (AttemptVault, "pin"), (AttemptVault, "end"),
    )]  # fmt: skip


def dying_at(monkeypatch, step: int, *, victim: str):
    """Kill the victim at its step-th lasting act: even steps before the act, odd ones after it."""
    acts = count()

    def is_victims(self):
        return (getattr(self, "identity", None) and self.identity.name == victim) or victim in str(
            getattr(self, "_directory", "")
        )

    def wrap(honest):
        def act(self, *arguments, **more):
            if not is_victims(self):
                return honest(self, *arguments, **more)
            number = next(acts)
            if number == step // 2 and step % 2 == 0:
                raise Killed
            result = honest(self, *arguments, **more)
            if number == step // 2:
                raise Killed
            return result

        return act

    for owner, name in points():
        monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))


async def with_one_that_dies(c, counts, *, victim: str):
    """A round in which the victim is started again whenever it dies; how often it did, and all outcomes."""
    draft = c.draft()
    plan = publish_plan(c.boards["coordinator"], draft)
    deaths = 0

    async def keeps_coming_back():
        nonlocal deaths
        while True:
            try:
                return await c.take_part(victim, plan, counts[victim])
            except Killed:
                deaths += 1

    others = [c.take_part(name, plan, counts[name]) for name in c.partners if name != victim]
    outcomes = await asyncio.gather(
        conduct(c.boards["coordinator"], plan, study=COUNTING, inputs=None), keeps_coming_back(), *others
    )
    return deaths, outcomes


async def seen(board, kind, sender, plan):
    """Wait for a message."""
    patience = Patience(20.0, first_look_seconds=0.001, last_look_seconds=0.001)
    assert await patience.until(lambda: board.read(kind, sender, plan=plan))


def vectors_of(c, name: str) -> list:
    """Every masked vector of a partner that ever reached the mailbox, whether announced or not."""
    position = c.partners.index(name).to_bytes(2, "big")
    found = []
    for path in (c.root / "mailbox" / "blobs").iterdir():
        data = path.read_bytes()
        if data[28:29] == b"\x03" and data[61:63] == position:
            found.append(data)
    return found


@pytest.mark.parametrize("step", range(24))
def test_a_partner_killed_at_any_lasting_act_finishes_the_round_with_one_vector(
    make_consortium, monkeypatch, step
):
    """Acts: root, advert, keep shares, post shares, pin vector, post it, pin survivors, confirm, unmask, end, end."""
    c = make_consortium(3)
    counts = {name: [i, 5, -i] for i, name in enumerate(c.partners)}
    with monkeypatch.context() as patched:
        dying_at(patched, step, victim="partner-b")
        deaths, outcomes = asyncio.run(with_one_that_dies(c, counts, victim="partner-b"))
    assert deaths == (1 if step < 22 else 0)
    assert all(
        outcome == {"total": [3, 15, -3], "n": 3, "survivors": list(c.partners)} for outcome in outcomes
    )
    assert len(vectors_of(c, "partner-b")) == 1


def test_a_retry_with_another_input_sends_nothing_and_names_what_happened(make_consortium):
    """A workflow engine that runs a partner's step again on other numbers: the masks are spent."""
    c = make_consortium(3)
    draft = c.draft()
    plan = publish_plan(c.boards["coordinator"], draft)

    async def twice():
        board = c.boards["coordinator"]
        leading = asyncio.create_task(conduct(board, plan, study=COUNTING, inputs=None))
        quick = [asyncio.create_task(c.take_part(n, plan, [1, 2, 3])) for n in ("partner-a", "partner-b")]
        first = asyncio.create_task(c.take_part("partner-c", plan, [7, 7, 7]))
        await seen(c.boards["partner-c"], Kind.MASKED, "partner-c", plan)
        first.cancel()
        with pytest.raises(UpdateMismatch, match="already fixed another vector"):
            await c.take_part("partner-c", plan, [8, 8, 8])
        again = await c.take_part("partner-c", plan, [7, 7, 7])
        return again, await leading, await asyncio.gather(*quick)

    again, led, _ = asyncio.run(twice())
    assert again == led
    assert led["total"] == [9, 11, 13]
    assert len(vectors_of(c, "partner-c")) == 1


def test_two_processes_of_one_partner_send_the_same_vector(make_consortium):
    c = make_consortium(3)
    plan = publish_plan(c.boards["coordinator"], c.draft())

    async def doubled():
        return await asyncio.gather(
            conduct(c.boards["coordinator"], plan, study=COUNTING, inputs=None),
            *(c.take_part(name, plan, [1, 2, 3]) for name in (*c.partners, "partner-a")),
        )

    outcomes = asyncio.run(doubled())
    assert all(outcome["total"] == [3, 6, 9] for outcome in outcomes)
    assert len(vectors_of(c, "partner-a")) == 1


def test_no_secret_of_an_ended_attempt_lies_anywhere(make_consortium):
    """Not in the mailbox, not in any partner's directory: root, seeds, polynomial keys."""
    c = make_consortium(3)
    draft = c.draft()
    roots = [c.contributor(name).vault.root(draft) for name in c.partners]
    secrets = [
        AttemptSecrets.from_root(
            root, plan_digest=bytes.fromhex(draft.digest), pair_secrets=draft.pair_secrets
        )
        for root in roots
    ]
    values = [value for s in secrets for value in (s.mask_seed, s.self_seed, *s.polynomial_keys)] + roots
    kept = [path.read_bytes() for path in c.root.rglob("*") if path.is_file()]
    assert sum(root in data for root in roots for data in kept) == 3, "the search finds what is there"
    c.run_round(draft, {name: [1, 2, 3] for name in c.partners})
    everything = [path.read_bytes() for path in c.root.rglob("*") if path.is_file()]
    assert len(everything) > 20
    for data in everything:
        assert not any(value in data or value.hex().encode() in data for value in values)


def test_the_coordinator_that_restarts_meets_its_own_decisions(make_consortium):
    """Killed after each of its closing messages, it comes to the same outcome."""
    c = make_consortium(3)
    plan = publish_plan(c.boards["coordinator"], c.draft())

    async def dying_leader():
        board, deaths = c.boards["coordinator"], 0
        for closing in (Kind.ADVERTS_CLOSED, Kind.SHARES_CLOSED, Kind.SURVIVORS, Kind.CONFIRMATIONS_CLOSED):
            leading = asyncio.create_task(conduct(board, plan, study=COUNTING, inputs=None))
            await seen(board, closing, "coordinator", plan)
            if leading.cancel():
                deaths += 1
        return deaths, await conduct(board, plan, study=COUNTING, inputs=None)

    async def everybody():
        return await asyncio.gather(
            dying_leader(), *(c.take_part(name, plan, [1, 2, 3]) for name in c.partners)
        )

    (deaths, outcome), *others = asyncio.run(everybody())
    assert deaths >= 3
    assert outcome["total"] == [3, 6, 9]
    assert others == [outcome] * 3


def test_contributors_show_no_secret(make_consortium):
    contributor = replace(make_consortium(3).contributor("partner-a"), blinding_secret=b"\x07" * 32)
    assert "partner-a\\x00" not in repr(contributor)
    assert "\\x07" not in repr(contributor)


def test_a_partner_whose_flow_is_cancelled_while_it_begins_says_nothing(make_consortium, monkeypatch):
    c = make_consortium(3)
    plan = publish_plan(c.boards["coordinator"], c.draft())
    entered, go_on, begun = (threading.Event() for _ in range(3))

    def slowly(*arguments, **named):
        entered.set()
        assert go_on.wait(20)
        return read_contribution(*arguments, **named)

    def beginning(self, *arguments, **named):
        found = begin(self, *arguments, **named)
        begun.set()
        return found

    begin = Contributor._begin
    monkeypatch.setattr("tasks.rounds.partner.read_contribution", slowly)
    monkeypatch.setattr(Contributor, "_begin", beginning)

    async def cancelled():
        taking_part = asyncio.create_task(c.take_part("partner-a", plan, [1, 2, 3]))
        assert await asyncio.to_thread(entered.wait, 20)
        taking_part.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking_part
        go_on.set()
        assert await asyncio.to_thread(begun.wait, 20)

    asyncio.run(cancelled())
    assert c.boards["partner-a"].read(Kind.ADVERT, "partner-a", plan=plan) is None
