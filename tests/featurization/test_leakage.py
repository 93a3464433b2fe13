"""Nearest neighbours across folds, against similarities counted bit by bit."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.featurization.leakage import leakage_report, nearest_similarities

BITS = st.lists(st.sets(st.integers(0, 40), max_size=8), max_size=7)


def lists(rows):
    return pa.array([sorted(row) for row in rows], pa.list_(pa.uint16()))


@given(test=BITS, training=BITS)
def test_the_nearest_is_the_largest_share_of_common_bits(test, training):
    expected = [
        max((len(one & other) / len(one | other) if one | other else 0.0 for other in training), default=0.0)
        for one in test
    ]
    assert nearest_similarities(lists(test), lists(training)).tolist() == pytest.approx(expected)


def test_only_the_test_fold_is_compared_with_the_training_folds():
    rows = [{1, 2}, {1, 2}, {1, 2, 3}, {7, 8}, {1, 2}]
    table = pa.table({"fold": pa.array([0, 4, 1, 0, 0], pa.int8()), "bits": lists(rows)})
    report = leakage_report(table)
    assert (report["test"], report["training"], report["near"]) == (3, 1, 2)  # 2 of 3 bits are common
    assert report["median"] == 0.67
    assert report["histogram"] == [1, 0, 0, 0, 0, 0, 2, 0, 0, 0]


def test_an_empty_test_fold_has_no_median():
    table = pa.table({"fold": pa.array([1, 2], pa.int8()), "bits": lists([{1}, {2}])})
    assert leakage_report(table) == {
        "test": 0,
        "training": 2,
        "median": None,
        "near": 0,
        "histogram": [0] * 10,
    }


def test_a_copy_of_a_training_structure_is_as_near_as_can_be():
    rng = np.random.default_rng(0)
    rows = [set(rng.integers(0, 32_768, 60).tolist()) for _ in range(130)]
    assert nearest_similarities(lists(rows[:120]), lists(rows)).tolist() == [1.0] * 120
