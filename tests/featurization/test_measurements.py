"""Units, replicates and labels, each against a definition written out row by row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.featurization.measurements import (
    P_OF_ONE,
    RELATIONS,
    Measured,
    labels_at,
    on_p_scale,
)
from tasks.featurization.replicates import Replicates, measured_pairs, median_or_bounds

UNITS = list(P_OF_ONE)
HALVES = st.integers(6, 18).map(lambda n: n / 2)  # few values, so that ties and boundaries occur
ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), HALVES, st.sampled_from([-1, 0, 1])),
    min_size=1,
    max_size=40,
)


def convert(value, unit, relation):
    p, flipped = on_p_scale(
        np.array([float(value)]), np.array([UNITS.index(unit)]), np.array([RELATIONS[relation]])
    )
    return p[0], {number: sign for sign, number in RELATIONS.items()}[int(flipped[0])]


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (
            (10, "uM", ">"),
            (5.0, "<"),
        ),  # MELLODDY-TUNER asks for p-scale input; this is the flip it leaves out
        ((10, "uM", "<"), (5.0, ">")),
        ((1, "nM", "="), (9.0, "=")),
        ((1, "pM", "="), (12.0, "=")),
        ((1, "mM", "="), (3.0, "=")),
        ((1, "M", "="), (0.0, "=")),
        ((50, "nM", "="), (7.301029996, "=")),
        ((6.2, "p", ">"), (6.2, ">")),
        ((-1.5, "p", "="), (-1.5, "=")),
    ],
)
def test_known_conversions(given_, expected):
    assert convert(*given_) == expected


@given(st.floats(1e-12, 1e3), st.sampled_from(list(RELATIONS)))
def test_one_concentration_is_one_value_in_every_unit(molar, relation):
    factors = {"M": 1.0, "mM": 1e3, "uM": 1e6, "nM": 1e9, "pM": 1e12}
    values = [convert(molar * factor, unit, relation) for unit, factor in factors.items()]
    assert len({sign for _, sign in values}) == 1
    assert max(p for p, _ in values) - min(p for p, _ in values) <= 1.0000001e-9


def measured_of(rows):
    """One pair for each (assay, structure), by the default rule."""
    rows = sorted(rows, key=lambda row: row[:2])
    assay, structure, value, relation = (
        np.array([row[i] for row in rows], dtype=kind) for i, kind in enumerate((int, int, float, int))
    )
    first = np.array(
        [i for i, row in enumerate(rows) if i == 0 or row[:2] != rows[i - 1][:2]], dtype=np.int64
    )
    summary = median_or_bounds(Replicates(first, value, relation))
    return measured_pairs(assay[first], structure[first], summary)


@given(ROWS, HALVES, st.booleans())
def test_a_label_is_given_exactly_when_every_possible_value_agrees(rows, threshold, high):
    measured = measured_of(rows)
    n = len(measured)
    active, inactive = labels_at(measured, np.full(n, threshold), high=np.full(n, high))
    for place in range(n):
        lower, upper = measured.lower[place], measured.upper[place]
        grid = np.arange(-2.125, 14, 0.125)  # finer than the values, beyond all of them
        possible = grid[(grid > lower) & (grid < upper)] if lower != upper else np.array([lower])
        verdicts = {bool(v >= threshold) if high else bool(v <= threshold) for v in possible}
        assert active[place] == (verdicts == {True})
        assert inactive[place] == (verdicts == {False})


def test_no_threshold_gives_no_label():
    one = Measured(np.array([0]), np.array([0]), np.array([6.0]), np.array([6.0]))
    for high in (True, False):
        active, inactive = labels_at(one, np.array([np.nan]), high=np.array([high]))
        assert not active.any()
        assert not inactive.any()


def test_an_above_range_result_is_inactive_only_below_the_threshold():
    # IC50 > 10 uM is pIC50 < 5: inactive at 5 and 6, and says nothing at 4.
    value, relation = on_p_scale(np.array([10.0]), np.array([UNITS.index("uM")]), np.array([1]))
    measured = measured_of([(0, 0, value[0], relation[0])])
    verdicts = [labels_at(measured, np.array([t]), high=np.array([True])) for t in (4.0, 5.0, 6.0)]
    assert [bool(active[0]) for active, _ in verdicts] == [False, False, False]
    assert [bool(inactive[0]) for _, inactive in verdicts] == [False, True, True]
