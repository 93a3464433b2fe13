"""Training over the secure sum gives what plain averaging gives, and a catalogue row the mean of its own."""

import asyncio
import dataclasses

import numpy as np
import pytest

from data_contracts.errors import AgreementViolation, UpdateMismatch
from data_contracts.references import BlobReference
from tasks.aggregation.server_optimizers import server_step
from tasks.local_training.parameters import read_parameters
from tasks.local_training.shared_model import trunk_length
from tasks.studies import qsar_training as training_study
from tasks.studies.qsar_training import QSAR_TRAINING
from tasks.studies.server_state import read_state
from tests.local_training.conftest import HIDDEN
from tests.studies.conftest import PARAMETERS


def _vector(training, reference):
    return training_study.shared_vector(
        training.blobs, BlobReference.model_validate(reference), who="coordinator"
    )


@pytest.mark.parametrize(("ring_bits", "value_bits"), [(16, 12), (32, 24)])
def test_a_secured_round_is_the_plain_average_within_half_a_step_of_the_quantizer(
    make_training, ring_bits, value_bits
):
    training = make_training()
    first = training.first()
    plan = training.plan(first, ring_bits=ring_bits, value_bits=value_bits)
    secured = _vector(training, training.secured_round(plan)["trunk"])
    updates = [np.clip(update, -0.25, 0.25) for update in training.updates(plan)]
    plain = _vector(training, first) + np.mean(updates, axis=0)
    step = 0.25 / (2 ** (value_bits - 1) - 1)
    error = np.abs(secured.astype(np.float64) - plain)
    assert error.max() <= step + 1e-6  # each survivor rounds by less than one step, so does their mean
    assert error.mean() <= step / 2
    assert np.abs(plain - _vector(training, first)).max() > 10 * step, "the round has to move something"


def test_the_same_round_again_gives_the_same_bytes(make_training):
    training = make_training()
    plan = training.plan(training.first())
    outcome = training.secured_round(plan)
    assert training.secured_round(plan) == outcome


SHARED = np.array([0, -1, 1, -1, -1], dtype=np.int32)


def test_a_catalogue_row_is_the_mean_of_those_who_train_it_and_the_trunk_that_of_all(make_training):
    names = ["partner-a", "partner-b", "partner-c"]
    training = make_training(n_catalogue=2, places=dict.fromkeys(names, SHARED))
    first = training.first()
    plan = training.plan(first, ring_bits=32, value_bits=24)
    moved = _vector(training, training.secured_round(plan)["trunk"]) - _vector(training, first)
    updates = np.stack(training.updates(plan))
    start = trunk_length(HIDDEN)
    assert not updates[3][start:].any(), "partner-d shares nothing"
    assert updates[:3, start:].any(axis=1).all()
    np.testing.assert_allclose(moved[start:], updates[:3, start:].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(moved[:start], updates[:, :start].mean(axis=0), atol=1e-6)


def test_a_catalogue_of_another_length_than_the_plan_says_is_refused(make_training):
    training = make_training(n_catalogue=2, places=dict.fromkeys(["partner-a", "partner-b"], SHARED))
    lying = training.parameters.model_copy(update={"n_catalogue": 3})
    with pytest.raises(UpdateMismatch, match="2 endpoints, the plan says 3"):
        training_study._trainers(lying, training.blobs)


def test_no_lane_of_a_training_round_repeats_a_number_of_a_partner(make_training):
    """Else the sum of four less the sum of three would be one partner's."""
    training = make_training(n_catalogue=2, places={"partner-a": SHARED})
    first = training.plan(training.first())
    second = training.plan(
        BlobReference.model_validate(training.secured_round(first)["trunk"]), round_number=2
    )
    training.secured_round(second)
    for name in training.consortium.partners:
        for lane in ("figures", "update"):
            one, two = (
                np.load(training.consortium.root / name / f"r{number}" / f"{lane}.npy") for number in (1, 2)
            )
            repeated = int(((one == two) & (one != 0)).sum())
            assert repeated <= len(one) // 10_000, (
                lane
            )  # of so many floats a few meet by chance; no count may


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": {}},
        {"lanes": ()},
        {"model_in": None},
        {"model_in": BlobReference(sha256="0" * 64, bytes=10, contract="trunk@1")},
    ],
)
def test_a_plan_that_is_not_this_studys_is_refused_before_anything_is_computed(make_training, change):
    training = make_training()
    plan = training.plan(training.first())
    lanes = change.pop("lanes", None)
    if lanes is not None:
        change = {"lanes": plan.lanes[:1]}
    with pytest.raises(AgreementViolation):
        QSAR_TRAINING.accept(plan.model_copy(update=change))


@pytest.mark.parametrize(
    ("name", "value"), [("hidden", 10**6), ("rounds", 0), ("learning_rate", 5.0), ("surprise", 1)]
)
def test_a_parameter_out_of_bounds_is_named(make_training, name, value):
    training = make_training()
    plan = training.plan(training.first())
    asked = plan.model_copy(update={"parameters": {**plan.parameters, name: value}})
    with pytest.raises(AgreementViolation, match=name):
        QSAR_TRAINING.accept(asked)


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "yogi"])
def test_two_rounds_with_a_server_optimizer_are_its_two_steps_on_the_mean_updates(make_training, optimizer):
    training = make_training()
    parameters = training.parameters.model_copy(
        update={"server_optimizer": optimizer, "server_learning_rate": 0.1}
    )
    reference, state, expected = training.first(), None, None
    for round_number in (1, 2):
        training = dataclasses.replace(training, parameters=parameters)
        plan = training.plan(reference, ring_bits=32, value_bits=24, round_number=round_number)
        outcome = training.secured_round(plan)
        before = _vector(training, reference)
        expected, state = server_step(
            before,
            np.mean(training.updates(plan), axis=0),
            server_learning_rate=0.1,
            optimizer=optimizer,
            state=state,
        )
        reference = BlobReference.model_validate(outcome["trunk"])
        np.testing.assert_allclose(_vector(training, reference), expected, atol=2e-4)
        parameters = parameters.after(outcome)
        kept = read_state(training.blobs, parameters.server_state, who="coordinator")
        np.testing.assert_allclose(kept.velocity, state.velocity, atol=1e-6)
    assert training.secured_round(plan) == outcome, "the state is read from the mailbox, so a round repeats"


def test_a_round_goes_on_with_the_moments_of_the_last_one(make_training):
    training = make_training()
    plan = training.plan(training.first())
    trunk, name = training.blobs.path(plan.model_in), training.consortium.partners[0]
    place = training.consortium.root / name

    def steps(label, *, last=None, without=False):
        inputs = training.inputs(name, trunk, last=last)
        if without:
            inputs = dataclasses.replace(inputs, optimizer=None)
        asyncio.run(QSAR_TRAINING.compute(plan, inputs, place / label))
        return read_parameters(place / label / "optimizer.safetensors")

    first = steps("first")
    again, anew = steps("again", last=place / "first"), steps("anew", last=place / "first", without=True)
    assert again["steps"] == 2 * first["steps"] == 2 * anew["steps"]
    assert not np.array_equal(np.load(place / "again/update.npy"), np.load(place / "anew/update.npy"))


def test_plain_averaging_keeps_no_state(make_training):
    training = make_training()
    outcome = training.secured_round(training.plan(training.first()))
    assert "server_state" not in outcome
    assert training.parameters.after(outcome).server_state is None


def test_a_blob_that_is_no_state_is_refused(make_training):
    training = make_training()
    first = training.first()
    with pytest.raises(UpdateMismatch, match="expected velocity and square"):
        read_state(training.blobs, first, who="coordinator")


def test_the_learning_rate_falls_from_round_to_round_and_the_pull_stays():
    parameters = PARAMETERS.model_copy(update={"learning_rate_decay": 0.5, "proximal": 0.1})
    settings = [parameters.settings_in(number) for number in (1, 2, 3)]
    assert [found.learning_rate for found in settings] == [0.01, 0.005, 0.0025]
    assert {found.proximal for found in settings} == {0.1}
    assert parameters.settings.proximal == 0  # without federation there is nothing to be pulled to


@pytest.mark.parametrize(
    "asked",
    [
        {"server_optimizer": "sgd"},
        {"server_state_sha256": "../etc"},
        {"proximal": -1.0},
        {"learning_rate_decay": 1.5},
    ],
)
def test_a_server_rule_out_of_bounds_is_refused(make_training, asked):
    training = make_training()
    plan = training.plan(training.first())
    wrong = plan.model_copy(update={"parameters": {**plan.parameters, **asked}})
    with pytest.raises(AgreementViolation, match=next(iter(asked))):
        QSAR_TRAINING.accept(wrong)


def test_a_deeper_trunk_is_averaged_layer_by_layer_with_the_catalogue_behind_it(make_training):
    names = ["partner-a", "partner-b", "partner-c"]
    training = make_training(n_catalogue=2, places=dict.fromkeys(names, SHARED))
    training = dataclasses.replace(training, parameters=training.parameters.model_copy(update={"layers": 1}))
    first = training.first()
    plan = training.plan(first, ring_bits=32, value_bits=24)
    before, after = _vector(training, first), _vector(training, training.secured_round(plan)["trunk"])
    updates = np.stack(training.updates(plan))
    start = trunk_length(HIDDEN, n_layers=1)
    layer = slice(trunk_length(HIDDEN), start)
    assert np.abs(updates[:, layer]).max() > 0
    np.testing.assert_allclose(after[layer] - before[layer], updates[:, layer].mean(axis=0), atol=1e-6)
    row = slice(start, start + HIDDEN)
    np.testing.assert_allclose(after[row] - before[row], updates[:3, row].mean(axis=0), atol=1e-6)
