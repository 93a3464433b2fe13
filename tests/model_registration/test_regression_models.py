"""A model answers numbers in the assay's unit, with an interval that keeps its promise, beside or without classes."""

import json

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.catalogue import PREDICTIONS
from data_contracts.errors import SettingsError, UpdateMismatch
from data_contracts.validation import require_valid
from flows.cli import main
from tasks.evaluation.conformal import LEVELS
from tasks.evaluation.metric_tables import write_table
from tasks.evaluation.regression_conformal import fit_half_widths, interval_quality
from tasks.evaluation.score_tables import RegressionScores, regression_scores_table, scores_table
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.parameters import initial_head, initial_trunk, write_parameters
from tasks.local_training.regression_heads import deviations, with_scales
from tasks.local_training.scoring import predict_all
from tasks.model_registration import scoring
from tasks.model_registration.bundle import read_card, write_bundle
from tasks.model_registration.prediction import load_model
from tasks.model_registration.registration import save_mlflow_model
from tasks.model_registration.reliability import CalibrationInputs, reliability_of
from tests.local_training.conftest import write_prepared
from tests.model_registration.conftest import HIDDEN, REAL

SMILES = ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "C1CC"]
CLASSES, NUMBERS = ("A0>=6.5", "A1>=6.5", "A2>=6.5"), ("A0", "A1", "A2")


def _model(tmp_path, *, modality="hybrid", calibrated=True):
    prepared = write_prepared(tmp_path / "prepared", seed=1, n_endpoints=3, n_structures=400)
    dataset = PreparedDataset.open(prepared, modality=modality)
    trunk = initial_trunk(HIDDEN, seed=1)
    rows = dataset.training_rows((1, 2, 3))
    head = with_scales(initial_head(dataset.n_endpoints, HIDDEN, seed=2), dataset, rows, modality=modality)
    head["log_deviation"] = np.linspace(-1, 0, dataset.n_endpoints, dtype=np.float32)
    write_parameters(tmp_path / "head.safetensors", head)
    found = predict_all(dataset, (4,), trunk=trunk, head=head)
    if modality == "hybrid":
        write_table(tmp_path / "scores.arrow", scores_table(found.classes))
    write_table(tmp_path / "regression_scores.arrow", regression_scores_table(found.numbers))
    inputs = CalibrationInputs(
        scores=tmp_path / "scores.arrow",
        prepared=prepared,
        modality=modality,
        head=tmp_path / "head.safetensors",
    )
    write_bundle(
        tmp_path / "model",
        run_id="run-1",
        trunk=trunk,
        head=head,
        endpoints=CLASSES if modality == "hybrid" else (),
        regression_endpoints=NUMBERS,
        data=REAL,
        validation=None,
        reliability=reliability_of(inputs) if calibrated else None,
    )
    return tmp_path / "model", trunk, head


@pytest.mark.parametrize("modality", ["regression", "hybrid"])
@pytest.mark.parametrize("calibrated", [True, False])
def test_a_row_has_a_probability_or_a_value_and_the_table_keeps_the_contract(tmp_path, modality, calibrated):
    directory, _, head = _model(tmp_path, modality=modality, calibrated=calibrated)
    model = load_model(directory, str(directory))
    table = model.predict(SMILES)
    names = [name for name in PREDICTIONS.schema.names if name in table]
    assert list(table) == names
    arrow = pa.table(table, schema=pa.schema([PREDICTIONS.schema.field(name) for name in names]))
    n_endpoints = 6 if modality == "hybrid" else 3
    accepted = require_valid(arrow.to_batches(), PREDICTIONS, source="predictions")
    assert sum(batch.num_rows for batch in accepted) == 3 * n_endpoints
    for endpoint, valid, probability, value in zip(
        table["endpoint"], table["valid"], table["probability"], table["value"], strict=True
    ):
        assert (probability is not None) == (valid and endpoint in CLASSES)
        assert (value is not None) == (valid and endpoint in NUMBERS)
    features, _ = model.scorer.features(["CCO"])
    output = features @ head["weight"].T + head["bias"]
    expected = (output * head["scale"] + head["centre"])[0, -3:]
    np.testing.assert_allclose(table["value"][n_endpoints - 3 : n_endpoints], expected, rtol=1e-4)
    assert ("value_low" in table) == calibrated
    if calibrated:
        wide, narrow = (model.predict(["CCO"], endpoints=["A1"], significance=level) for level in (0.05, 0.3))
        assert wide["value_low"][0] < narrow["value_low"][0] < narrow["value"][0] < narrow["value_high"][0]
        assert narrow["value_high"][0] < wide["value_high"][0]
        assert narrow["probability"] == [None]


def test_a_class_alone_of_a_hybrid_model_is_asked_as_ever(tmp_path):
    directory, _, _ = _model(tmp_path)
    model = scoring.load(directory)
    found, _, chosen = model.probabilities(["CCO"])
    assert chosen == list(CLASSES)
    assert found.shape == (1, 3)
    with pytest.raises(ValueError, match="a value and no probability"):
        model.probabilities(["CCO"], endpoints=["A1"])
    alone = model.predictions(["CCO"], endpoints=["A1>=6.5"])
    assert alone["value"] == [None]
    np.testing.assert_allclose(alone["probability"], found[0, 1])


def test_a_head_whose_numbers_have_no_scale_is_refused(tmp_path):
    with pytest.raises(UpdateMismatch, match="the file of another model"):
        write_bundle(
            tmp_path / "model",
            run_id="run-1",
            trunk=initial_trunk(HIDDEN, seed=1),
            head=initial_head(1, HIDDEN, seed=2),
            endpoints=(),
            regression_endpoints=("A",),
            data=REAL,
            validation=None,
        )


def test_any_model_gives_its_features_by_mlflow_and_on_the_command_line(tmp_path, load_pyfunc, capsys):
    directory, _, _ = _model(tmp_path)
    expected = load_model(directory, str(directory)).scorer.embeddings(SMILES)
    (tmp_path / "scratch").mkdir()
    saved = save_mlflow_model(tmp_path / "scratch", directory, card=read_card(directory), model_id=None)
    import pandas as pd

    told = load_pyfunc(str(saved)).predict(pd.DataFrame({"smiles": SMILES}), params={"embeddings": True})
    assert told["features"].tolist() == expected["features"]
    assert main(["predict", str(directory), *SMILES, "--embeddings", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    np.testing.assert_allclose(answer["predictions"]["features"][0], expected["features"][0], rtol=1e-6)
    with pytest.raises(SettingsError, match="have no endpoints"):
        load_model(directory, str(directory)).predict(SMILES, endpoints=["A1"], embeddings="instead")
    values = load_pyfunc(str(saved)).predict(pd.DataFrame({"smiles": ["CCO"]}))
    assert values["value"].tolist()[:3] == [None] * 3
    assert values["value_high"].tolist()[3] > values["value"].tolist()[3]


def _errors(rng, counts, spread):
    endpoint = np.repeat(np.arange(len(counts)), counts)
    error = rng.normal(size=len(endpoint)) * np.array(spread)[endpoint]
    zeros = np.zeros(len(endpoint), dtype=np.int8)
    return RegressionScores(endpoint, endpoint, 6 + error, zeros, np.full(len(endpoint), 6.0), error * 0 + 1)


def test_intervals_keep_their_promise_on_new_values_and_a_small_endpoint_borrows():
    rng, spread = np.random.default_rng(4), np.array([0.3, 1.0, 0.6])
    counts = [400, 400, 6]
    widths = fit_half_widths(_errors(rng, counts, spread), deviation=spread)
    assert (np.diff(widths, axis=0) <= 0).all(), "a smaller promise needs no wider interval"
    test = _errors(rng, [4000] * 3, spread)
    for level, width in zip(LEVELS, widths, strict=True):
        quality = interval_quality(width, test)
        assert (quality.validity > 1 - level - 0.05).all()
        np.testing.assert_allclose(quality.width, 2 * width)


def test_too_few_values_promise_nothing_and_bounds_calibrate_nothing():
    scores = _errors(np.random.default_rng(1), [5], [1.0])
    assert np.isinf(fit_half_widths(scores, deviation=np.ones(1))[0, 0])
    bounds = RegressionScores(**{**vars(scores), "censoring": np.ones(5, dtype=np.int8)})
    assert np.isinf(fit_half_widths(bounds, deviation=np.ones(1))).all()
    assert np.isnan(interval_quality(np.ones(1), bounds).validity).all()


def test_a_half_width_is_the_order_statistic_of_the_textbook():
    # n = 39 at level 0.05: ceil(.95 x 40) = 38th smallest distance.
    value = 6 + np.arange(1, 40) / 10
    zeros = np.zeros(39, dtype=np.int64)
    scores = RegressionScores(zeros, zeros, value, zeros.astype(np.int8), np.full(39, 6.0), np.ones(39))
    assert fit_half_widths(scores, deviation=np.ones(1))[0, 0] == pytest.approx(3.8)


def test_deviations_are_on_the_assays_scale_and_bounded():
    head = {"log_deviation": np.array([0, -50.0]), "scale": np.array([2.0, 2.0])}
    assert deviations(head).tolist() == [2.0, 0.1]
