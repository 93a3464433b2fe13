"""Anybody with the mailbox repeats a round, and a coordinator that announced anything else is found out."""

import hashlib
from functools import partial

import numpy as np
import pytest

from data_contracts.envelope import Kind
from data_contracts.errors import ProtocolError, SettingsError, UpdateMismatch
from tasks.rounds.retention import discard_old_vectors, vector_reference
from tasks.rounds.study import Study
from tasks.rounds.verification import check_outcome, read_round, repeat_sum
from tests.rounds.conftest import COUNTING


def counts_of(c, names=None):
    return {name: [number, -number, 2**40] for number, name in enumerate(names or c.partners)}


def verified(c, board, number=1, study=COUNTING):
    found = read_round(board, number)
    total = repeat_sum(found, identities=board.roster.partner_keys, workers=2)
    check_outcome(found, total, study=study, inputs=None)
    return found, total


def test_every_partner_repeats_the_round_to_the_announced_outcome(make_consortium):
    c = make_consortium(4)
    outcome = c.run_round(c.draft(), counts_of(c))[0]
    for name in c.partners:
        found, total = verified(c, c.boards[name])
        assert found.outcome == outcome
        assert found.survivors == c.partners
        assert total.values["counts"].tolist() == [6, -6, 4 * 2**40]
        assert found.n_bytes > 4 * 3 * 8


def test_a_round_with_a_dropout_is_repeated_too(make_consortium):
    c = make_consortium(4)
    c.run_round(c.draft(seconds=0.5), counts_of(c, c.partners[1:]))
    found, _ = verified(c, c.boards["partner-a"])
    assert found.survivors == c.partners[1:]


def lying(value):
    """A coordinator that announces something else than the sum gives."""
    return Study(name="counting", accept=COUNTING.accept, compute=COUNTING.compute, combine=lambda *_: value)


@pytest.mark.parametrize(
    ("value", "fields"),
    [({"total": [6, -6, 4 * 2**40 + 1], "n": 4}, "total"), ({"n": 5}, "n, total"), ({"n": 4}, "total")],
)
def test_an_outcome_that_the_messages_do_not_give_is_found_out_and_names_its_fields(
    make_consortium, monkeypatch, value, fields
):
    c = make_consortium(4)
    monkeypatch.setattr("tests.rounds.conftest.COUNTING", lying(value))
    assert c.run_round(c.draft(), counts_of(c))[0]["survivors"] == list(c.partners)
    with pytest.raises(UpdateMismatch, match=f"fields that differ: {fields}$"):
        verified(c, c.boards["partner-a"])


def test_one_weight_flipped_by_the_coordinator_is_found_out(make_consortium, monkeypatch):
    """The next model is a function of the sum: whoever repeats the round gets it, or proof that it was altered."""
    c = make_consortium(4)

    def next_model(plan, total, inputs, *, flip=0):
        weights = (total.values["counts"] / 4).astype("<f4").view("<u4")
        weights[1] ^= flip
        return {"model": hashlib.sha256(weights.tobytes()).hexdigest()}

    honest = Study("counting", COUNTING.accept, COUNTING.compute, next_model)
    crafting = Study("counting", COUNTING.accept, COUNTING.compute, partial(next_model, flip=1))
    monkeypatch.setattr("tests.rounds.conftest.COUNTING", crafting)
    c.run_round(c.draft(), counts_of(c))
    for name in c.partners:
        with pytest.raises(UpdateMismatch, match=r"fields that differ: model$"):
            verified(c, c.boards[name], study=honest)
    verified(c, c.boards["partner-a"], study=crafting)


def test_an_outcome_that_names_other_survivors_is_found_out(make_consortium, monkeypatch):
    c = make_consortium(4)
    honest = read_round
    c.run_round(c.draft(), counts_of(c))
    found = honest(c.boards["partner-a"], 1)
    found.outcome["survivors"] = ["partner-a", "partner-b"]
    with pytest.raises(UpdateMismatch, match="names other survivors than the 4"):
        repeat_sum(found, identities=c.boards["partner-a"].roster.partner_keys)


def test_an_unmasking_message_that_the_coordinator_refused_does_not_hinder_anybody(make_consortium):
    c = make_consortium(5)
    c.run_round(c.draft(), counts_of(c))
    found = read_round(c.boards["partner-a"], 1)
    found.messages.unmaskings["partner-b"] = b"garbage"
    total = repeat_sum(found, identities=c.boards["partner-a"].roster.partner_keys)
    assert total.values["counts"].tolist() == [10, -10, 5 * 2**40]


@pytest.mark.parametrize("number", [0, 2])
def test_a_round_that_is_not_finished_is_refused_by_name(make_consortium, number):
    c = make_consortium(4)
    c.run_round(c.draft(), counts_of(c))
    with pytest.raises(SettingsError, match=f"no finished round {number}"):
        read_round(c.boards["partner-a"], number)


@pytest.mark.parametrize(
    ("kind", "sender", "error"),
    [
        (Kind.SHARES, "partner-b", "the mailbox lost 'shares' of 'partner-b' in round 1"),
        (Kind.SHARES_CLOSED, "coordinator", "announced round 1 without 'shares-closed'"),
    ],
)
def test_a_message_lost_from_the_mailbox_is_named(make_consortium, kind, sender, error):
    c = make_consortium(4)
    c.run_round(c.draft(), counts_of(c))
    (c.root / "mailbox" / "messages" / "run-1" / "r00001-a0" / kind.value / f"{sender}.json").unlink()
    with pytest.raises(ProtocolError, match=error):
        read_round(c.boards["partner-a"], 1)


def test_an_altered_vector_is_named(make_consortium):
    c = make_consortium(4)
    c.run_round(c.draft(), counts_of(c))
    blob = c.boards["partner-a"].mailbox.blobs.path(
        vector_reference(c.boards["partner-a"], c.draft(), "partner-c")
    )
    data = np.fromfile(blob, np.uint8)
    data[200] ^= 1
    data.tofile(blob)
    with pytest.raises(UpdateMismatch, match="'partner-c'"):
        read_round(c.boards["partner-a"], 1)


# ---------------------------------------------------------------- how long vectors stay


def kept_rounds(c, plans):
    board = c.boards["coordinator"]
    return [
        plan.round
        for plan in plans
        if all(vector_reference(board, plan, name) in board.mailbox.blobs for name in plan.cohort)
    ]


def three_rounds(c):
    plans = [c.draft(round_number=number) for number in (1, 2, 3)]
    for plan in plans:
        c.run_round(plan, counts_of(c))
    return plans, vector_reference(c.boards["coordinator"], plans[0], "partner-a").bytes * len(c.partners)


def test_small_rounds_all_stay(make_consortium):
    c = make_consortium(3)
    plans, _ = three_rounds(c)
    assert kept_rounds(c, plans) == [1, 2, 3]


@pytest.mark.parametrize(("rounds", "kept"), [(3, [1, 2, 3]), (2, [2, 3]), (1, [3]), (0, [3])])
def test_the_newest_rounds_stay_as_far_as_the_budget_goes_and_the_last_always(make_consortium, rounds, kept):
    c = make_consortium(3)
    plans, n_bytes = three_rounds(c)
    discard_old_vectors(c.boards["coordinator"], plans[-1], budget_bytes=rounds * n_bytes)
    assert kept_rounds(c, plans) == kept
    for plan in plans:
        if plan.round in kept:
            verified(c, c.boards["partner-a"], plan.round)
        else:
            with pytest.raises(SettingsError, match="no longer in the mailbox"):
                read_round(c.boards["partner-a"], plan.round)


def test_the_coordinator_drops_old_vectors_after_every_outcome(make_consortium, monkeypatch):
    dropping = partial(discard_old_vectors, budget_bytes=0)
    monkeypatch.setattr("tasks.rounds.coordinator.discard_old_vectors", dropping)
    c = make_consortium(3)
    plans, _ = three_rounds(c)
    assert kept_rounds(c, plans) == [3]


def test_a_blob_that_was_never_counted_is_never_dropped(make_consortium):
    """A partner that announces the model as its vector must not make the coordinator drop the model."""
    c = make_consortium(4)
    board = c.boards["coordinator"]
    model = board.mailbox.put_body([b"the model"], contract="trunk@1")
    draft = c.draft(seconds=0.5)
    c.boards["partner-d"].post(Kind.MASKED, [b"the model"], contract="masked@1", plan=draft)
    c.run_round(draft, counts_of(c, c.partners[:3]))
    later = c.draft(round_number=2, seconds=0.5)
    c.run_round(later, counts_of(c, c.partners[:3]))
    discard_old_vectors(board, later, budget_bytes=0)
    assert model in board.mailbox.blobs
