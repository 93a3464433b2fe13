"""Integers that sum exactly, and means that hide small counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import UpdateMismatch
from tasks.evaluation.sums import MAX_VALUE, lane_length, to_integers, to_means

NAMES = ("auprc", "riptop_auprc")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(0, 2**32))
def test_the_mean_of_the_sums_is_the_mean_of_all_endpoints_within_the_fixed_point(sizes, seed):
    rng = np.random.default_rng(seed)
    partners = [rng.uniform(-1, 1, size) for size in sizes]
    total = sum(to_integers({"auprc": values}, names=NAMES) for values in partners)
    mean, count = to_means(total, names=NAMES)["auprc"]
    if sum(sizes) >= 10:
        assert count == sum(sizes)
        assert mean == pytest.approx(float(np.concatenate(partners).mean()), abs=2**-21)
    else:
        assert (mean, count) == (None, 0)


def test_known_answer():
    # 0.5 and 0.25 are 524,288 and 262,144 in units of 2**-20; the undefined value is not counted
    values = {"auprc": np.array([0.5, np.nan, 0.25]), "riptop_auprc": np.array([-1.0])}
    assert to_integers(values, names=NAMES).tolist() == [786_432, 2, -1_048_576, 1]


def test_nine_endpoints_are_hidden_and_ten_are_shown():
    nine, ten = (to_integers({"auprc": np.full(n, 0.5)}, names=NAMES) for n in (9, 10))
    assert to_means(nine, names=NAMES) == {"auprc": (None, 0), "riptop_auprc": (None, 0)}
    assert to_means(ten, names=NAMES)["auprc"] == (0.5, 10)


def test_a_value_beyond_the_bound_is_clipped():
    assert to_integers({"auprc": np.array([-1e9])}, names=NAMES)[0] == -MAX_VALUE * 2**20


def test_the_lane_is_as_long_as_it_says():
    assert to_integers({}, names=NAMES).shape == (lane_length(NAMES),)


@pytest.mark.parametrize(
    ("sums", "words"),
    [
        (np.zeros(3, np.int64), "the plan needs integers"),
        (np.zeros(4, np.float64), "the plan needs integers"),
        (np.array([5, -1, 0, 0]), "negative number"),
    ],
)
def test_sums_of_another_shape_type_or_sign_are_refused(sums, words):
    with pytest.raises(UpdateMismatch, match=words):
        to_means(sums, names=NAMES)


def test_a_quantity_outside_the_plan_is_refused():
    with pytest.raises(UpdateMismatch, match="are not among the plan's"):
        to_integers({"brier": np.zeros(3)}, names=NAMES)
