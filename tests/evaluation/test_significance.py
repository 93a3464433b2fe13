"""DeLong's test and the correction for many endpoints, against definitions and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, kstest

from tasks.evaluation.significance import benjamini_yekutieli, delong_p_values


def _by_definition(label, better, worse):
    """Structural components written out over all pairs."""
    active, inactive = np.flatnonzero(label == 1), np.flatnonzero(label == 0)

    def kernel(scores):
        gap = scores[active][:, None] - scores[inactive][None, :]
        return np.where(gap == 0, 0.5, gap > 0)

    difference = kernel(better) - kernel(worse)
    variance = difference.mean(axis=1).var(ddof=1) / len(active) + difference.mean(axis=0).var(ddof=1) / len(
        inactive
    )
    return difference.mean(), variance


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 10**6]))
def test_the_statistic_is_that_of_all_pairs_with_ties(seed, levels):
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.zeros(6, dtype=int), np.ones(5, dtype=int)])
    better, worse = (rng.integers(0, levels, 11) / levels for _ in range(2))
    gain, variance = _by_definition(label, better, worse)
    (p_value,) = delong_p_values(np.zeros(11, dtype=int), label, better=better, worse=worse, n_endpoints=1)
    if variance > 1e-12:
        from scipy.stats import norm

        assert p_value == pytest.approx(norm.sf(gain / np.sqrt(variance)), abs=1e-9)


def test_p_values_are_uniform_where_both_models_are_as_good():
    rng = np.random.default_rng(5)
    n_endpoints, each = 600, 60
    endpoint = np.repeat(np.arange(n_endpoints), each)
    label = rng.integers(0, 2, len(endpoint))
    signal = label + rng.normal(size=len(endpoint))
    better, worse = (signal + rng.normal(size=len(endpoint)) for _ in range(2))
    p_values = delong_p_values(endpoint, label, better=better, worse=worse, n_endpoints=n_endpoints)
    assert kstest(p_values, "uniform").pvalue > 0.001


def test_equal_rankings_say_nothing_and_few_labels_are_not_tested():
    endpoint, label = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 0, 1, 1])
    scores = np.arange(7.0)
    p_values = delong_p_values(endpoint, label, better=scores, worse=scores, n_endpoints=3)
    assert p_values[0] == 0.5
    assert np.isnan(p_values[1:]).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_correction_equals_scipys_and_leaves_out_what_was_not_tested(values):
    p_values = np.array(values)
    np.testing.assert_allclose(
        benjamini_yekutieli(p_values), false_discovery_control(p_values, method="by"), rtol=1e-9, atol=1e-300
    )
    with_gap = np.insert(p_values, 0, np.nan)
    np.testing.assert_allclose(benjamini_yekutieli(with_gap)[1:], benjamini_yekutieli(p_values))
    assert np.isnan(benjamini_yekutieli(with_gap)[0])
