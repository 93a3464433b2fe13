"""Uplift, RIPtoP and the share of the gap closed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import ContractViolation
from tasks.evaluation.metrics import EndpointMetrics
from tasks.evaluation.uplift import compare, compare_consortium, resampled_weights, riptop

N = 40


def _arm(auprc, *, n_active=None):
    auprc = np.asarray(auprc, dtype=float)
    counts = np.full(len(auprc), 12) if n_active is None else n_active
    return EndpointMetrics(n_active=counts, n_inactive=counts, auroc=auprc, auprc=auprc, log_loss=1 - auprc)


def _arms(seed=0, *, gain=0.05):
    single = np.random.default_rng(seed).uniform(0.4, 0.8, N)
    return {"single": _arm(single), "federated": _arm(single + gain), "pooled": _arm(single + 2 * gain)}


EVERYTHING = np.ones(N, bool)


def test_riptop_follows_the_rules_of_melloddy():
    single = np.array([0.5, 0.8, 1.0, 1.0, 0.9])
    multi = np.array([0.75, 0.7, 1.0, 0.9, 1.0])
    # halfway to perfection; half as far again; both perfect: 0; only single perfect: the plain difference; all the way
    np.testing.assert_allclose(riptop(multi, single, perfect=1.0), [0.5, -0.5, 0.0, -0.1, 1.0], atol=1e-15)


def test_riptop_of_a_loss_is_positive_where_the_loss_shrinks():
    np.testing.assert_allclose(
        riptop(np.array([0.25, 0.0, 0.3]), np.array([0.5, 0.0, 0.0]), perfect=0.0),
        [0.5, 0.0, -0.3],
        atol=1e-15,
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_riptop_is_never_above_one_and_has_the_sign_of_the_gain(seed):
    rng = np.random.default_rng(seed)
    single, multi = rng.random(30), rng.random(30)
    found = riptop(multi, single, perfect=1.0)
    assert (found <= 1).all()
    assert (np.sign(found) == np.sign(multi - single)).all()


def test_a_constant_gain_is_found_exactly_with_an_interval_of_no_width():
    found = compare(_arms(), EVERYTHING, rng=np.random.default_rng(1))
    for metric in ("auroc", "auprc", "log_loss"):
        uplift = found.metrics[metric].uplift
        assert (uplift.value, uplift.low, uplift.high) == pytest.approx((0.05, 0.05, 0.05))
        assert found.metrics[metric].gap_closed.value == pytest.approx(0.5)
        assert found.metrics[metric].endpoints_improved == 1.0
    assert found.n_endpoints == N


def test_an_arm_equal_to_single_shows_no_uplift():
    arms = _arms(gain=0.0)
    found = compare(arms, EVERYTHING, rng=np.random.default_rng(1)).metrics["auprc"]
    assert found.uplift.value == found.riptop.value == 0.0
    assert found.gap_closed is None, "no gap, so no share of it"
    assert found.endpoints_improved == 0.5


def test_interval_covers_the_true_mean_about_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        single = rng.uniform(0.4, 0.6, N)
        arms = {"single": _arm(single), "federated": _arm(single + rng.normal(0.03, 0.05, N))}
        interval = compare(arms, EVERYTHING, rng=rng, n_bootstrap=300).metrics["auprc"].uplift
        hits += interval.low <= 0.03 <= interval.high
    assert 175 <= hits <= 199  # 95 % of 200, percentile bootstrap of 40


def test_same_seed_same_intervals():
    one, two = (compare(_arms(), EVERYTHING, rng=np.random.default_rng(9)) for _ in range(2))
    assert one == two


def test_only_counted_endpoints_enter():
    counted = np.arange(N) < 10
    arms = _arms()
    spoiled = arms["federated"].auprc.copy()
    spoiled[10:] = np.nan
    arms["federated"] = _arm(spoiled)
    assert compare(arms, counted, rng=np.random.default_rng(0)).metrics[
        "auprc"
    ].uplift.value == pytest.approx(0.05)


def test_the_consortium_is_the_union_of_its_partners_endpoints():
    small, large = _arms(1, gain=0.1), _arms(2, gain=0.02)
    found = compare_consortium(
        [(small, np.arange(N) < 10), (large, EVERYTHING)], rng=np.random.default_rng(0)
    )
    assert found.n_endpoints == 50
    assert found.metrics["auprc"].uplift.value == pytest.approx((10 * 0.1 + 40 * 0.02) / 50)


def test_a_missing_arm_other_labels_and_nothing_to_count_are_refused():
    arms, rng = _arms(), np.random.default_rng(0)
    two_arms = {name: arms[name] for name in ("single", "federated")}
    with pytest.raises(ContractViolation, match="missing \\['federated'\\]"):
        compare({"single": arms["single"]}, EVERYTHING, rng=rng)
    with pytest.raises(ContractViolation, match="'pooled' was measured on other labels"):
        compare({**arms, "pooled": _arm(arms["pooled"].auprc, n_active=np.full(N, 3))}, EVERYTHING, rng=rng)
    with pytest.raises(ContractViolation, match="no endpoint has enough labels"):
        compare(arms, ~EVERYTHING, rng=rng)
    with pytest.raises(ContractViolation, match="all partners need the arms"):
        compare_consortium([(arms, EVERYTHING), (two_arms, EVERYTHING)], rng=rng)
    with pytest.raises(ContractViolation, match="no partner"):
        compare_consortium([], rng=rng)


def test_thresholds_of_one_assay_count_as_one_observation_of_the_interval():
    arms, counted = _arms(3), EVERYTHING
    wide = (
        np.random.default_rng(4).normal(0, 0.1, N // 4).repeat(4)
    )  # four thresholds an assay, moving together
    arms["federated"] = _arm(arms["single"].auprc + wide)
    by_endpoint, by_assay = (
        compare(arms, counted, rng=np.random.default_rng(1), groups=groups).metrics["auprc"].uplift
        for groups in ((), (np.arange(N) // 4,))
    )
    assert by_assay.value == by_endpoint.value
    width = (by_assay.high - by_assay.low) / (by_endpoint.high - by_endpoint.low)
    assert width == pytest.approx(2, rel=0.25)  # the square root of four


def test_seeds_crossed_with_assays_cannot_be_surer_than_either():
    seeds, assays = np.arange(N) // 8, np.arange(N) % 8
    values = np.random.default_rng(5).normal(0, 1, 5).repeat(8) + np.tile(
        np.random.default_rng(6).normal(0, 1, 8), 5
    )

    def spread(*groups):
        return (resampled_weights(groups, N, np.random.default_rng(2), 2000) @ values).std()

    assert spread(seeds, assays) > max(spread(seeds), spread(assays)) > spread()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_every_resample_is_a_mean(seed, n_groups):
    rng = np.random.default_rng(seed)
    drawn = resampled_weights((rng.integers(0, n_groups, 30), rng.integers(0, n_groups, 30)), 30, rng, 50)
    assert (drawn >= 0).all()
    np.testing.assert_allclose(drawn.sum(axis=1), 1)
