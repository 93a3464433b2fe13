"""No two sums of the same data differ by a few partners: the coordinator refuses, and so does every partner."""

import asyncio

import pytest

from data_contracts.envelope import Kind
from data_contracts.errors import AgreementViolation, TooFewPartners
from data_contracts.plan import Lane
from data_contracts.references import BlobReference
from tasks.rounds import coordinator as coordinating
from tasks.rounds.partner import Contributor
from tasks.rounds.releases import ReleaseRegister, query_digest

MODEL = BlobReference(sha256="a" * 64, bytes=1, contract="trunk@1")


def counts_of(consortium, names=None):
    return {name: [1, 10, 100] for name in names or consortium.partners}


def accept_anything(*arguments, **more):
    """A coordinator that has been altered: it checks no release."""


def test_the_same_question_to_nearly_the_same_partners_is_refused_by_the_coordinator(make_consortium):
    c = make_consortium(5)
    first = c.run_round(c.draft(), counts_of(c))
    assert first[0]["n"] == 5
    fewer = c.draft(round_number=2, cohort=c.partners[:4])
    outcomes = c.run_round(fewer, counts_of(c, c.partners[:4]))
    assert isinstance(outcomes[0], AgreementViolation)
    assert "isolate 1 partners" in str(outcomes[0])
    assert all(isinstance(outcome, TooFewPartners) for outcome in outcomes[1:])
    assert c.boards["coordinator"].read(Kind.SURVIVORS, "coordinator", plan=fewer) is None


def test_a_coordinator_that_does_not_check_is_refused_by_every_partner_before_anything_opens(
    make_consortium, monkeypatch
):
    c = make_consortium(5)
    c.run_round(c.draft(), counts_of(c))
    monkeypatch.setattr(coordinating, "check_release", accept_anything)
    fewer = c.draft(round_number=2, cohort=c.partners[:4], seconds=0.5)
    outcomes = c.run_round(fewer, counts_of(c, c.partners[:4]))
    assert all(isinstance(outcome, AgreementViolation) for outcome in outcomes[1:])
    assert isinstance(outcomes[0], TooFewPartners), "no confirmation ever came"
    assert all(c.boards[name].read(Kind.CONFIRMATION, name, plan=fewer) is None for name in c.partners[:4])


def test_the_same_partners_may_be_asked_again_and_so_may_others_that_differ_by_the_minimum(make_consortium):
    c = make_consortium(6)
    for number, names in ((1, c.partners), (2, c.partners), (3, c.partners[:3])):
        draft = c.draft(round_number=number, threshold=4).model_copy(
            update={"cohort": names, "threshold": min(4, len(names))}
        )
        assert c.run_round(draft, counts_of(c, names))[0]["n"] == len(names)


def test_a_dropout_between_two_models_is_no_repetition(make_consortium):
    """Training goes on when somebody drops out: another model is another question."""
    c = make_consortium(4)
    c.run_round(c.draft(model_in=MODEL), counts_of(c))
    later = MODEL.model_copy(update={"sha256": "b" * 64})
    draft = c.draft(round_number=2, model_in=later, cohort=c.partners[:3])
    assert c.run_round(draft, counts_of(c, c.partners[:3]))[0]["n"] == 3


def test_a_partner_that_was_late_remembers_the_sum_that_was_opened_without_it(make_consortium, monkeypatch):
    """partner-d sees three others summed; a later sum over all four would betray its value, and it says no."""
    c = make_consortium(4)
    draft = c.draft(seconds=0.5)
    asyncio.run(c.play(draft, counts_of(c, c.partners[:3])))
    late = c.contributor("partner-d")
    outcome = asyncio.run(late.contribute(draft, c.root))
    assert outcome["survivors"] == list(c.partners[:3])
    monkeypatch.setattr(coordinating, "check_release", accept_anything)
    outcomes = c.run_round(c.draft(round_number=2, seconds=0.5), counts_of(c))
    assert all(isinstance(outcome, AgreementViolation) for outcome in outcomes[1:])


def test_a_sum_is_recorded_before_the_confirmation_leaves(make_consortium, monkeypatch):
    """As after a kill -9: nothing that runs on the way out of a round may be needed."""
    monkeypatch.setattr(Contributor, "_record_survivors", accept_anything)
    c = make_consortium(4)
    c.run_round(c.draft(), counts_of(c))
    for name in c.partners:
        with pytest.raises(AgreementViolation, match="isolate 1"):
            c.contributor(name).vault.releases.check(c.draft(round_number=2), c.partners[:3])


def test_an_attempt_abandoned_after_its_survivors_were_named_counts_as_opened(make_consortium, monkeypatch):
    """A coordinator could collect the unmasking shares and then say it gave up."""
    c = make_consortium(4)
    c.run_round(c.draft(), counts_of(c))
    draft = c.draft(round_number=2, model_in=MODEL)

    async def given_up():
        board = c.boards["coordinator"]
        plan = coordinating.publish_plan(board, draft)
        parts = [asyncio.create_task(c.take_part(name, plan, [1, 2, 3])) for name in c.partners]
        conductor = coordinating.RoundConductor(board=board, plan=plan)
        await conductor.secure_sum()
        board.post_json(Kind.ABANDONED, {}, plan=plan)
        return await asyncio.gather(*parts, return_exceptions=True)

    assert all(isinstance(outcome, TooFewPartners) for outcome in asyncio.run(given_up()))
    monkeypatch.setattr(coordinating, "check_release", accept_anything)
    again = c.draft(round_number=2, model_in=MODEL, cohort=c.partners[:3], seconds=0.5)
    outcomes = c.run_round(again, counts_of(c, c.partners[:3]))
    assert all(isinstance(outcome, AgreementViolation) for outcome in outcomes[1:])


def test_the_next_attempt_asks_exactly_those_whose_sum_may_be_out(make_consortium):
    """Three of four were named, then the attempt was given up; all four are back, and three are asked again."""
    c = make_consortium(4)
    draft, board = c.draft(seconds=0.4), c.boards["coordinator"]

    async def given_up():
        plan = coordinating.publish_plan(board, draft)
        parts = [asyncio.create_task(c.take_part(name, plan, [1, 2, 3])) for name in c.partners[:3]]
        await coordinating.RoundConductor(board=board, plan=plan).secure_sum()
        board.post_json(Kind.ABANDONED, {}, plan=plan)
        await asyncio.gather(*parts, return_exceptions=True)

    asyncio.run(given_up())
    outcomes = c.run_round(draft, counts_of(c))
    again = coordinating.publish_plan(board, draft)
    assert (again.attempt, again.cohort) == (1, c.partners[:3])
    assert outcomes[0]["survivors"] == list(c.partners[:3])
    assert outcomes == [outcomes[0]] * 5


def test_the_register_outlasts_a_run(make_consortium, tmp_path):
    c = make_consortium(5)
    register = ReleaseRegister(tmp_path / "register")
    register.record(c.draft(run_id="run-old"), c.partners)
    register.record(c.draft(run_id="run-old"), c.partners)
    again = ReleaseRegister(tmp_path / "register")
    again.check(c.draft(run_id="run-new"), c.partners)
    with pytest.raises(AgreementViolation, match="isolate 2"):
        again.check(c.draft(run_id="run-new", round_number=7), c.partners[:3])


def test_an_attempt_is_not_set_against_itself(make_consortium, tmp_path):
    """A restart checks again what it has recorded."""
    c = make_consortium(5)
    register = ReleaseRegister(tmp_path / "register")
    register.record(c.draft(), c.partners)
    register.check(c.draft(), c.partners)


@pytest.mark.parametrize(
    "fields",
    [
        {"run_id": "run-2"},
        {"round": 7},
        {"attempt": 3},
        {"deadline_seconds": 1.0},
        {"parameters": {"arms": 2, "learning_rate": 0.1000001}},
        {"lanes": (Lane(name="counts", length=3, ring_bits=64, value_bits=40),)},
        {"lanes": (Lane(name="counts", length=3, ring_bits=32, value_bits=20, clip=1.5),)},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_can_be_varied_by_a_hairs_breadth_makes_no_other_question(make_consortium, fields):
    plan = make_consortium(4).draft(parameters={"arms": 2, "learning_rate": 0.1})
    assert query_digest(plan.model_copy(update=fields)) == query_digest(plan)


@pytest.mark.parametrize(
    "fields",
    [
        {"study": "other"},
        {"model_in": MODEL},
        {"parameters": {"arms": 3, "learning_rate": 0.1}},
        {"lanes": (Lane(name="others", length=3, ring_bits=64, value_bits=48),)},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_another_study_model_choice_or_lane_is_another_question(make_consortium, fields):
    plan = make_consortium(4).draft(parameters={"arms": 2, "learning_rate": 0.1})
    assert query_digest(plan.model_copy(update=fields)) != query_digest(plan)
