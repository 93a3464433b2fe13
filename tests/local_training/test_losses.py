"""Both losses have the values of their formulas, the slope of their finite differences, and no infinity."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from tasks.local_training.losses import one_sided_error, tobit_error

DOUBLE = torch.float64
FAR = st.floats(-1e4, 1e4, width=32)


def _tobit(prediction, value, censoring, deviation):
    tensors = (torch.tensor([number], dtype=DOUBLE) for number in (prediction, value))
    log_deviation = torch.tensor([math.log(deviation)], dtype=DOUBLE)
    return float(tobit_error(*tensors, torch.tensor([censoring]), log_deviation=log_deviation))


@pytest.mark.parametrize(
    ("prediction", "censoring", "expected"),
    [(1.0, 0, 4.0), (5.0, 0, 4.0), (1.0, 1, 4.0), (5.0, 1, 0.0), (1.0, -1, 0.0), (5.0, -1, 4.0)],
)
def test_a_bound_costs_only_on_its_wrong_side(prediction, censoring, expected):
    found = one_sided_error(torch.tensor([prediction]), torch.tensor([3.0]), torch.tensor([censoring]))
    assert found.tolist() == [expected]


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.06, 10))
def test_tobit_is_the_likelihood_of_a_normal_distribution(prediction, value, deviation):
    normal = norm(prediction, deviation)
    assert _tobit(prediction, value, 0, deviation) == pytest.approx(-normal.logpdf(value))
    assert _tobit(prediction, value, 1, deviation) == pytest.approx(-normal.logsf(value), rel=1e-6, abs=1e-12)
    assert _tobit(prediction, value, -1, deviation) == pytest.approx(
        -normal.logcdf(value), rel=1e-6, abs=1e-12
    )


def test_both_losses_have_the_slope_of_their_finite_differences():
    generator = torch.Generator().manual_seed(1)
    draws = (torch.randn(60, generator=generator, dtype=DOUBLE) for _ in range(3))
    prediction, value, spread = (draw.requires_grad_(number != 1) for number, draw in enumerate(draws))
    censoring = torch.arange(60) % 3 - 1
    assert torch.autograd.gradcheck(lambda p: one_sided_error(p, value, censoring), (prediction,))
    assert torch.autograd.gradcheck(
        lambda p, s: tobit_error(p, value, censoring, log_deviation=s), (prediction, spread)
    )


@given(FAR, st.sampled_from((-1, 0, 1)), FAR)
def test_no_prediction_is_so_far_off_that_loss_or_slope_are_infinite(prediction, censoring, log_deviation):
    moved = torch.tensor([prediction], requires_grad=True)
    spread = torch.tensor([log_deviation], requires_grad=True)
    loss = tobit_error(moved, torch.zeros(1), torch.tensor([censoring]), log_deviation=spread)
    loss.sum().backward()
    assert torch.isfinite(torch.cat([loss.detach(), moved.grad, spread.grad])).all()


def test_the_slope_of_a_bound_that_is_missed_by_far_is_that_of_the_square():
    # For x far below zero d/dx log Phi(x) tends to -x.
    moved = torch.tensor([-1000.0], requires_grad=True)
    tobit_error(moved, torch.zeros(1), torch.tensor([1]), log_deviation=torch.zeros(1)).backward()
    assert moved.grad.item() == pytest.approx(-1000, rel=1e-5)
