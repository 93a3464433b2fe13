"""Conformal sets follow the p-value's definition and keep their promise on exchangeable data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evaluation.conformal import LEVELS, conformal_quality, fit_conformal


def _by_definition(calibration, score, level):
    """Whether a class is in the set; scores are its nonconformity."""
    p_value = (np.sum(calibration >= score) + 1) / (len(calibration) + 1)
    return p_value > level + 1e-12


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.sampled_from([3, 1000]))
def test_sets_are_those_of_the_p_values_with_ties_and_few_labels(seed, n, grid):
    rng = np.random.default_rng(seed)
    endpoint, label = rng.integers(0, 3, n), rng.integers(0, 2, n)
    logit = rng.integers(-grid, grid + 1, n) / grid
    thresholds = fit_conformal(endpoint, label, logit, n_endpoints=3)
    asked = np.repeat(np.arange(3), 7), np.tile(np.linspace(-1, 1, 7), 3)
    for number, level in enumerate(LEVELS):
        active, inactive = thresholds.sets(*asked, level=number)
        for place, (where, score) in enumerate(zip(*asked, strict=True)):
            of_active = -logit[(endpoint == where) & (label == 1)]
            of_inactive = logit[(endpoint == where) & (label == 0)]
            assert active[place] == _by_definition(of_active, -score, level)
            assert inactive[place] == _by_definition(of_inactive, score, level)


def _drawn(rng, n):
    label = (rng.random(n) < 0.3).astype(np.int64)
    return np.zeros(n, dtype=np.int64), label, rng.normal(size=n) + 1.5 * label


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_the_promise_holds_for_each_class_on_exchangeable_data(level):
    rng = np.random.default_rng(level)
    thresholds = fit_conformal(*_drawn(rng, 4000), n_endpoints=1)
    quality = conformal_quality(thresholds, *_drawn(rng, 20_000), level=level, n_endpoints=1)
    assert quality.validity_active[0] == pytest.approx(1 - LEVELS[level], abs=0.025)
    assert quality.validity_inactive[0] == pytest.approx(1 - LEVELS[level], abs=0.025)


def test_a_better_model_is_more_efficient_at_the_same_promise():
    rng = np.random.default_rng(7)
    endpoint, label, noise = _drawn(rng, 8000)
    good = noise + 2 * label
    efficiency = []
    for logit in (noise, good):
        thresholds = fit_conformal(endpoint[:4000], label[:4000], logit[:4000], n_endpoints=1)
        found = conformal_quality(
            thresholds, endpoint[4000:], label[4000:], logit[4000:], level=1, n_endpoints=1
        )
        efficiency.append(found.efficiency[0])
    assert efficiency[1] > efficiency[0] + 0.2


def test_without_calibration_labels_both_classes_are_always_possible():
    nothing = np.empty(0, dtype=np.int64)
    thresholds = fit_conformal(nothing, nothing, np.empty(0), n_endpoints=2)
    active, inactive = thresholds.sets(np.array([0, 1]), np.array([-99.0, 99.0]), level=3)
    assert active.all()
    assert inactive.all()
