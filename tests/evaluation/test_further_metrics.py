"""Metrics of all endpoints in one pass equal scikit-learn's and RDKit's, endpoint by endpoint."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit.ML.Scoring.Scoring import CalcBEDROC
from sklearn.metrics import brier_score_loss, cohen_kappa_score, precision_recall_curve

from tasks.evaluation.further_metrics import EARLY, REFERENCE_RATE, further_metrics

N_ENDPOINTS = 4


def _labels(seed, *, n=120, distinct=True):
    rng = np.random.default_rng(seed)
    endpoint = rng.integers(0, N_ENDPOINTS - 1, n)  # the last endpoint has no label
    label = (rng.random(n) < 0.4).astype(np.int8)
    label[endpoint == 0] = 1  # the first has one class only
    probability = rng.permutation(n) / n if distinct else rng.integers(0, 5, n) / 4
    return endpoint, label, probability


def _calibrated(truth, predicted):
    precision, recall, _ = precision_recall_curve(truth, predicted)
    share = truth.mean()
    factor = share * (1 - REFERENCE_RATE) / (REFERENCE_RATE * (1 - share))
    kept = precision[:-1] > 0
    adjusted = np.zeros(len(precision) - 1)
    adjusted[kept] = 1 / ((1 / precision[:-1][kept] - 1) * factor + 1)
    return float(-np.sum(np.diff(recall) * adjusted))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_every_endpoint_agrees_with_the_oracles(seed, distinct):
    endpoint, label, probability = _labels(seed, distinct=distinct)
    found = further_metrics(endpoint, label, probability, n_endpoints=N_ENDPOINTS)
    for number in range(N_ENDPOINTS - 1):
        chosen = endpoint == number
        truth, predicted = label[chosen], probability[chosen]
        assert found.brier[number] == pytest.approx(brier_score_loss(truth, predicted, pos_label=1))
        if number and 0 < truth.mean() < 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kappa = cohen_kappa_score(truth, predicted >= 0.5)
            assert found.kappa[number] == pytest.approx(kappa)
            assert found.auprc_calibrated[number] == pytest.approx(_calibrated(truth, predicted))
            if distinct:
                ranked = [[active] for active in truth[np.argsort(-predicted)]]
                assert found.bedroc[number] == pytest.approx(CalcBEDROC(ranked, 0, EARLY))
    assert np.isnan(found.bedroc[0])
    assert np.isnan(found.auprc_calibrated[0])
    assert np.isnan(found.brier[-1])


def test_the_calibration_error_is_the_weighted_gap_of_ten_bins():
    probability = np.array([0.05, 0.07, 0.95, 1.0, 0.0])
    label = np.array([0, 1, 1, 1, 0])
    found = further_metrics(np.zeros(5, dtype=int), label, probability, n_endpoints=1)
    assert found.ece[0] == pytest.approx((abs(0.12 - 1) + abs(1.95 - 2)) / 5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_and_of_ties_does_not_matter(seed):
    endpoint, label, probability = _labels(seed, distinct=False)
    order = np.random.default_rng(seed).permutation(len(label))
    one = further_metrics(endpoint, label, probability, n_endpoints=N_ENDPOINTS)
    other = further_metrics(endpoint[order], label[order], probability[order], n_endpoints=N_ENDPOINTS)
    for name, values in vars(one).items():
        np.testing.assert_allclose(getattr(other, name), values, err_msg=name)


def test_actives_in_front_give_the_largest_early_recognition_and_behind_the_least():
    endpoint, label = np.zeros(50, dtype=int), (np.arange(50) < 10).astype(int)
    best = further_metrics(endpoint, label, label * 0.5 + np.arange(50) / 200, n_endpoints=1)
    worst = further_metrics(endpoint, label, (1 - label) * 0.5 + np.arange(50) / 200, n_endpoints=1)
    assert best.bedroc[0] == pytest.approx(1)
    assert worst.bedroc[0] == pytest.approx(0, abs=1e-9)
