"""A coordinator that lies, asks too much or forges: every partner refuses by name, computes nothing, and keeps it on record."""

import asyncio
import base64
import json
from datetime import timedelta

import pytest

from data_contracts.canonical_json import canonical_bytes, digest_of
from data_contracts.envelope import Envelope, Head, Kind, Slot, is_inline
from data_contracts.errors import AgreementViolation, MotetError, ProtocolError, TooFewPartners
from data_contracts.plan import Lane, RoundPlan
from data_contracts.references import BlobReference
from flows.enrolment import join_consortium
from flows.run_keys import share_run_key
from flows.settings import RunSettings
from flows.site_run import next_run, participate
from flows.site_settings import RunOpening
from tasks.exchange.identity import Identity
from tasks.exchange.mailbox import DirectoryMailbox
from tasks.rounds.coordinator import conduct
from tasks.studies.catalogue import CATALOGUE
from tests.sites import places as made
from tests.sites.places import NOW, PARTNERS

RUN = "first"
SETTINGS = RunSettings(data="qsar-2026", partners=3, hidden=64, pooled_arm=False)
HUGE = BlobReference(sha256="b" * 64, bytes=2**40, contract="catalogue@1")


@pytest.fixture
def places(tmp_path):
    everybody = made.make_all(tmp_path)
    made.enrolled(everybody).serve()
    for name in PARTNERS:
        asyncio.run(join_consortium(everybody.site(name)))
    yield everybody
    everybody.close()


class HostileCoordinator:
    """Holds the coordinator's key, and may hold the mailbox too."""

    def __init__(self, places, *, run_id=RUN):
        site = places.site("coordinator")
        self.run_id = run_id
        self.board, self.digest = site.board(run_id), site.roster.digest
        share_run_key(site.open_board(run_id), key=site.run_key(run_id), roster=site.roster)
        self.identity = site.identity
        self.below = DirectoryMailbox(places.site("mailbox").path / "mailbox")

    def open_run(self, *, more=None, **changed):
        settings = SETTINGS.model_copy(update=changed)
        opening = RunOpening(roster=self.digest, settings=settings).model_dump(mode="json")
        self.board.post_json(Kind.RUN_OPENED, opening | (more or {}))

    def sealed(self, content):
        return self.board.seal().seal([content], slot=Slot(self.run_id, 0, 0, Kind.PLAN, "coordinator"))

    def plan(self, **changed):
        plan = RoundPlan(
            run_id=self.run_id,
            round=0,
            study="catalogue",
            cohort=PARTNERS,
            threshold=3,
            lanes=(Lane(name="trained", length=1, ring_bits=64, value_bits=2),),
            model_in=BlobReference(sha256="b" * 64, bytes=10, contract="catalogue@1"),
            deadline_seconds=20,
        )
        return plan.model_copy(update=changed)

    def post(self, plan, *, more=None, digest=None, identity=None):
        """Post a plan; whatever of it is not honest is written past the mailbox's own checks."""
        content = canonical_bytes(plan.model_dump(mode="json") | (more or {}))
        sealed = self.sealed(content)
        head = Head(
            run_id=self.run_id,
            round=0,
            attempt=0,
            kind=Kind.PLAN,
            sender="coordinator",
            plan_digest=digest or plan.digest,
            body=self.below.put_body([sealed], contract="sealed@1"),
        )
        signature = (identity or self.identity).sign(head.signed_bytes).hex()
        here = is_inline(Kind.PLAN, len(sealed))
        inline = base64.b64encode(sealed).decode() if here else None
        self.below.post(head.slot, Envelope(head=head, signature=signature, inline=inline).to_bytes())
        return plan


@pytest.fixture
def coordinator(places):
    return HostileCoordinator(places)


def answer_of(places, name):
    """What a partner answers; it must be an error of the tree."""
    with pytest.raises(MotetError) as refusal:
        asyncio.run(participate.fn(site=str(places.site(name).path), run_id=RUN))
    return refusal.value


def on_record(places, name):
    kept = sorted((places.site(name).path / "refusals" / RUN).glob("*.json"))
    return [json.loads(path.read_bytes()) for path in kept]


def computed(places, name):
    home = places.site(name).path
    return [
        path for path in (home / "prepared", home / "runs" / RUN / "rounds", home / "mlflow") if path.exists()
    ]


BEYOND = {
    "a data set never granted": ({"data": "salts-2026"}, {}, "'salts-2026' was never granted"),
    "a trunk beyond the policy": ({"hidden": 8192}, {}, "a trunk of 8192, at most 64"),
    "rounds beyond the policy": ({"rounds": 1000}, {}, "1000 rounds, at most 100"),
    "a study never granted": ({}, {"study": "safety-signals"}, "'safety-signals' was never granted"),
    "an oversized vector": (
        {},
        {"lanes": (Lane(name="trained", length=2**31, ring_bits=64, value_bits=2),)},
        "a vector of 17179869184 bytes",
    ),
    "an oversized model": ({}, {"model_in": HUGE}, "a model of 1099511627776 bytes"),
    "another run than it opened": ({}, {"parameters": {"hidden": 32}}, "another 'hidden'"),
}


@pytest.mark.parametrize("case", BEYOND)
def test_a_plan_beyond_what_is_granted_is_refused_by_every_partner_and_said_to_all(places, coordinator, case):
    opening, changed, named = BEYOND[case]
    coordinator.open_run(**opening)
    plan = coordinator.post(coordinator.plan(**changed))
    for name in PARTNERS:
        answer = answer_of(places, name)
        assert isinstance(answer, AgreementViolation)
        of_the_run = bool(opening)  # refused before any plan was looked at
        assert str(answer).startswith(
            f"'{name}' refuses run 'first'" if of_the_run else f"'{name}' refuses the plan of round 0"
        )
        assert named in str(answer)
        assert [each["message"] for each in on_record(places, name)] == [str(answer)]
        said = coordinator.board.read(Kind.RUN_ANSWER, name).json()
        if of_the_run:
            assert (said["accepts"], said["reason"]) == (False, str(answer))
        else:
            assert said["accepts"]
            refusal = coordinator.board.read(Kind.REFUSAL, name, plan=plan)
            assert refusal.json() == {"reason": str(answer)}
        assert computed(places, name) == []


def test_rounds_after_expiry_are_refused(places, coordinator):
    coordinator.open_run()
    coordinator.post(coordinator.plan())
    for name in PARTNERS:
        path = places.site(name).path / "policy.json"
        path.write_text(made.policy(expires=NOW - timedelta(days=1)).model_dump_json())
        assert "what was granted expired" in str(answer_of(places, name))


def test_a_coordinator_whose_plan_all_refuse_does_not_wait_for_the_deadline(places, coordinator):
    coordinator.open_run()
    plan = coordinator.post(coordinator.plan(deadline_seconds=3600, model_in=HUGE))
    for name in PARTNERS:
        answer_of(places, name)
    with pytest.raises(TooFewPartners, match="missing or refused: partner-a, partner-b, partner-c"):
        asyncio.run(conduct(coordinator.board, plan, study=CATALOGUE, inputs=None))


MALFORMED = {
    "a wrong digest": ({"digest": digest_of("another plan")}, "for another run, round, attempt or roster"),
    "a code reference": ({"more": {"entrypoint": "os:system"}}, "is refused at: entrypoint"),
    "a cohort of strangers": (
        {"more": {"cohort": ["a", "b", "c"]}},
        "for another run, round, attempt or roster",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_plan_that_is_none_is_refused_by_every_partner(places, coordinator, case):
    forgery, named = MALFORMED[case]
    coordinator.open_run()
    coordinator.post(coordinator.plan(), **forgery)
    for name in PARTNERS:
        answer = answer_of(places, name)
        assert isinstance(answer, ProtocolError)
        assert named in str(answer)
        assert [each["message"] for each in on_record(places, name)] == [str(answer)]
        assert computed(places, name) == []


UNSIGNED = {
    "a key of its own": ({"identity": Identity("coordinator", b"\x07" * 32)}, "carries no valid signature"),
    "an endless body": ({"more": {"parameters": "x" * 600_000}}, "at most 524288 are allowed"),
}


@pytest.mark.parametrize("case", UNSIGNED)
def test_a_plan_that_the_coordinator_did_not_sign_or_may_not_send_stops_nobody_and_is_kept(
    places, coordinator, case
):
    forgery, named = UNSIGNED[case]
    coordinator.open_run()
    coordinator.post(coordinator.plan(), **forgery)
    for name in PARTNERS:
        assert "'coordinator' sent no plan for round 0" in str(answer_of(places, name))
        (kept,) = (places.site(name).path / "quarantine").glob("*.json")
        assert named in json.loads(kept.read_bytes())["why"]
        assert computed(places, name) == []


def test_a_run_opened_with_more_than_there_is_to_a_run_is_refused(places, coordinator):
    coordinator.open_run(more={"pull": ["https://example.org/code"]})
    for name in PARTNERS:
        assert "opened a run that is refused at: pull" in str(answer_of(places, name))


def test_a_refused_run_is_not_taken_up_again_by_itself(places, coordinator):
    coordinator.open_run(data="salts-2026")
    coordinator.post(coordinator.plan())
    assert asyncio.run(next_run(places.site("partner-a"))) == RUN
    answer_of(places, "partner-a")
    with pytest.raises(ProtocolError, match="'coordinator' opened no run"):
        asyncio.run(next_run(places.site("partner-a")))
    assert asyncio.run(next_run(places.site("partner-b"))) == RUN
