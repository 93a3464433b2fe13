"""Replicates, each rule against a definition written out pair by pair in plain Python."""

import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.featurization.replicates import RULES, Replicates, aggregate

HALVES = st.integers(-6, 18).map(lambda n: n / 2)  # few values, so that draws occur
PAIR = st.lists(st.tuples(HALVES, st.sampled_from([-1, 0, 1])), min_size=1, max_size=6)
PAIRS = st.lists(PAIR, min_size=1, max_size=8)
OPEN = {-1: (-np.inf, None), 0: (None, None), 1: (None, np.inf)}


def bounds(value, relation):
    low, high = OPEN[relation]
    return (value if low is None else low, value if high is None else high)


def rows_of(pairs):
    flat = [row for pair in pairs for row in pair]
    counts = [len(pair) for pair in pairs]
    return Replicates(
        np.cumsum([0, *counts[:-1]]).astype(np.int64),
        np.array([value for value, _ in flat], dtype=np.float64),
        np.array([relation for _, relation in flat], dtype=np.int64),
    )


def best(rows, score):
    """The row of the highest score; of equal ones a measured one, then the higher value, then `>`."""
    top = max(score(value) for value, _ in rows)
    tied = [row for row in rows if score(row[0]) == top]
    return bounds(*min(tied, key=lambda row: (abs(row[1]), -row[0], -row[1])))


def median_or_bounds(rows):
    measured = [value for value, relation in rows if relation == 0]
    if measured:
        return (statistics.median(measured),) * 2
    lower = max([value for value, relation in rows if relation > 0], default=-np.inf)
    upper = min([value for value, relation in rows if relation < 0], default=np.inf)
    return (lower, upper) if lower < upper else None


def highest(rows):
    return best([row for row in rows if row[1] >= 0] or rows, lambda value: value)


def median_with_common_relation(rows):
    counts = Counter(relation for _, relation in rows)
    most = max(counts.values())
    common = {relation for relation, count in counts.items() if count == most}
    if common == {-1, 1}:
        return None
    relation = 0 if 0 in common else common.pop()
    return bounds(statistics.median(value for value, _ in rows), relation)


BY_HAND = {
    "median_or_bounds": median_or_bounds,
    "highest": highest,
    "lowest": lambda rows: best(rows, lambda value: -value),
    "largest_magnitude": lambda rows: best(rows, abs),
    "median_with_common_relation": median_with_common_relation,
    "majority": lambda rows: (1.0 if sum(value for value, _ in rows) >= 0 else -1.0,) * 2,
}


def test_every_rule_is_compared():
    assert set(BY_HAND) == set(RULES)


@pytest.mark.parametrize("rule", sorted(RULES))
@given(pairs=PAIRS)
def test_a_rule_says_what_it_says_by_hand(rule, pairs):
    if rule == "majority":
        pairs = [[(1.0 if value > 0 else -1.0, 0) for value, _ in pair] for pair in pairs]
    summary = RULES[rule](rows_of(pairs))
    for place, pair in enumerate(pairs):
        expected = BY_HAND[rule](pair)
        assert bool(summary.sound[place]) == (expected is not None)
        if expected is not None:
            assert (summary.lower[place], summary.upper[place]) == expected


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"majority"}))
@given(pair=PAIR, order=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_decides_nothing(rule, pair, order):
    shuffled = list(pair)
    order.shuffle(shuffled)
    one, other = (RULES[rule](rows_of([rows])) for rows in (pair, shuffled))
    assert (one.lower[0], one.upper[0], one.sound[0]) == (other.lower[0], other.upper[0], other.sound[0])


@given(pairs=PAIRS, codes=st.lists(st.integers(0, len(RULES) - 2), min_size=8, max_size=8))
def test_each_pair_goes_by_its_own_rule(pairs, codes):
    names = tuple(name for name in RULES if name != "majority")
    summary = aggregate(rows_of(pairs), rule=np.array(codes[: len(pairs)]), rules=names)
    for place, (pair, code) in enumerate(zip(pairs, codes, strict=False)):
        expected = bounds(*pair[0]) if len(pair) == 1 else BY_HAND[names[code]](pair)
        assert bool(summary.sound[place]) == (expected is not None)
        if expected is not None:
            assert (summary.lower[place], summary.upper[place]) == expected
