"""Thresholds, quorums, weights, time split and profiles: each rule by itself."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import SettingsError
from tasks.featurization.measurements import Measured, labels_at
from tasks.featurization.preparation_rules import ClassQuorum, FoldRule, read_rules, rules_of
from tasks.featurization.quorums import censored_weights, deviation_by_fold, shared_weights
from tasks.featurization.thresholds import adaptive_threshold, quantile
from tasks.featurization.time_split import UNDATED, days_of, split_by_time

VALUES = st.lists(st.tuples(st.integers(0, 3), st.integers(6, 18).map(lambda n: n / 2)), max_size=40)
PAIRS = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from([4.0, 4.5, 5.0, 6.0, 7.0, 8.5]), st.sampled_from([-1, 0, 1])
    ),
    max_size=60,
)
TRIAL = (8.0, 7.0, 6.0, 5.0, 4.7, 4.4)


@given(VALUES, st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_a_quantile_is_numpys(values, share):
    assay, value = (np.array([v[i] for v in values], dtype=k) for i, k in enumerate((np.int64, np.float64)))
    found = quantile(assay, value, n_assays=4, share=np.full(4, share))
    for place in range(4):
        own = value[assay == place]
        assert (
            np.isnan(found[place]) if not len(own) else found[place] == pytest.approx(np.quantile(own, share))
        )


@given(PAIRS, st.integers(1, 4), st.sampled_from([0.0, 0.2, 0.5]))
def test_the_adaptive_threshold_is_the_first_with_enough_actives(pairs, quorum, share):
    assay = np.array([pair[0] for pair in pairs], dtype=np.int64)
    lower = np.array([-np.inf if relation < 0 else value for _, value, relation in pairs])
    upper = np.array([np.inf if relation > 0 else value for _, value, relation in pairs])
    measured = Measured(assay, np.arange(len(pairs)), lower, upper)
    found = adaptive_threshold(
        measured,
        n_assays=3,
        trial=TRIAL,
        smallest_share=share,
        quorum=ClassQuorum(active=quorum, inactive=quorum),
    )
    high = np.ones(len(pairs), dtype=np.bool_)
    for place in range(3):
        expected = np.nan
        for threshold in TRIAL:
            active, inactive = (
                int((mask & (assay == place)).sum())
                for mask in labels_at(measured, np.full(len(pairs), threshold), high=high)
            )
            if min(active, inactive) >= quorum and active >= share * (active + inactive):
                expected = threshold
                break
        assert found[place] == expected or (np.isnan(found[place]) and np.isnan(expected))


@given(st.one_of(st.floats(0, 0.999), st.just(1.0)), st.floats(0.01, 0.99))
def test_censored_values_together_weigh_at_most_the_knock_in_share(share, knock_in):
    (weight,) = censored_weights(np.array([share]), knock_in=knock_in)
    assert 0 <= weight <= 1
    if share > knock_in and share < 1:
        assert weight * share / (weight * share + 1 - share) == pytest.approx(knock_in)
    elif share <= knock_in:
        assert weight == 1


@given(VALUES)
def test_a_deviation_is_numpys_and_zero_below_two_values(values):
    assay, value = (np.array([v[i] for v in values], dtype=k) for i, k in enumerate((np.int64, np.float64)))
    fold = np.arange(len(values)) % 3
    found = deviation_by_fold(assay, fold, value, n_assays=4, n_folds=3)
    for place in range(4):
        for number in range(3):
            own = value[(assay == place) & (fold == number)]
            expected = np.std(own, ddof=1) if len(own) > 1 else 0.0
            assert found[place, number] == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_the_endpoints_of_an_assay_share_its_weight(assays):
    assay = np.array(assays)
    weight = shared_weights(assay, np.full(len(assay), 0.1))
    for place in set(assays):
        assert weight[assay == place].sum() == pytest.approx(0.1)


def test_a_time_split_goes_by_the_first_day_of_any_form():
    rule = FoldRule(rule="time", validation_from=date(2018, 1, 1), test_from=date(2020, 1, 1))
    days = days_of(
        np.array(["2017-12-31", "2018-01-01", "2021-01-01", "2019-12-31", "NaT"], dtype="datetime64[D]")
    )
    assert days[-1] == UNDATED
    of_compound = np.array([0, 1, 2, 2, 3])  # the third structure has two forms
    fold = split_by_time(np.array([0, 0, 0, 4], dtype=np.int8), of_compound, days, rule=rule)
    assert fold.tolist() == [1, 4, 4, 2]
    assert split_by_time(fold, of_compound, days, rule=FoldRule()) is fold


@pytest.mark.parametrize("profile", ["simple", "melloddy"])
def test_the_profiles_that_motet_brings_can_be_read_and_cannot_be_changed(profile):
    rules = rules_of(profile)
    assert rules.name == profile
    assert len(rules.digest) == 64
    with pytest.raises(Exception, match="frozen"):
        rules.version = 2


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("name: simple", "name: Simple!", "name"),
        ("active: 25", "active: 0", "active"),
        ("  AUX_PL: *any", "", "assay types"),
        ("  AUX_PL: *any", "  CELL: *any", "assay types"),
        ("default: [5.5, 6.5, 7.5]", "default: []", "at least one default threshold"),
        ("[0, 4]", "[0, 7]", "folds are 0 to 4"),
        ("rule: generic_scaffold", "rule: time", "validation_from and test_from"),
        ("version: 2", "version: 2\nfuture: 1", "future"),
        ("version: 2", "version: [", "no YAML"),
        ("n_bits: 32768", "n_bits: 65536", "n_bits"),
    ],
)
def test_a_profile_that_cannot_work_is_refused_by_its_place(tmp_path, old, new, named):
    from importlib import resources

    text = (resources.files("tasks.featurization") / "profiles/simple.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "own.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(SettingsError, match=named) as caught:
        rules_of(path)
    assert "own.yaml" in str(caught.value)


def test_a_profile_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"no readable profile 'none\.yaml'"):
        rules_of(tmp_path / "none.yaml")


def test_a_profile_is_data_and_runs_nothing():
    with pytest.raises(SettingsError, match="no YAML"):
        read_rules("name: !!python/object/apply:os.getcwd []", source="own")
