"""All regression endpoints in one pass give what SciPy, scikit-learn and counting pairs give one by one."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import r2_score, root_mean_squared_error

from tasks.evaluation.regression_metrics import concordance, regression_metrics

ROW = st.tuples(st.integers(0, 3), st.integers(-4, 4), st.sampled_from((-1, 0, 0, 1)), st.integers(-3, 3))


def _columns(rows):
    endpoint, value, censoring, prediction = (np.array(column) for column in zip(*rows, strict=True))
    return endpoint, value / 2, censoring, prediction / 2


def _pairs_one_by_one(value, censoring, prediction):
    lowest = np.where(censoring == -1, -np.inf, value)
    highest = np.where(censoring == 1, np.inf, value)
    agreeing, known = 0.0, 0
    for i, j in itertools.permutations(range(len(value)), 2):
        if lowest[i] > highest[j]:
            known += 1
            agreeing += (prediction[i] > prediction[j]) + (prediction[i] == prediction[j]) / 2
    return agreeing / known if known else np.nan


@given(st.lists(ROW, min_size=1, max_size=40))
def test_every_endpoint_has_what_it_has_alone(rows):
    endpoint, value, censoring, prediction = _columns(rows)
    found = regression_metrics(endpoint, value, censoring, prediction, n_endpoints=5)
    for number in range(5):
        at = endpoint == number
        free = at & (censoring == 0)
        assert (found.n_values[number], found.n_uncensored[number]) == (at.sum(), free.sum())
        expected = _pairs_one_by_one(value[at], censoring[at], prediction[at])
        assert found.concordance[number] == pytest.approx(expected, nan_ok=True)
        if not free.any():
            assert np.isnan(found.rmse[number])
            continue
        assert found.rmse[number] == pytest.approx(root_mean_squared_error(value[free], prediction[free]))
        if len(np.unique(value[free])) == 1:
            assert np.isnan([found.r2[number], found.spearman[number]]).all()
            continue
        assert found.r2[number] == pytest.approx(r2_score(value[free], prediction[free]))
        varies = len(np.unique(prediction[free])) > 1
        expected = spearmanr(value[free], prediction[free]).statistic if varies else 0.0
        assert found.spearman[number] == pytest.approx(expected, abs=1e-12)


def test_a_bound_counts_only_where_the_prediction_breaks_it():
    # ">5" predicted 6 keeps it, predicted 3 breaks it by 2; "<5" the other way round.
    found = regression_metrics(
        np.array([0, 1, 2, 3]),
        np.array([5.0, 5.0, 5.0, 5.0]),
        np.array([1, 1, -1, -1]),
        np.array([6.0, 3.0, 6.0, 3.0]),
        n_endpoints=4,
    )
    assert found.rmse_censored.tolist() == [0, 2, 1, 0]
    assert np.isnan(found.rmse).all()


def test_concordance_knows_the_order_of_a_bound_only_where_it_cannot_be_otherwise():
    # ">7" lies above 5 for certain, ">3" may lie on either side of it.
    value, censoring = np.array([5.0, 7.0, 3.0]), np.array([0, 1, 1])
    endpoint = np.zeros(3, dtype=int)
    right = concordance(endpoint, value, censoring, np.array([1.0, 2.0, 0.0]), n_endpoints=1)
    wrong = concordance(endpoint, value, censoring, np.array([2.0, 1.0, 9.0]), n_endpoints=1)
    assert (right[0], wrong[0]) == (1.0, 0.0)


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(3)
    endpoint, value = rng.integers(0, 20, 3000), np.round(rng.normal(6, 1, 3000), 1)
    censoring, prediction = rng.choice([-1, 0, 0, 1], 3000), np.round(rng.normal(6, 1, 3000), 1)
    order = rng.permutation(3000)
    first = regression_metrics(endpoint, value, censoring, prediction, n_endpoints=20)
    again = regression_metrics(
        endpoint[order], value[order], censoring[order], prediction[order], n_endpoints=20
    )
    np.testing.assert_allclose(first.concordance, again.concordance, rtol=1e-12)
    np.testing.assert_allclose(first.spearman, again.spearman, rtol=1e-12)


def test_only_endpoints_with_enough_measured_values_that_vary_are_counted():
    endpoint = np.repeat([0, 1, 2], [5, 5, 4])
    value = np.array([*range(5), *[6.0] * 5, *range(4)], dtype=float)
    found = regression_metrics(endpoint, value, np.zeros(14), value + 1, n_endpoints=4)
    assert found.counted(np.ones(4, dtype=bool), min_values=5).tolist() == [True, False, False, False]
    assert found.means(np.zeros(4, dtype=bool)) == dict.fromkeys(
        ("rmse", "rmse_censored", "r2", "spearman", "concordance")
    )
    assert found.means(found.counted(np.ones(4, dtype=bool), min_values=5))["rmse"] == 1
