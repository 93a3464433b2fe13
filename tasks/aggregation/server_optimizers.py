"""Server optimizers: from the mean of the updates to the next trunk.

Why: federated averaging is one choice of a server step; momentum damps the partners' disagreement, and an adaptive
step gives rarely moved parameters their say. Runs: on the coordinator, and on whoever repeats a round.
Source: Reddi et al. 2021, "Adaptive Federated Optimization", Algorithms 1 and 2 (server learning rate eta, FedAvgM,
FedAdam, FedYogi); eta = 1 and momentum 0 is FedAvg of McMahan et al. 2017.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_contracts.errors import UpdateMismatch

FloatVector = npt.NDArray[np.float32]


ServerOptimizer = Literal["average", "momentum", "adam", "yogi"]

MOMENTUM = 0.9
SQUARE_DECAY = 0.99
ADAPTIVITY = 1e-3
"""beta_1, beta_2 and tau of the paper, at the values it recommends."""
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Constants of the step along a summed gradient: those that partners use for their heads."""
BLOCK = 2**17
"""Parameters worked on together: they stay in the processor's cache."""


@dataclass(frozen=True)
class ServerState:
    """What an optimizer keeps from round to round; both of shape ``(n_parameters,)``, float32.

    Attributes:
        velocity: Decaying mean of the mean updates (for ``momentum``: their decaying sum).
        square: Decaying mean of their squares; None for ``momentum``.
    """

    velocity: FloatVector
    square: FloatVector | None


def server_step(
    trunk: FloatVector,
    mean_update: npt.NDArray[np.floating],
    *,
    server_learning_rate: float,
    optimizer: ServerOptimizer = "average",
    state: ServerState | None = None,
) -> tuple[FloatVector, ServerState | None]:
    """Move the trunk by the mean update.

    Args:
        trunk: Flat parameters, shape ``(n_parameters,)``.
        mean_update: Mean of the survivors' updates, the same shape.
        server_learning_rate: Factor on the step; 1 is plain averaging.
        optimizer: Which rule.
        state: What the last round's step returned; None in the first round.

    Returns:
        The next trunk, and the state to keep (None for ``average``).

    Raises:
        UpdateMismatch: If the shapes differ, the mean is not finite, or the state is another optimizer's.
    """
    if mean_update.shape != trunk.shape:
        raise UpdateMismatch(f"mean update has shape {mean_update.shape}, the trunk {trunk.shape}")
    if not np.isfinite(mean_update).all():
        raise UpdateMismatch("mean update is not finite; the round is refused and the last trunk stands")
    if state is not None:
        _check_state(state, trunk, optimizer=optimizer)
    step = mean_update.astype(np.float32)
    following: ServerState | None = None
    if optimizer == "momentum":
        if state is not None:
            step += np.float32(MOMENTUM) * state.velocity
        following = ServerState(velocity=step.copy(), square=None)
    elif optimizer != "average":
        following = _moments(step, state, optimizer=optimizer)
        assert following.square is not None  # noqa: S101 - _moments has just made it
        step = (following.velocity / (np.sqrt(following.square) + ADAPTIVITY)).astype(np.float32)
    step *= np.float32(server_learning_rate)
    step += trunk
    return step, following


def adam_step(
    trunk: FloatVector,
    gradient: npt.NDArray[np.floating],
    *,
    learning_rate: float,
    weight_decay: float,
    step: int,
    state: ServerState | None,
) -> tuple[FloatVector, ServerState]:
    """Take one step of Adam along a summed gradient.

    Weight decay is coupled, and acts on parameters that ever had a gradient only: elsewhere Adam would divide the
    decay by itself and move parameters that nobody trains.

    Args:
        trunk: Flat parameters, shape ``(n_parameters,)``.
        gradient: The survivors' summed gradient, the same shape.
        learning_rate: Step size.
        weight_decay: L2 coefficient.
        step: Number of this step, from 1.
        state: What the last step returned; None in the first.

    Returns:
        The next trunk, and the state to keep.

    Raises:
        UpdateMismatch: If the shapes differ, the gradient is not finite, or the state is another optimizer's.

    Source: Kingma & Ba 2015, Algorithm 1, with the constants of torch and SparseChem.
    """
    if gradient.shape != trunk.shape:
        raise UpdateMismatch(f"gradient has shape {gradient.shape}, the trunk {trunk.shape}")
    if not np.isfinite(gradient).all():
        raise UpdateMismatch("the gradient is not finite; the round is refused and the last trunk stands")
    if state is not None:
        _check_state(state, trunk, optimizer="adam")
    following = trunk.copy()
    mean = np.zeros_like(trunk) if state is None else state.velocity.copy()
    square = np.zeros_like(trunk) if state is None or state.square is None else state.square.copy()
    rate = np.float32(learning_rate / (1 - BETA1**step))
    correction = np.float32((1 - BETA2**step) ** -0.5)
    for start in range(0, len(trunk), BLOCK):
        part = slice(start, start + BLOCK)
        found = gradient[part].astype(np.float32)
        if weight_decay:
            found += np.float32(weight_decay) * trunk[part] * ((square[part] > 0) | (found != 0))
        mean[part] += np.float32(1 - BETA1) * (found - mean[part])
        square[part] *= np.float32(BETA2)
        square[part] += np.float32(1 - BETA2) * np.square(found)
        denominator = np.sqrt(square[part])
        denominator *= correction
        denominator += np.float32(EPSILON)
        following[part] -= rate * mean[part] / denominator
    return following, ServerState(velocity=mean, square=square)


def _moments(update: FloatVector, state: ServerState | None, *, optimizer: ServerOptimizer) -> ServerState:
    if state is None:
        velocity = np.zeros_like(update)
        square = np.full_like(update, ADAPTIVITY**2)
    else:
        assert state.square is not None  # noqa: S101 - _check_state saw to it
        velocity, square = state.velocity, state.square.copy()
    velocity = (np.float32(MOMENTUM) * velocity + np.float32(1 - MOMENTUM) * update).astype(np.float32)
    squared, share = np.square(update), np.float32(1 - SQUARE_DECAY)
    if optimizer == "yogi":
        square -= share * squared * np.sign(square - squared)
    else:
        square *= np.float32(SQUARE_DECAY)
        square += share * squared
    return ServerState(velocity=velocity, square=square)


def _check_state(state: ServerState, trunk: FloatVector, *, optimizer: ServerOptimizer) -> None:
    adaptive = optimizer in {"adam", "yogi"}
    fits = state.velocity.shape == trunk.shape and (state.square is None or state.square.shape == trunk.shape)
    if optimizer == "average" or adaptive != (state.square is not None) or not fits:
        raise UpdateMismatch(
            f"the server's state does not belong to the optimizer '{optimizer}' and this trunk; take the state of "
            "the run's last round"
        )


def clip_for_next_round(
    mean_update: npt.NDArray[np.floating], *, n_partners: int, ceiling: float, floor: float = 1e-6
) -> float:
    """Choose the public clip of the next round from the public mean of this one.

    The largest coordinate of the mean times the number of partners bounds what any one of them sent if it
    alone moved that coordinate; a coordinate beyond is clipped and counted.

    Args:
        mean_update: Mean update of this round, shape ``(n_parameters,)``.
        n_partners: Number of survivors in that mean.
        ceiling: Largest clip the consortium agreed on.
        floor: Smallest clip; keeps the quantizer's scale finite when nothing moved.

    Returns:
        A clip in parameter units, in ``[floor, ceiling]``.
    """
    largest = max(float(mean_update.max(initial=0.0)), -float(mean_update.min(initial=0.0)))
    return float(min(max(n_partners * largest, floor), ceiling))
