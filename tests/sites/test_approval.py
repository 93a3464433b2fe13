"""The data steward's word: what grants a run, what does not, and what anybody else learns of it."""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from data_contracts.envelope import Kind
from data_contracts.errors import AgreementViolation, SettingsError, TooFewPartners
from flows.approvals import STEWARD, Decision, SignedDecision, take
from flows.cli import requests as commands
from flows.consent import (
    StewardDecision,
    answer_run,
    asked_of,
    await_answers,
    demand_approval,
    requests_of,
    what_leaves,
)
from flows.enrolment import join_consortium
from flows.settings import RunSettings
from flows.site_run import gate
from flows.site_settings import Policy, RunOpening
from tasks.exchange.identity import Identity, secret_file
from tests.sites import places as made
from tests.sites.places import NOW, PARTNERS

RUN, ASKED = "first", "partner-a"
SETTINGS = RunSettings(data="qsar-2026", partners=3, hidden=64, pooled_arm=False)
TOMORROW = NOW + timedelta(days=1)
WHY = "the contract of the eastern branch is not signed"


@pytest.fixture
def places(tmp_path):
    everybody = made.make_all(tmp_path)
    made.enrolled(everybody).serve()
    for name in PARTNERS:
        asyncio.run(join_consortium(everybody.site(name)))
    ask_steward(everybody)
    yield everybody
    everybody.close()


def ask_steward(places, **changed):
    """Partner A's steward wants to see every run."""
    granted = made.policy(**({"approval": {}} | changed))
    (places.site(ASKED).path / "policy.json").write_text(granted.model_dump_json())


class Site:
    """A partner that was asked to take part in a run."""

    def __init__(self, places, *, name=ASKED, run_id=RUN, **changed):
        made.share_key(places, run_id)
        self.home = places.site(name)
        self.board = self.home.board(run_id)
        self.opening = RunOpening(
            roster=self.home.roster.digest, settings=SETTINGS.model_copy(update=changed)
        )
        self.steward = Identity(STEWARD, secret_file(self.home.keys / STEWARD))

    @property
    def asked(self):
        return asked_of(self.home, self.board, self.opening)

    @property
    def requests(self):
        return requests_of(self.home)

    def answer(self):
        asyncio.run(answer_run(self.home, self.board, self.opening))

    def meet(self):
        """Meet the run and leave, as a site that is killed while it waits."""

        async def wait_a_little():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(answer_run(self.home, self.board, self.opening), timeout=0.05)

        asyncio.run(wait_a_little())
        return self.requests.find(self.asked.id)

    def signed(self, *, by=None, **changed):
        decision = Decision(
            **{
                "site": self.asked.site,
                "request": self.asked.digest,
                "verdict": "approve",
                "at": NOW,
                "until": TOMORROW,
            }
            | changed
        )
        return SignedDecision.make(decision, by or self.steward)

    def said(self):
        message = self.board.read(Kind.RUN_ANSWER, self.home.name)
        return None if message is None else message.json()

    def command(self, name, **given):
        arguments = {
            "home": self.home.path,
            "request": self.asked.id,
            "key": None,
            "until": None,
            "print": False,
            "reason": "",
            "tell": False,
        }
        return getattr(commands, name)(argparse.Namespace(**(arguments | given)))


@pytest.fixture
def site(places):
    return Site(places)


def test_a_site_that_waits_has_said_nothing_and_shows_what_is_asked(site):
    request = site.meet()
    assert site.said() is None
    shown = dict(request.lines)
    assert shown["training"] == "24 rounds of 1 local epoch"
    assert shown["takes part"] == "partner-a, partner-b, partner-c"
    assert shown["digest"] == site.asked.digest
    assert any("at most 4.2 MB" in text for _, text in request.lines)
    assert site.command("show")["stands"] == "waiting"


def test_a_signed_approval_lets_the_run_go_on_and_says_so_to_the_coordinator(site):
    site.meet()
    site.command("approve")
    site.answer()
    assert site.said() == {"v": 1, "opening": site.opening.digest, "accepts": True, "reason": ""}
    demand_approval(site.home, site.board, site.opening)
    assert site.command("show")["stands"] == "approved"


def test_the_policy_alone_grants_what_it_names_and_everything_else_needs_the_steward(site):
    policy = made.policy(approval={"qsar-2026": "policy", "qsar-2026/evaluation": "steward"})
    assert policy.for_the_steward("qsar-2026") == ("evaluation",)
    assert policy.for_the_steward("salts-2026") == ("catalogue", "evaluation", "qsar-training")
    (site.home.path / "policy.json").write_text(made.policy().model_dump_json())
    site.answer()
    assert site.said()["accepts"]
    assert site.requests.all() == []


def _unsigned(site, places):
    return json.dumps({"decision": site.signed().decision.model_dump(mode="json")})


def _a_click(site, places):
    return ""


def _its_own_key(site, places):
    return site.signed(by=site.home.identity).token


def _a_strangers_key(site, places):
    return site.signed(by=Identity(STEWARD, b"\x07" * 32)).token


def _of_another_request(site, places):
    return Site(places, run_id="second").signed().token


def _of_another_plan(site, places):
    return Site(places, rounds=13).signed().token


def _of_another_site(site, places):
    return site.signed(site="partner-b").token


def _expired(site, places):
    return site.signed(until=NOW - timedelta(seconds=1)).token


def _a_refusal(site, places):
    return site.signed(verdict="refuse").token


def _altered(site, places):
    return site.signed().token.replace(site.asked.digest, "0" * 64)


FALSE = {
    "unsigned": (_unsigned, "no signature"),
    "a click": (_a_click, "no signature"),
    "signed with the site's own key": (_its_own_key, "not signed with the key of this site's data steward"),
    "signed by a stranger": (_a_strangers_key, "not signed with the key"),
    "signed for another run": (_of_another_request, "another request"),
    "signed for another plan of the run": (_of_another_plan, "another request"),
    "signed for another site": (_of_another_site, "another request"),
    "expired": (_expired, "expired on"),
    "a signed refusal": (_a_refusal, "a refusal"),
    "altered": (_altered, "not signed with the key"),
}


@pytest.mark.parametrize("case", FALSE)
def test_what_is_no_approval_of_this_request_grants_nothing_and_is_kept(site, places, case):
    make, why = FALSE[case]
    request = site.meet()
    given = make(site, places)
    assert not take(
        site.requests, request, given, steward_key=site.home.settings.steward_key, now=datetime.now(UTC)
    )
    (kept,) = (site.home.path / "requests" / f"{site.asked.id}.set-aside").glob("*.json")
    assert why in json.loads(kept.read_bytes())["why"]
    # The same written past all checks, by whoever holds the directory.
    (site.home.path / "requests" / f"{site.asked.id}.approved.json").write_text(given)
    site.meet()
    assert site.said() is None
    with pytest.raises(AgreementViolation, match="no approval of its data steward holds now"):
        demand_approval(site.home, site.board, site.opening)
    site.command("approve")  # and the true one makes way through it
    site.answer()
    assert site.said()["accepts"]


def test_a_changed_plan_is_a_new_request_which_the_old_approval_does_not_grant(site, places):
    site.meet()
    site.command("approve")
    changed = Site(places, hidden=32)
    changed.meet()
    assert [request.settings.hidden for request in site.requests.all()] == [64, 32]
    assert changed.said() is None


def test_a_changed_policy_of_the_steward_is_a_new_request(site, places):
    site.meet()
    site.command("approve")
    ask_steward(places, studies=("catalogue", "qsar-training"))
    site.meet()
    assert len(site.requests.all()) == 2


def test_silence_is_a_refusal_which_names_no_reason_and_stands_after_a_restart(site, places):
    ask_steward(places, approval_timeout_seconds=0.05)
    for _ in range(2):
        with pytest.raises(
            AgreementViolation,
            match="'partner-a' refuses run 'first': its data steward approved nothing in time",
        ):
            site.answer()
    assert not site.said()["accepts"]
    with pytest.raises(AgreementViolation, match="approved nothing in time"):
        site.command("approve")


def test_the_time_limit_runs_on_while_the_site_is_down(site, places):
    request = site.meet()
    ask_steward(places, approval_timeout_seconds=1)  # what was asked keeps the limit that it had
    assert site.meet().answer_by == request.answer_by


@pytest.mark.parametrize("tell", [False, True])
def test_a_refusal_is_said_by_name_and_its_reason_only_if_the_steward_says_so(site, tell):
    site.meet()
    site.command("refuse", reason=WHY, tell=tell)
    with pytest.raises(AgreementViolation, match="'partner-a' refuses run 'first': its data steward refused"):
        site.answer()
    assert (WHY in json.dumps(site.said())) == tell
    assert site.command("show")["reason"] == WHY


def test_an_approval_can_be_taken_back_while_the_run_lasts(site):
    site.meet()
    site.command("approve")
    site.answer()
    site.command("refuse", reason=WHY)
    with pytest.raises(AgreementViolation, match="its data steward refused"):
        demand_approval(site.home, site.board, site.opening)
    with pytest.raises(AgreementViolation, match="its data steward refused"):
        site.command("approve")


def test_an_answer_stands(site, places):
    ask_steward(places, approval_timeout_seconds=0.01)
    with pytest.raises(AgreementViolation):
        site.answer()
    (site.home.path / "policy.json").write_text(made.policy().model_dump_json())
    with pytest.raises(AgreementViolation, match="has refused run 'first' before"):
        site.answer()


def test_the_command_refuses_a_key_that_is_not_the_stewards_and_makes_none(site, tmp_path):
    site.meet()
    with pytest.raises(SettingsError, match="this decision would not count: it is not signed with the key"):
        site.command("approve", key=site.home.keys / "identity")
    with pytest.raises(SettingsError, match="the steward's key is not at"):
        site.command("approve", key=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    assert site.command("requests")["requests"][0]["stands"] == "waiting"


def test_a_printed_approval_counts_only_once_it_was_pasted(site):
    request = site.meet()
    token = site.command("approve", print=True)["token"]
    assert site.command("show")["stands"] == "waiting"
    form = StewardDecision(decision="approve", signature=token)
    assert take(
        site.requests,
        request,
        form.signature,
        steward_key=site.home.settings.steward_key,
        now=datetime.now(UTC),
    )
    assert site.command("show")["stands"] == "approved"


def test_a_coordinator_opens_no_round_before_all_have_answered_and_closes_a_refused_run(places, site):
    coordinator = places.site("coordinator")
    board = coordinator.board(RUN)
    for name in ("partner-b", "partner-c"):
        Site(places, name=name).answer()
    with pytest.raises(TooFewPartners, match=r"have not answered run 'first' within 0.3 s: partner-a"):
        asyncio.run(await_answers(coordinator, board, site.opening))
    assert board.read(Kind.RUN_CLOSED, "coordinator") is None
    site.meet()
    site.command("refuse", reason=WHY)
    with pytest.raises(AgreementViolation):
        site.answer()
    with pytest.raises(AgreementViolation, match="run 'first' is closed: 'partner-a' refuses") as closed:
        asyncio.run(await_answers(coordinator, board, site.opening))
    assert WHY not in str(closed.value)
    assert board.read(Kind.RUN_CLOSED, "coordinator").json() == {"refused_by": ["partner-a"]}


def test_every_plan_of_the_run_is_set_against_the_approval_as_it_stands_then(places, site):
    from tests.sites.test_hostile_coordinator import HostileCoordinator

    site.meet()
    site.command("approve")
    plan = HostileCoordinator(places).plan()
    accept = gate(site.home, site.board, site.opening)
    accept(plan)
    site.command("refuse", reason=WHY)
    with pytest.raises(AgreementViolation):
        accept(plan)
    said = site.board.read(Kind.REFUSAL, ASKED, plan=plan).json()["reason"]
    assert WHY not in said


def test_a_site_that_is_killed_while_it_waits_finds_the_approval_that_was_given_meanwhile(site):
    source = (
        "import asyncio, sys\n"
        "from flows.consent import answer_run\n"
        "from flows.site_directory import open_site\n"
        "from flows.site_settings import RunOpening\n"
        "home = open_site(sys.argv[1])\n"
        "opening = RunOpening.model_validate_json(sys.argv[2])\n"
        "print('waits', flush=True)\n"
        "asyncio.run(answer_run(home, home.board('first'), opening))\n"
        "print('answered', flush=True)\n"
    )

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", source, str(site.home.path), site.opening.model_dump_json()],
            stdout=subprocess.PIPE,
            text=True,
        )

    with start() as first:
        assert first.stdout.readline() == "waits\n"
        first.send_signal(signal.SIGKILL)
    site.meet()
    site.command("approve")
    with start() as second:
        assert second.stdout.read().split() == ["waits", "answered"]
    assert site.said()["accepts"]


def test_a_policy_of_before_needs_the_steward():
    old = {"data_sets": ["qsar-2026"], "expires": TOMORROW.isoformat()}
    assert Policy.model_validate_json(json.dumps(old)).approver("qsar-2026", "qsar-training") == "steward"


def test_what_leaves_is_told_as_the_run_will_do_it():
    def told(**changed):
        settings = SETTINGS.model_copy(update=changed)
        return " ".join(what_leaves(RunOpening(roster="a" * 64, n_listed=3, settings=settings)))

    assert "masked update, at most 4." in told()
    assert "metrics of the validation fold" in told()
    assert "evaluations after them: 2" in told()
    assert "evaluations after them: 1" in told(phase="report", rounds_from="tuned")
    assert "masked gradient of one minibatch" in told(algorithm="fedsgd")
