"""The outside baseline is scikit-learn's logistic regression, endpoint by endpoint."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tasks.evaluation.metric_tables import read_metrics
from tasks.evaluation.metrics import endpoint_metrics
from tasks.evaluation.score_tables import read_scores
from tasks.local_training.baseline import STRENGTHS, Baseline, best_baseline, fingerprint_matrix
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import ScoreBaseline
from tasks.local_training.training import train


def test_each_endpoint_is_the_regression_on_its_own_labels(prepared):
    dataset = PreparedDataset.open(prepared)
    scores = Baseline(dataset, (1, 2, 3), strength=0.1).scores((0,))
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

    best = best_baseline(dataset, (1, 2, 3), validation_folds=(4,), min_per_class=1)
    each = [Baseline(dataset, (1, 2, 3), strength=strength) for strength in STRENGTHS]
    assert len({quality(found.scores((4,))) for found in each}) > 1
    assert quality(best.scores((4,))) == max(quality(found.scores((4,))) for found in each)


def test_an_endpoint_of_one_class_is_predicted_by_its_rate(prepared):
    dataset = PreparedDataset.open(prepared)
    only = dataset.label_endpoint == 0
    value = np.where(only, 1, dataset.label_value).astype(np.int8)
    changed = dataclasses.replace(dataset, label_value=value)
    scores = Baseline(changed, (1, 2, 3), strength=1.0).scores((0,))
    found = np.unique(scores.probability[scores.endpoint == 0])
    assert len(found) == 1
    assert 0.9 < found[0] < 1


def test_the_job_leaves_scores_of_both_folds_and_their_metrics(prepared, tmp_path):
    result = train(ScoreBaseline(dataset=prepared, output=tmp_path / "out", min_per_class=1))
    dataset = PreparedDataset.open(prepared)
    assert set(dataset.fold[read_scores(result.scores).structure].tolist()) == {0}
    calibration = read_scores(tmp_path / "out" / "calibration" / "scores.arrow")
    assert set(dataset.fold[calibration.structure].tolist()) == {4}
    metrics, counted = read_metrics(result.metrics)
    assert result.means.auroc == pytest.approx(metrics.means(counted)["auroc"])
