"""Numbers go through the same protocol as classes: counted, summed, shared and measured by the same rules."""

import asyncio
import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.errors import AgreementViolation
from data_contracts.references import BlobReference
from tasks.evaluation.metrics import METRICS_OF
from tasks.evaluation.sums import FIXED_POINT
from tasks.local_training.parameters import read_parameters
from tasks.local_training.regression_data import PUBLIC_CENTRE, PUBLIC_SCALE
from tasks.local_training.shared_model import trunk_length
from tasks.studies import evaluation as evaluation_study
from tasks.studies import qsar_training as training_study
from tasks.studies.catalogue import REGRESSION_PREFIX, places_of, regression_entries
from tasks.studies.evaluation import EVALUATION, Arm, EvaluationParameters, PartnerInputs
from tests.local_training.conftest import HIDDEN, rewrite
from tests.studies.conftest import run_job

LISTED = ("A0>=6.5", f"{REGRESSION_PREFIX}A0", f"{REGRESSION_PREFIX}A2")
N_ROWS = {"classification": 5, "regression": 3, "hybrid": 8}


def _training(make_training, modality, **more):
    places = np.full(N_ROWS[modality], -1, dtype=np.int32)
    places[-3] = 0  # the number of A0
    names = [f"partner-{letter}" for letter in "abcd"]
    training = make_training(n_catalogue=1, places=dict.fromkeys(names, places))
    parameters = training.parameters.model_copy(update={"modality": modality, **more})
    return dataclasses.replace(training, parameters=parameters)


@pytest.mark.parametrize(("modality", "loss"), [("regression", "one_sided"), ("hybrid", "tobit")])
def test_a_secured_round_of_numbers_is_the_plain_average_within_a_step_of_the_quantizer(
    make_training, modality, loss
):
    training = _training(make_training, modality, regression_loss=loss)
    first = training.first()
    plan = training.plan(first, ring_bits=16, value_bits=12)
    outcome = training.secured_round(plan)

    def vector(reference):
        found = BlobReference.model_validate(reference)
        return training_study.shared_vector(training.blobs, found, who="coordinator").astype(np.float64)

    updates = [np.clip(update, -0.25, 0.25) for update in training.updates(plan)]
    plain = vector(first) + np.mean(updates, axis=0)
    step = 0.25 / (2**11 - 1)
    assert np.abs(vector(outcome["trunk"]) - plain).max() <= step + 1e-6
    row = slice(trunk_length(HIDDEN), trunk_length(HIDDEN) + HIDDEN)
    assert np.abs(np.mean(updates, axis=0)[row]).max() > step, "the shared row of numbers has to move"
    assert set(outcome["metrics"]) >= {"train/loss", "update/clipped_fraction"}
    for name in training.consortium.partners:
        head = read_parameters(training.consortium.root / name / "r1" / "head.safetensors")
        assert (head["centre"][-3], head["scale"][-3]) == (PUBLIC_CENTRE, PUBLIC_SCALE)
        assert head["scale"][-2] != PUBLIC_SCALE


def test_figures_of_numbers_are_the_partners_means_summed_exactly(make_training):
    training = _training(make_training, "hybrid")
    plan = training.plan(training.first())
    training.secured_round(plan)
    blobs, asked = (
        training.blobs,
        EvaluationParameters(split="validation", after_round=1, arms=1, modality="hybrid"),
    )
    measured = training.consortium.plan(
        *evaluation_study.lanes(asked), threshold=3, round_number=2
    ).model_copy(update={"study": "evaluation", "model_in": plan.model_in, "parameters": asked.model_dump()})
    EVALUATION.accept(measured)
    assert measured.lanes[0].length == len(METRICS_OF["hybrid"])
    place = training.consortium.root / "partner-a"
    arm = Arm(
        trunk=blobs.path(plan.model_in), head=place / "r1" / "head.safetensors", places=place / "places.npy"
    )
    inputs = PartnerInputs(dataset=place / "prepared", arms={"federated": arm}, run_job=run_job)
    asyncio.run(EVALUATION.compute(measured, inputs, place / "r2"))
    sent = np.load(place / "r2" / "federated.npy") / FIXED_POINT
    figures = dict(zip(METRICS_OF["hybrid"], sent, strict=True))
    assert 0 < figures["concordance"] <= 1
    assert figures["rmse"] > 0
    assert figures["auprc"] > 0


def test_a_modality_that_is_none_is_refused(make_training):
    training = make_training()
    plan = training.plan(training.first())
    with pytest.raises(AgreementViolation, match="modality"):
        training_study.parameters_of(
            plan.model_copy(update={"parameters": {**plan.parameters, "modality": "generation"}})
        )


def test_a_potency_has_a_row_of_its_own_and_an_assay_of_another_scale_has_none(tmp_path, make_training):
    prepared = make_training().consortium.root / "partner-a" / "prepared"
    assert places_of(prepared, LISTED).tolist() == [0, -1, -1, -1, -1]
    assert places_of(prepared, LISTED, modality="regression").tolist() == [1, -1, -1]  # A2 is ADME
    assert places_of(prepared, LISTED, modality="hybrid").tolist() == [0, -1, -1, -1, -1, 1, -1, -1]


def test_a_class_never_takes_the_row_of_a_number(make_training):
    prepared = make_training().consortium.root / "partner-a" / "prepared"
    names = [f"{REGRESSION_PREFIX}A0", *(f"A{number}>=6.5" for number in range(1, 5))]
    rewrite(prepared / "endpoints.arrow", endpoint_id=pa.array(names))
    assert (places_of(prepared, LISTED) == -1).all()


def test_a_list_offers_the_numbers_of_potencies_alone():
    assays = pa.table({"assay_id": ["b", "a", "c"], "assay_type": ["OTHER", "PANEL", "ADME"]})
    assert regression_entries(assays) == (f"{REGRESSION_PREFIX}a", f"{REGRESSION_PREFIX}b")
