"""What a model says about its own predictions: calibrated on the validation fold, carried in its weights."""

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.catalogue import PREDICTIONS
from data_contracts.errors import ContractViolation, SettingsError, UpdateMismatch
from data_contracts.validation import require_valid
from tasks.evaluation.calibration import fit_calibration, logits_of_probabilities
from tasks.evaluation.conformal import LEVELS
from tasks.evaluation.metric_tables import write_table
from tasks.evaluation.score_tables import Scores, read_scores, scores_table
from tasks.featurization import fingerprints, standardization
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.parameters import initial_head, initial_trunk
from tasks.local_training.scoring import predict
from tasks.model_registration import molecules, scoring
from tasks.model_registration.bundle import read_card, reliability_layout, write_bundle
from tasks.model_registration.prediction import load_model
from tasks.model_registration.reliability import CalibrationInputs, known_bits, known_shares, reliability_of
from tests.local_training.conftest import write_prepared
from tests.model_registration.conftest import HIDDEN, REAL, SIMPLE_CARD, SIMULATED

SMILES = ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "C1CC", "c1ccc2ccccc2c1"]


@pytest.fixture
def inputs(tmp_path):
    """Prepared data, and scores of its validation fold by some network."""
    prepared = write_prepared(tmp_path / "prepared", seed=1, n_endpoints=3)
    dataset = PreparedDataset.open(prepared)
    head = initial_head(dataset.n_endpoints, HIDDEN, seed=2)
    scores = predict(dataset, (4,), trunk=initial_trunk(HIDDEN, seed=1), head=head)
    write_table(tmp_path / "scores.arrow", scores_table(scores))
    return CalibrationInputs(scores=tmp_path / "scores.arrow", prepared=prepared)


@pytest.fixture
def calibrated(tmp_path, inputs):
    """A model's directory with reliability."""
    write_bundle(
        tmp_path / "model",
        run_id="run-1",
        trunk=initial_trunk(HIDDEN, seed=1),
        head=initial_head(3, HIDDEN, seed=2),
        endpoints=("A", "B", "C"),
        data=REAL,
        validation=None,
        reliability=reliability_of(inputs),
    )
    return tmp_path / "model"


def test_scores_come_back_from_their_file_as_they_were(tmp_path):
    scores = Scores(
        np.array([3, 1]), np.array([0, 2]), np.array([1, 0], dtype=np.int8), np.array([0.25, 1.0])
    )
    write_table(tmp_path / "scores.arrow", scores_table(scores))
    for name, values in vars(read_scores(tmp_path / "scores.arrow")).items():
        np.testing.assert_array_equal(values, getattr(scores, name))


def test_a_calibrated_model_keeps_the_contract_and_explains_each_row(calibrated):
    table = load_model(calibrated, str(calibrated)).predict(SMILES)
    assert list(table) == [name for name in PREDICTIONS.schema.names if name in table]
    known = [PREDICTIONS.schema.field(name) for name in table]
    arrow = pa.table(table).cast(pa.schema(known))
    assert sum(b.num_rows for b in require_valid(arrow.to_batches(), PREDICTIONS, source="predictions")) == 12
    assert table["valid"] == [True] * 6 + [False] * 3 + [True] * 3
    for name in ("probability", "calibrated_probability", "conformal_set", "in_domain"):
        assert [value is not None for value in table[name]] == table["valid"], name


def test_the_numbers_are_those_of_the_calibration_and_the_thresholds(calibrated, inputs):
    model = scoring.load(calibrated)
    table = model.predictions(["CCO"], significance=0.3)
    scores = read_scores(inputs.scores)
    fitted = fit_calibration(
        scores.endpoint, scores.label, logits_of_probabilities(scores.probability), n_endpoints=3
    )
    logit = logits_of_probabilities(np.array(table["probability"]))
    np.testing.assert_allclose(table["calibrated_probability"], fitted.apply(np.arange(3), logit), atol=1e-6)
    level = LEVELS.index(0.3)
    for place, name in enumerate(table["conformal_set"]):
        active = logit[place] >= model.weights["conformal.active"][level, place]
        inactive = logit[place] <= model.weights["conformal.inactive"][level, place]
        assert name == {(True, True): "both", (True, False): "active", (False, True): "inactive"}.get(
            (bool(active), bool(inactive)), "neither"
        )


def test_sets_grow_as_the_promise_grows(calibrated):
    model = scoring.load(calibrated)
    size = {"neither": 0, "active": 1, "inactive": 1, "both": 2}
    sizes = [
        [size[name] for name in model.predictions(["CCO", "CCN"], significance=level)["conformal_set"]]
        for level in LEVELS
    ]
    assert all(np.all(np.diff(np.array(sizes), axis=0) <= 0, axis=0))


def test_a_molecule_of_unknown_environments_is_outside_of_the_domain():
    _, bits = fingerprints.hashed_bits_of([standardization.Standardizer().parent("CCO").mol])
    arrays = {name: np.zeros(shape, dtype=np.float32) for name, shape in reliability_layout(1, n_bits=32_768)}
    arrays["domain.least_share"][:] = 0.9
    weights = {**initial_trunk(HIDDEN, seed=0), **initial_head(1, HIDDEN, seed=1), **arrays}
    card = SIMPLE_CARD | {"endpoints": ["A"], "kind": "qsar", "conformal_levels": list(LEVELS)}
    model = scoring.ScoringModel(card, weights, standardization, fingerprints, molecules)
    assert model.predictions(["CCO"])["in_domain"] == [False]
    arrays["domain.known"][bits] = 1
    assert model.predictions(["CCO"])["in_domain"] == [True]
    assert model.predictions(["C1CC"])["in_domain"] == [None]


def test_training_molecules_know_all_their_bits(inputs):
    dataset = PreparedDataset.open(inputs.prepared)
    known = known_bits(dataset)
    assert (known_shares(dataset, known, rows=dataset.training_rows((1, 2, 3))) == 1).all()
    assert len(known_shares(dataset, known, rows=np.empty(0, dtype=np.int64))) == 0


def test_one_validation_molecule_in_twenty_is_outside_of_the_domain(inputs):
    dataset = PreparedDataset.open(inputs.prepared)
    shares = known_shares(dataset, known_bits(dataset), rows=dataset.rows((4,)))
    least = reliability_of(inputs)["domain.least_share"][0]
    assert np.mean(shares < least - 1e-6) <= 0.05


def test_an_unknown_level_is_refused_by_name(calibrated):
    with pytest.raises(ValueError, match=r"significance 0.25; it has \[0.05"):
        scoring.load(calibrated).predictions(["CCO"], significance=0.25)
    with pytest.raises(SettingsError, match="promises nothing at significance"):
        load_model(calibrated, str(calibrated)).predict(["CCO"], significance=0.25)


def test_a_model_without_calibration_leaves_the_columns_out(bundle):
    assert set(load_model(bundle, str(bundle)).predict(["CCO"])) == {
        "smiles",
        "endpoint",
        "probability",
        "valid",
        "reason",
    }
    assert read_card(bundle).conformal_levels == ()


def test_reliability_of_another_head_is_refused(tmp_path, inputs):
    with pytest.raises(UpdateMismatch, match="the layout needs"):
        write_bundle(
            tmp_path / "wrong",
            run_id="run-1",
            trunk=initial_trunk(HIDDEN, seed=1),
            head=initial_head(4, HIDDEN, seed=2),
            endpoints=("A", "B", "C", "D"),
            data=SIMULATED,
            validation=None,
            reliability=reliability_of(inputs),
        )


def test_damaged_scores_are_refused(tmp_path):
    (tmp_path / "scores.arrow").write_bytes(b"no table")
    with pytest.raises(ContractViolation, match="score the model again"):
        read_scores(tmp_path / "scores.arrow")
    write_table(tmp_path / "scores.arrow", pa.table({"label": [1]}))
    with pytest.raises(ContractViolation, match=r"has columns \['label'\]"):
        read_scores(tmp_path / "scores.arrow")
