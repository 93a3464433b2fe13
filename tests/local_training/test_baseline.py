"""The outside baselines are what their libraries give, endpoint by endpoint."""

import dataclasses
import sys

import lightgbm
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from data_contracts.errors import SettingsError
from tasks.evaluation.metric_tables import read_metrics
from tasks.evaluation.metrics import endpoint_metrics
from tasks.evaluation.score_tables import read_scores
from tasks.local_training.baseline import (
    LIBRARY,
    STRENGTHS,
    Logistic,
    best_logistic,
    fingerprint_matrix,
    missing,
)
from tasks.local_training.boosted_trees import FEWEST_OCCURRENCES, SETTINGS, TREES, BoostedTrees, best_boosted
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import BASELINES, ScoreBaseline
from tasks.local_training.training import train


def test_each_endpoint_is_the_regression_on_its_own_labels(prepared):
    dataset = PreparedDataset.open(prepared)
    scores = Logistic(dataset, (1, 2, 3), strength=0.1).scores((0,))
    rows = dataset.training_rows((1, 2, 3))
    labels = dataset.labels_of(rows)
    for number in range(dataset.n_endpoints):
        chosen = labels.endpoint == number
        model = LogisticRegression(C=0.1, solver="liblinear", random_state=0)
        model.fit(fingerprint_matrix(dataset, rows[labels.row[chosen]]), labels.value[chosen])
        asked = scores.endpoint == number
        expected = model.predict_proba(fingerprint_matrix(dataset, scores.structure[asked]))[:, 1]
        np.testing.assert_allclose(scores.probability[asked], expected, atol=1e-9)


def test_the_strength_is_the_one_that_validates_best(prepared):
    dataset = PreparedDataset.open(prepared)

    def quality(scores):
        metrics = endpoint_metrics(
            scores.endpoint, scores.label, scores.probability, n_endpoints=dataset.n_endpoints
        )
        return metrics.means(metrics.counted(dataset.in_evaluation, min_per_class=1))["auprc"]

    best = best_logistic(dataset, (1, 2, 3), validation_folds=(4,), min_per_class=1)
    each = [Logistic(dataset, (1, 2, 3), strength=strength) for strength in STRENGTHS]
    assert len({quality(found.scores((4,))) for found in each}) > 1
    assert quality(best.scores((4,))) == max(quality(found.scores((4,))) for found in each)


def test_an_endpoint_of_one_class_is_predicted_by_its_rate(prepared):
    dataset = PreparedDataset.open(prepared)
    only = dataset.label_endpoint == 0
    value = np.where(only, 1, dataset.label_value).astype(np.int8)
    changed = dataclasses.replace(dataset, label_value=value)
    scores = Logistic(changed, (1, 2, 3), strength=1.0).scores((0,))
    found = np.unique(scores.probability[scores.endpoint == 0])
    assert len(found) == 1
    assert 0.9 < found[0] < 1


@pytest.mark.parametrize("name", BASELINES)
def test_the_job_leaves_scores_of_both_folds_and_their_metrics(prepared, tmp_path, name):
    result = train(ScoreBaseline(dataset=prepared, baseline=name, output=tmp_path / "out", min_per_class=1))
    dataset = PreparedDataset.open(prepared)
    assert set(dataset.fold[read_scores(result.scores).structure].tolist()) == {0}
    calibration = read_scores(tmp_path / "out" / "calibration" / "scores.arrow")
    assert set(dataset.fold[calibration.structure].tolist()) == {4}
    metrics, counted = read_metrics(result.metrics)
    assert result.means.auroc == pytest.approx(metrics.means(counted)["auroc"])


def test_each_endpoint_is_boosted_on_its_own_labels_and_its_usual_bits(prepared):
    dataset = PreparedDataset.open(prepared)
    scores = BoostedTrees.fit(dataset, (1, 2, 3)).scores((0,))
    rows = dataset.training_rows((1, 2, 3))
    labels = dataset.labels_of(rows)
    for number in range(dataset.n_endpoints - 1):
        chosen = labels.endpoint == number
        matrix = fingerprint_matrix(dataset, rows[labels.row[chosen]]).toarray()
        kept = matrix.sum(axis=0) >= FEWEST_OCCURRENCES
        booster = lightgbm.train(
            SETTINGS, lightgbm.Dataset(matrix[:, kept], labels.value[chosen], params=SETTINGS), TREES[-1]
        )
        asked = scores.endpoint == number
        expected = booster.predict(fingerprint_matrix(dataset, scores.structure[asked]).toarray()[:, kept])
        np.testing.assert_allclose(scores.probability[asked], expected, atol=1e-9)


def test_boosting_gives_the_same_scores_twice_and_learns(prepared):
    dataset = PreparedDataset.open(prepared)
    first, second = (
        best_boosted(dataset, (1, 2, 3), validation_folds=(4,), min_per_class=1).scores((0,))
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.probability, second.probability)
    learnt = BoostedTrees.fit(dataset, (1, 2, 3)).scores((1, 2, 3))
    trained = learnt.endpoint < dataset.n_endpoints - 1
    right = (learnt.probability > 0.5) == (learnt.label == 1)
    assert right[trained].mean() > 0.7  # a coin gets one half


def test_an_endpoint_that_is_not_trained_is_boosted_like_one_of_no_class(prepared):
    dataset = PreparedDataset.open(prepared)
    only = dataset.label_endpoint == 0
    changed = dataclasses.replace(dataset, label_value=np.where(only, 0, dataset.label_value).astype(np.int8))
    scores = BoostedTrees.fit(changed, (1, 2, 3)).scores((0,))
    found = np.unique(scores.probability[scores.endpoint == 0])
    assert len(found) == 1
    assert 0 < found[0] < 0.1


def test_a_missing_library_is_named_and_the_fit_refuses_with_advice(prepared, monkeypatch):
    assert missing(BASELINES) == ()
    monkeypatch.setitem(
        sys.modules, "lightgbm", None
    )  # what an environment without it looks like to an import
    with pytest.raises(SettingsError, match="LightGBM") as refused:
        BoostedTrees.fit(PreparedDataset.open(prepared), (1, 2, 3))
    assert "motet[baselines]" in refused.value.advice
    monkeypatch.setitem(LIBRARY, "boosted", "no_such_library")
    assert missing(BASELINES) == ("boosted",)
    assert missing(("logistic",)) == ()
