"""Training over the secure sum gives what plain averaging gives, and a catalogue row the mean of its own."""

import numpy as np
import pytest

from data_contracts.errors import AgreementViolation
from data_contracts.references import BlobReference
from tasks.local_training.shared_model import trunk_length
from tasks.studies import qsar_training as training_study
from tasks.studies.qsar_training import QSAR_TRAINING
from tests.local_training.conftest import HIDDEN


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
OTHER = np.array([-1, 0, -1, -1, -1], dtype=np.int32)


def test_a_catalogue_row_is_the_mean_of_those_who_train_it_and_a_lonely_row_stands_still(make_training):
    names = ["partner-a", "partner-b", "partner-c"]
    training = make_training(n_catalogue=2, places={**dict.fromkeys(names[:2], SHARED), "partner-c": OTHER})
    first = training.first()
    plan = training.plan(first, ring_bits=32, value_bits=24)
    before = _vector(training, first)
    after = _vector(training, training.secured_round(plan)["trunk"])
    updates = np.stack(training.updates(plan))
    start = trunk_length(HIDDEN)
    row_0, row_1 = slice(start, start + HIDDEN), slice(start + HIDDEN, start + 2 * HIDDEN)
    assert not updates[3][start:].any(), "partner-d shares nothing"
    np.testing.assert_allclose(after[row_0] - before[row_0], updates[:3, row_0].mean(axis=0), atol=1e-6)
    assert np.abs(updates[:2, row_1]).max() > 0
    np.testing.assert_array_equal(after[row_1], before[row_1])  # two partners: fewer than may share a row
    np.testing.assert_allclose(after[:start] - before[:start], updates[:, :start].mean(axis=0), atol=1e-6)


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
