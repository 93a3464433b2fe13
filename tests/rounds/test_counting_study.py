"""The seam: a third, tiny study (an exact secure count) runs over the engine without a change in it."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from data_contracts.envelope import Kind
from data_contracts.errors import (
    AgreementViolation,
    ProtocolError,
    SettingsError,
    TooFewPartners,
    UpdateMismatch,
)
from data_contracts.plan import Lane
from tasks.exchange.mailbox import DirectoryMailbox
from tasks.rounds.coordinator import conduct, publish_plan
from tasks.rounds.partner import next_plan
from tasks.rounds.patience import Patience
from tasks.rounds.study import Study, write_contribution

COUNTS = Lane(name="counts", length=3, ring_bits=64, value_bits=48)


async def count(plan, inputs, directory):
    write_contribution(directory, {"counts": np.array(inputs, dtype=np.int64)})


def total(plan, secure_sum, inputs):
    return {"total": [int(value) for value in secure_sum.values["counts"]], "n": len(secure_sum.survivors)}


def accept(plan):
    if plan.study != "counting":
        raise AgreementViolation("only counts are granted here")


COUNTING = Study(name="counting", accept=accept, compute=count, combine=total)


async def take_part(consortium, name, counts, *, round_number=1, seconds=20.0):
    contributor = consortium.contributor(name, seconds=seconds)
    plan = await next_plan(contributor.board, round_number, patience=contributor.patience)
    COUNTING.accept(plan)
    directory = consortium.root / name / f"r{round_number}-a{plan.attempt}"
    await COUNTING.compute(plan, counts, directory)
    return await contributor.contribute(plan, directory)


async def run_round(consortium, counts, *, threshold, round_number=1, seconds=20.0):
    board = consortium.boards["coordinator"]
    draft = consortium.plan(COUNTS, threshold=threshold, round_number=round_number, seconds=seconds)
    plan = publish_plan(board, draft)
    return await asyncio.gather(
        conduct(board, plan, study=COUNTING, inputs=None),
        *(
            take_part(consortium, name, values, round_number=round_number, seconds=seconds + 5)
            for name, values in counts.items()
        ),
        return_exceptions=True,
    )


def test_everybody_learns_the_exact_sum_and_nobody_sent_a_count_in_clear(make_consortium):
    consortium = make_consortium(4)
    counts = {name: [i, 10 * i, -(2**40)] for i, name in enumerate(consortium.partners)}

    outcomes = asyncio.run(run_round(consortium, counts, threshold=3))

    expected = {"total": [6, 60, -4 * 2**40], "n": 4, "survivors": list(consortium.partners)}
    assert outcomes == [expected] * 5
    secret = np.array(counts["partner-d"], dtype="<i8").tobytes()
    for path in (consortium.root / "mailbox").rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes()


def test_a_partner_that_never_answers_is_left_out_after_the_deadline(make_consortium):
    consortium = make_consortium(4)
    counts = {name: [1, 2, 3] for name in consortium.partners[:3]}

    outcomes = asyncio.run(run_round(consortium, counts, threshold=3, seconds=0.5))

    assert outcomes[0] == {"total": [3, 6, 9], "n": 3, "survivors": list(consortium.partners[:3])}


def test_below_the_threshold_the_round_is_refused_by_name_and_a_second_attempt_works(make_consortium):
    consortium = make_consortium(4)
    counts = {name: [1, 1, 1] for name in consortium.partners}

    first = asyncio.run(run_round(consortium, dict(list(counts.items())[:2]), threshold=3, seconds=0.3))
    second = asyncio.run(run_round(consortium, counts, threshold=3))

    assert all(isinstance(outcome, TooFewPartners) for outcome in first)
    assert "partner-c, partner-d" in str(first[0])
    assert second[0]["total"] == [4, 4, 4]


def test_a_finished_round_is_found_again_without_computing(make_consortium):
    consortium = make_consortium(3)
    counts = {name: [1, 2, 3] for name in consortium.partners}
    once = asyncio.run(run_round(consortium, counts, threshold=3))

    again = asyncio.run(run_round(consortium, counts, threshold=3))

    assert once == again


def test_a_plan_of_another_study_is_refused_before_anything_is_computed(make_consortium):
    consortium = make_consortium(3)
    board = consortium.boards["coordinator"]
    publish_plan(board, consortium.plan(COUNTS, threshold=3).model_copy(update={"study": "spying"}))

    with pytest.raises(AgreementViolation, match="only counts"):
        asyncio.run(take_part(consortium, "partner-a", [1, 2, 3]))
    assert not (consortium.root / "partner-a" / "r1-a0").exists()


def test_lanes_of_another_length_are_refused_and_nothing_is_sent(make_consortium):
    consortium = make_consortium(3)
    publish_plan(consortium.boards["coordinator"], consortium.plan(COUNTS, threshold=3))

    with pytest.raises(AgreementViolation, match="lanes"):
        asyncio.run(take_part(consortium, "partner-a", [1, 2, 3, 4]))
    assert not (consortium.root / "mailbox" / "messages" / "run-1" / "r00001-a0" / "advert").exists()


def test_a_round_cannot_be_published_twice_with_different_contents(make_consortium):
    consortium = make_consortium(3)
    board = consortium.boards["coordinator"]
    draft = consortium.plan(COUNTS, threshold=3)
    publish_plan(board, draft)

    with pytest.raises(SettingsError, match="different plan"):
        publish_plan(board, draft.model_copy(update={"parameters": {"x": 1}}))


def test_a_closed_run_ends_the_wait_for_a_plan(make_consortium):
    consortium = make_consortium(3)
    consortium.boards["coordinator"].post_json(Kind.RUN_CLOSED, {})

    assert asyncio.run(next_plan(consortium.boards["partner-a"], 1, patience=Patience(1.0))) is None


def test_a_silent_coordinator_is_named(make_consortium):
    consortium = make_consortium(3)

    with pytest.raises(ProtocolError, match="'coordinator' sent no plan for round 1"):
        asyncio.run(next_plan(consortium.boards["partner-a"], 1, patience=Patience(0.05)))


def test_an_attempt_masks_one_vector_only(make_consortium):
    consortium = make_consortium(3)
    plan = consortium.plan(COUNTS, threshold=3)
    vault = consortium.contributor("partner-a").vault
    vault.pin(plan, "vector", b"1" * 32)
    vault.pin(plan, "vector", b"1" * 32)

    with pytest.raises(UpdateMismatch, match="already fixed another vector"):
        vault.pin(plan, "vector", b"2" * 32)


def test_the_root_of_an_ended_attempt_is_gone_for_good(make_consortium):
    consortium = make_consortium(3)
    plan = consortium.plan(COUNTS, threshold=3)
    vault = consortium.contributor("partner-a").vault
    root = vault.root(plan)

    assert root == vault.root(plan)
    vault.end(plan)

    assert vault.root(plan) is None
    assert all(root not in path.read_bytes() for path in (consortium.root / "partner-a").rglob("*.*"))


def test_a_plan_with_weaker_pair_secrets_than_a_site_grants_is_refused_by_that_site(make_consortium):
    """A coordinator cannot talk partners out of the post-quantum half."""
    c = make_consortium(3)
    weak = c.draft(pair_secrets="x25519", seconds=3)
    counts = {name: [1, 2, 3] for name in c.partners}
    refused = c.run_round(weak, counts)
    assert all(isinstance(outcome, AgreementViolation) for outcome in refused[1:])
    assert "grants x25519+ml-kem-768" in str(refused[1])
    assert not (c.root / "mailbox" / "messages" / "run-1" / "r00001-a0" / "advert").exists()

    granted = c.run_round(c.draft(pair_secrets="x25519"), counts, pair_secrets=frozenset({"x25519"}))
    assert granted[0]["total"] == [3, 6, 9]


def test_a_plan_with_a_lower_threshold_than_a_site_grants_is_refused_by_that_site(make_consortium):
    """A coordinator cannot open the sum of a few by asking for a small threshold in one round."""
    c = make_consortium(5)
    few = c.draft(threshold=3, seconds=3)
    refused = c.run_round(few, {name: [1, 2, 3] for name in c.partners}, min_threshold=4)
    assert [type(outcome) for outcome in refused[1:]] == [AgreementViolation] * 5
    assert "no sum of fewer than 4" in str(refused[1])
    assert not (c.root / "mailbox" / "messages" / "run-1" / "r00001-a0" / "advert").exists()


@pytest.mark.parametrize("at", [-1, 300, 0])
def test_whose_vector_was_altered_in_the_mailbox_counts_as_absent(make_consortium, at):
    class Altering(DirectoryMailbox):
        def put_body(self, chunks, *, contract):
            reference = super().put_body(chunks, contract=contract)
            if contract == "masked@1":
                data = bytearray(self.bodies.path(reference).read_bytes())
                data[at] ^= 1
                self.bodies.path(reference).write_bytes(data)
            return reference

    consortium = make_consortium(4)
    boards = consortium.boards
    boards["partner-b"] = replace(boards["partner-b"], mailbox=Altering(consortium.root / "mailbox"))
    counts = {name: [1, 10, 100] for name in consortium.partners}

    outcome = asyncio.run(run_round(consortium, counts, threshold=3))[0]

    assert outcome == {
        "total": [3, 30, 300],
        "n": 3,
        "survivors": ["partner-a", "partner-c", "partner-d"],
    }
