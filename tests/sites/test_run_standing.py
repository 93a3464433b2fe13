"""What a page and a terminal say of a run: true at every phase, and to the byte."""

import asyncio
import json

import numpy as np
import pytest

from data_contracts.envelope import Kind
from flows.cli import main
from flows.enrolment import join_consortium
from flows.run_page import as_markdown
from flows.run_tables import ROUND_SECONDS, own_figures, seconds_of, sent_rows
from flows.settings import RunSettings
from flows.site_settings import RunOpening
from flows.watching import Watch
from tasks.rounds.coordinator import conduct
from tasks.rounds.partner import Contributor
from tasks.rounds.patience import Patience
from tasks.rounds.study import write_contribution
from tasks.studies.evaluation import EVALUATION
from tests.sites import places as made
from tests.sites.places import PARTNERS
from tests.sites.test_auditor import RUN, play

UPLIFT = {
    "metrics": {
        "auprc": {
            "arms": {"single": {"value": 0.5}, "federated": {"value": 0.625}},
            "uplift": {"value": 0.125},
            "riptop": {"value": 0.25},
        }
    }
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A consortium that has played one round."""
    everybody = made.make_all(tmp_path_factory.mktemp("sites"), auditor=True)
    made.enrolled(everybody).serve()
    for name in PARTNERS:
        asyncio.run(join_consortium(everybody.site(name)))
    asyncio.run(play(everybody))
    yield everybody
    everybody.close()


def bytes_in_mailbox(places, name):
    """What lies in the mailbox of a party: envelopes and bodies, as its operator counts them."""
    root = places.site("mailbox").path / "mailbox"
    total = 0
    for path in (root / "messages" / RUN).rglob(f"{name}.json"):
        envelope = json.loads(path.read_bytes())
        apart = (
            0
            if "inline" in envelope
            else (root / "blobs" / envelope["head"]["body"]["sha256"]).stat().st_size
        )
        total += path.stat().st_size + apart
    return total


@pytest.mark.parametrize("name", PARTNERS)
def test_what_has_left_the_building_is_every_byte_that_the_mailbox_holds_of_a_site(places, name):
    sent = Watch(places.site(name).board(RUN)).sent(name)
    assert sum(each.bytes for each in sent) == bytes_in_mailbox(places, name)
    assert {each.kind for each in sent} == {"advert", "shares", "masked", "confirmation", "unmasking"}
    rows = sent_rows(sent)
    assert rows[-1][0] == "all"
    assert rows[-1][-1] == sum(rows[-1][1:-1]) == sum(row[-1] for row in rows[:-1])


@pytest.mark.parametrize("name", ["coordinator", "partner-a", "auditor"])
def test_everybody_sees_the_same_standing(places, name):
    standing = Watch(places.site(name).board(RUN)).standing()
    (only,) = standing.rounds
    assert (only.phase, only.survivors, only.study) == ("done", PARTNERS, "evaluation")
    assert only.masked_bytes > 0
    assert standing.awaited == ("coordinator",)  # a next round, or the end


def test_a_run_is_followed_from_its_opening_through_every_phase(places):
    coordinator = places.site("coordinator")
    made.share_key(places, "followed")
    board = coordinator.board("followed")
    watch = Watch(board)
    seen = []

    def look():
        standing = watch.standing()
        seen.append((standing.phase, standing.awaited))

    look()
    opening = RunOpening(
        roster=coordinator.roster.digest, settings=RunSettings(data="x", partners=3, pooled_arm=False)
    )
    board.post_json(Kind.RUN_OPENED, opening.model_dump(mode="json"))
    look()
    for name in PARTNERS[:2]:
        answer = {"v": 1, "opening": opening.digest, "accepts": True, "reason": ""}
        places.site(name).board("followed").post_json(Kind.RUN_ANSWER, answer)
    look()
    places.site("partner-c").board("followed").post_json(
        Kind.RUN_ANSWER, {"v": 1, "opening": opening.digest, "accepts": False, "reason": "no"}
    )
    look()
    board.post_json(Kind.RUN_CLOSED, {"refused_by": ["partner-c"]})
    look()
    assert seen == [
        ("not opened", ("coordinator",)),
        ("partners answer", PARTNERS),
        ("partners answer", ("partner-c",)),
        ("before the first round", ("coordinator",)),
        ("refused", ("partner-c",)),
    ]


def test_who_keeps_a_round_waiting_is_named_with_the_phase(places):
    made.share_key(places, "slow")
    boards = {name: places.site(name).board("slow") for name in (*PARTNERS, "coordinator")}
    leading = boards["coordinator"]
    plan = _plan_of(places).model_copy(update={"run_id": "slow"})
    leading.post_json(Kind.PLAN, plan.model_dump(mode="json"), plan=plan)

    async def two_of_three():
        def part(name):
            directory = places.site(name).path / "slow-contribution"
            write_contribution(directory, {lane.name: np.full(lane.length, 1) for lane in plan.lanes})
            vault = places.site(name).in_run("slow").vault
            return Contributor(boards[name], vault, bytes(32), Patience(60.0)).contribute(plan, directory)

        waiting = asyncio.gather(
            conduct(leading, plan, study=EVALUATION, inputs=leading.mailbox.blobs), *map(part, PARTNERS[:2])
        )
        watch = Watch(leading)

        def look():
            found = watch.standing()
            return found if found.awaited == ("partner-c",) else None

        standing = await Patience(30.0).until(look)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return standing

    standing = asyncio.run(two_of_three())
    assert (standing.phase, standing.rounds[0].survivors) == ("keys", ())


def _plan_of(places):
    from tasks.rounds.committed import plan_at

    return plan_at(places.site("coordinator").board(RUN), 0, 0)


def test_a_page_of_the_coordinator_shows_sums_and_of_a_partner_its_own_figures(places):
    board = places.site("partner-a").board(RUN)
    watch = Watch(board)
    standing = watch.standing()
    figures = own_figures(UPLIFT)
    mine = as_markdown(
        standing, me="partner-a", sent=watch.sent("partner-a"), figures=figures, seconds={0: 1.25}
    )
    assert "| AUPRC uplift | +0.125 |" in mine
    assert "What has left the building of partner-a" in mine
    assert "| 0 | evaluation | done | 3 of 3 | - |" in mine
    theirs = as_markdown(standing, me="coordinator", sent=[], figures={}, seconds={0: 1.25})
    assert "uplift" not in theirs
    assert "left the building" not in theirs
    assert "1.2 |" in theirs or "1.3 |" in theirs


def test_a_torn_line_and_a_round_that_was_found_again_do_not_change_its_seconds(tmp_path):
    (tmp_path / ROUND_SECONDS).write_text(
        '{"round": 0, "seconds": 5.5}\n{"round": 0, "seconds": 0.1}\n{"round": 1, "sec'
    )
    assert seconds_of(tmp_path) == {0: 5.5}


def motet(*arguments, home, capsys):
    code = main([*arguments, "--home", str(home), "--json"])
    said = capsys.readouterr().out
    return code, json.loads(said.splitlines()[-1]), said


def test_the_terminal_shows_runs_and_of_one_run_its_rounds_and_bytes(places, capsys):
    home = places.site("partner-a").path
    code, told, said = motet("status", home=home, capsys=capsys)
    assert code == 0
    assert told["runs"][RUN]["phase"] == "done"
    assert "audited" in said
    code, told, said = motet("status", RUN, home=home, capsys=capsys)
    assert told["runs"][RUN]["sent_bytes"] == bytes_in_mailbox(places, "partner-a")
    assert "what has left the building of partner-a, in bytes:" in said
    _, told, said = motet("status", RUN, home=places.site("coordinator").path, capsys=capsys)
    assert told["runs"][RUN]["sent"] == []


def test_a_forged_message_is_nobodys_and_its_place_counts_as_empty(places):
    root = places.site("mailbox").path / "mailbox" / "messages" / RUN
    (advert,) = root.rglob("advert/partner-a.json")
    forged = root / "r00000-a0" / "refusal" / "partner-a.json"
    forged.parent.mkdir(exist_ok=True)
    forged.write_bytes(advert.read_bytes())
    try:
        sent = Watch(places.site("partner-a").board(RUN)).sent("partner-a")
        assert "refusal" not in {each.kind for each in sent}
    finally:
        forged.unlink()
