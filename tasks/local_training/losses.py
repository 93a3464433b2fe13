"""What a regression endpoint costs: squared or Gaussian errors of measured values, one-sided ones of bounds.

Why: "more than 10 uM" says on which side the truth lies; to fit the bound itself teaches what was never measured, to
drop it throws half of a screen away. Runs: on the partner, in the training child. Source: SparseChem
(``censored_mse_loss``) for the one-sided square; Tobin 1958 for the likelihood; known answers in
tests/local_training/test_losses.py.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

from tasks.local_training.regression_data import HIGHEST_DEVIATION, LOWEST_DEVIATION

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


def one_sided_error(prediction: Tensor, value: Tensor, censoring: Tensor) -> Tensor:
    """Square the error of measured values; of bounds only where the prediction breaks them.

    Args:
        prediction: Shape ``(n_values,)``, standardized as ``value``.
        value: Measured values and bounds.
        censoring: 0 measured, 1 the truth lies above the value, -1 below.

    Returns:
        Shape ``(n_values,)``.
    """
    error = value - prediction
    broken: Tensor = torch.where(censoring == 0, error, torch.relu(error * censoring))
    return broken.square()


def tobit_error(prediction: Tensor, value: Tensor, censoring: Tensor, *, log_deviation: Tensor) -> Tensor:
    """Negative log-likelihood of a normal distribution: density of measured values, tail of bounds.

    Args:
        prediction: Its mean, shape ``(n_values,)``.
        value: Measured values and bounds.
        censoring: 0 measured, 1 the truth lies above the value, -1 below.
        log_deviation: Logarithm of its standard deviation for each value, shape ``(n_values,)``.

    Returns:
        Shape ``(n_values,)``; finite with a finite gradient however far a prediction lies from its bound.
    """
    log_deviation = log_deviation.clamp(math.log(LOWEST_DEVIATION), math.log(HIGHEST_DEVIATION))
    distance = (prediction - value) * torch.exp(-log_deviation)
    density = 0.5 * distance.square() + log_deviation + HALF_LOG_2_PI
    tail = -_log_cdf(distance * censoring)
    loss: Tensor = torch.where(censoring == 0, density, tail)
    return loss


class _LogCdf(torch.autograd.Function):
    """Logarithm of the normal distribution function, with a slope that is right in the far tail too.

    torch's own slope divides two numbers that both underflow: at -10,000 it is 6.5 times too steep.
    """

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        found: Tensor = torch.special.log_ndtr(x)
        return found

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope: Tensor = math.sqrt(2 / math.pi) / torch.special.erfcx(-x / math.sqrt(2))
        return gradients[0] * slope


def _log_cdf(x: Tensor) -> Tensor:
    return _LogCdf.apply(x)  # type: ignore[no-any-return, no-untyped-call]
