"""What the consortium learns of an evaluation: sums over at least ten endpoints, and nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evaluation.comparison import BARS, SHARED_GRID, SHARES, distribution_difference, flips, shares
from tasks.evaluation.metrics import METRICS
from tasks.evaluation.sums import MIN_ENDPOINTS, to_integers
from tasks.studies.evaluation import EVALUATION, EvaluationParameters, lanes

PARAMETERS = EvaluationParameters(split="test", after_round=1, arms=2)
PLAN = SimpleNamespace(parameters=PARAMETERS.model_dump(), lanes=lanes(PARAMETERS), round=3)


def _partner(rng, n):
    return {arm: {name: rng.random(n).round(2) for name in METRICS} for arm in ("single", "federated")}


def _announced(partners):
    """What the coordinator announces when these partners' contributions are summed."""
    total = {}
    for arms in partners:
        sums = {arm: to_integers(found, names=METRICS) for arm, found in arms.items()}
        sums["uplift"] = to_integers({}, names=PARAMETERS.beside["uplift"])
        sums["shares"] = to_integers(shares(arms["single"], arms["federated"]), names=SHARES)
        total = {name: total.get(name, 0) + vector for name, vector in sums.items()}
    found = SimpleNamespace(values=total, survivors=("a", "b", "c"))
    return EVALUATION.combine(PLAN, found, None)["metrics"]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(4, 40), min_size=3, max_size=6))
def test_the_consortiums_shares_are_those_of_all_endpoints_together(seed, sizes):
    partners = [_partner(np.random.default_rng([seed, k]), n) for k, n in enumerate(sizes)]
    announced = _announced(partners)
    single, federated = (
        np.concatenate([arms[arm]["auprc"] for arms in partners]) for arm in ("single", "federated")
    )
    for row in flips(single, federated):
        assert announced[f"test/shares/auprc_lifted_{row.bar}"] == pytest.approx(row.lifted / sum(sizes))
        assert announced[f"test/shares/auprc_fallen_{row.bar}"] == pytest.approx(row.fallen / sum(sizes))
    whole = distribution_difference(single, federated)
    for place in SHARED_GRID:
        difference = [announced[f"test/shares/auprc_cdf_{arm}_{place}"] for arm in ("federated", "single")]
        expected = np.mean(federated <= place) - np.mean(single <= place)
        assert difference[0] - difference[1] == pytest.approx(expected)
        assert abs(whole[round(100 * place)] - expected) < 0.02  # the report's grid of the same function


@pytest.mark.parametrize(("sizes", "shown"), [((3, 3, 3), False), ((4, 3, 3), True)])
def test_nothing_is_announced_of_fewer_than_ten_endpoints(sizes, shown):
    assert sum(sizes) == MIN_ENDPOINTS - (not shown)
    announced = _announced([_partner(np.random.default_rng(k), n) for k, n in enumerate(sizes)])
    expected = {f"test/{arm}/{name}" for arm in ("single", "federated") for name in METRICS}
    expected |= {f"test/shares/{name}" for name in SHARES}
    assert set(announced) == (expected if shown else set())


def test_every_share_has_a_name_and_a_place_in_the_lane():
    arms = _partner(np.random.default_rng(0), 5)
    found = shares(arms["single"], arms["federated"])
    assert list(found) == sorted(found, key=SHARES.index)
    assert set(found) == set(SHARES)
    assert len(SHARES) == 2 * (2 * len(BARS) + 2 * len(SHARED_GRID))
