"""Calibration repairs what is miscalibrated, leans on all endpoints where one has few labels, keeps rankings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from tasks.evaluation.calibration import LEAST_SLOPE, fit_calibration, logits_of_probabilities, sigmoid


def _overconfident(rng, *, n, n_endpoints, slope, offset):
    """Labels drawn from calibrated logits, and the too extreme logits a network might give them."""
    endpoint = rng.integers(0, n_endpoints, n)
    true = rng.normal(size=n)
    label = (rng.random(n) < sigmoid(true)).astype(np.int64)
    return endpoint, label, (true - offset) / slope


def _log_loss(label, probability):
    return float(-np.mean(np.log(np.where(label == 1, probability, 1 - probability))))


def test_the_slope_and_offset_that_made_the_scores_are_found_again():
    data = _overconfident(np.random.default_rng(1), n=60_000, n_endpoints=3, slope=0.5, offset=0.3)
    found = fit_calibration(*data, n_endpoints=3)
    np.testing.assert_allclose(found.slope, 0.5, atol=0.03)
    np.testing.assert_allclose(found.offset, 0.3, atol=0.05)


def test_one_endpoint_with_many_labels_is_fitted_as_by_logistic_regression():
    data = _overconfident(np.random.default_rng(2), n=20_000, n_endpoints=1, slope=0.7, offset=-0.4)
    found = fit_calibration(*data, n_endpoints=1)
    oracle = LogisticRegression(C=1e6).fit(data[2][:, None], data[1])
    assert found.slope[0] == pytest.approx(oracle.coef_[0, 0], abs=1e-3)
    assert found.offset[0] == pytest.approx(oracle.intercept_[0], abs=1e-3)


def test_held_out_log_loss_falls_with_twenty_labels_an_endpoint():
    rng = np.random.default_rng(3)
    train = _overconfident(rng, n=2000, n_endpoints=100, slope=0.5, offset=0.2)
    test = _overconfident(rng, n=20_000, n_endpoints=100, slope=0.5, offset=0.2)
    found = fit_calibration(*train, n_endpoints=100)
    before, after = sigmoid(test[2]), found.apply(test[0], test[2])
    assert _log_loss(test[1], after) < _log_loss(test[1], before) - 0.02
    assert _log_loss(test[1], after) < _log_loss(test[1], sigmoid(0.5 * test[2] + 0.2)) + 0.01


def test_an_endpoint_without_labels_gets_what_all_together_say():
    data = _overconfident(np.random.default_rng(4), n=5000, n_endpoints=2, slope=0.5, offset=0.0)
    found = fit_calibration(*data, n_endpoints=3)
    assert found.slope[2] == pytest.approx(0.5, abs=0.1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.floats(0.1, 30))
def test_any_labels_give_finite_numbers_and_keep_the_ranking(seed, n, spread):
    rng = np.random.default_rng(seed)
    endpoint, label = rng.integers(0, 3, n), rng.integers(0, 2, n)
    found = fit_calibration(endpoint, label, rng.normal(size=n) * spread, n_endpoints=3)
    assert np.isfinite(found.slope).all()
    assert np.isfinite(found.offset).all()
    assert (found.slope >= LEAST_SLOPE).all()


def test_logits_come_back_from_probabilities_and_stay_finite_at_the_ends():
    logit = np.array([-5.0, 0.0, 7.0])
    np.testing.assert_allclose(logits_of_probabilities(sigmoid(logit)), logit, atol=1e-9)
    assert np.isfinite(logits_of_probabilities(np.array([0.0, 1.0]))).all()
