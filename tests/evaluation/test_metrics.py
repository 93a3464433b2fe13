"""The one-pass metrics against scikit-learn, endpoint by endpoint."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from tasks.evaluation.metrics import METRICS, EndpointMetrics, endpoint_metrics


@st.composite
def labelled_scores(draw):
    n_endpoints = draw(st.integers(1, 6))
    n = draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.sampled_from([2, 3, 10, 10**6]))  # few levels make many ties
    probability = rng.integers(0, levels, n) / (levels - 1)
    return rng.integers(0, n_endpoints, n), rng.integers(0, 2, n), probability, n_endpoints


def _by_sklearn(endpoint, label, probability, n_endpoints) -> EndpointMetrics:
    columns = {name: np.full(n_endpoints, np.nan) for name in METRICS}
    for number in range(n_endpoints):
        y, p = label[endpoint == number], probability[endpoint == number]
        if len(y):
            columns["log_loss"][number] = log_loss(y, p, labels=[0, 1])
        if len(set(y.tolist())) == 2:
            columns["auroc"][number] = roc_auc_score(y, p)
            columns["auprc"][number] = average_precision_score(y, p)
    counts = [np.bincount(endpoint[label == value], minlength=n_endpoints) for value in (1, 0)]
    return EndpointMetrics(*counts, **columns)


@settings(max_examples=60, deadline=None)
@given(labelled_scores())
def test_all_metrics_equal_scikit_learn_to_1e12_with_ties_and_single_class_endpoints(case):
    endpoint, label, probability, n_endpoints = case
    ours = endpoint_metrics(endpoint, label, probability, n_endpoints=n_endpoints)
    theirs = _by_sklearn(*case)
    np.testing.assert_array_equal(ours.n_active, theirs.n_active)
    np.testing.assert_array_equal(ours.n_inactive, theirs.n_inactive)
    for name in METRICS:
        np.testing.assert_allclose(
            getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-12, err_msg=name
        )


@settings(max_examples=30, deadline=None)
@given(labelled_scores(), st.integers(0, 2**32))
def test_order_of_rows_does_not_matter(case, seed):
    endpoint, label, probability, n_endpoints = case
    order = np.random.default_rng(seed).permutation(len(endpoint))
    one = endpoint_metrics(endpoint, label, probability, n_endpoints=n_endpoints)
    other = endpoint_metrics(endpoint[order], label[order], probability[order], n_endpoints=n_endpoints)
    np.testing.assert_array_equal(one.auroc, other.auroc)
    np.testing.assert_allclose(one.auprc, other.auprc, rtol=0, atol=1e-14)


def test_known_answers_of_the_scikit_learn_manual():
    # sklearn.metrics.average_precision_score and roc_auc_score, example of their docstrings
    found = endpoint_metrics(
        np.zeros(4, np.int32), np.array([0, 0, 1, 1], np.int8), np.array([0.1, 0.4, 0.35, 0.8]), n_endpoints=2
    )
    assert found.auprc[0] == pytest.approx(0.8333333333333333, abs=1e-15)
    assert found.auroc[0] == 0.75
    assert np.isnan([found.auprc[1], found.auroc[1], found.log_loss[1]]).all()


def test_only_endpoints_of_the_evaluation_with_enough_of_both_classes_are_counted():
    metrics = EndpointMetrics(
        n_active=np.array([5, 5, 4, 5, 0]),
        n_inactive=np.array([5, 9, 9, 4, 9]),
        auroc=np.array([0.5, 0.7, 0.9, 0.9, np.nan]),
        auprc=np.array([0.5, 0.8, 0.9, 0.9, np.nan]),
        log_loss=np.array([0.5, 0.3, 0.9, 0.9, 0.1]),
    )
    in_evaluation = np.array([True, True, True, True, True])
    counted = metrics.counted(in_evaluation, min_per_class=5)
    assert counted.tolist() == [True, True, False, False, False]
    assert metrics.means(counted) == pytest.approx({"auroc": 0.6, "auprc": 0.65, "log_loss": 0.4})
    assert not metrics.counted(in_evaluation, min_per_class=0)[4], "one class alone never counts"
    assert metrics.means(np.zeros(5, bool)) == dict.fromkeys(METRICS)
