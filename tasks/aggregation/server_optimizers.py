"""Server optimizers: from the mean of the updates to the next trunk.

Why: federated averaging is one choice of a server step; momentum damps the partners' disagreement.
Runs: on the coordinator. Source: Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 1
(server learning rate eta, FedAvgM with beta_1); eta = 1 and momentum 0 is FedAvg of McMahan et al. 2017.
"""

import numpy as np
import numpy.typing as npt

from data_contracts.errors import UpdateMismatch

FloatVector = npt.NDArray[np.float32]


def server_step(
    trunk: FloatVector,
    mean_update: npt.NDArray[np.floating],
    *,
    server_learning_rate: float,
    momentum: float = 0.0,
    velocity: FloatVector | None = None,
) -> tuple[FloatVector, FloatVector | None]:
    """Move the trunk along the mean update.

    Args:
        trunk: Flat parameters, shape ``(n_parameters,)``.
        mean_update: Mean of the survivors' updates, the same shape.
        server_learning_rate: Factor on the step; 1 is plain averaging.
        momentum: Share of the last velocity that is kept, in ``[0, 1)``.
        velocity: The last velocity; None in the first round.

    Returns:
        The next trunk, and the velocity to keep (None without momentum).

    Raises:
        UpdateMismatch: If the shapes differ or the mean is not finite.
    """
    if mean_update.shape != trunk.shape:
        raise UpdateMismatch(f"mean update has shape {mean_update.shape}, the trunk {trunk.shape}")
    if not np.isfinite(mean_update).all():
        raise UpdateMismatch("mean update is not finite; the round is refused and the last trunk stands")
    step = mean_update.astype(np.float32)
    if momentum:
        if velocity is not None:
            step += np.float32(momentum) * velocity
        velocity = step.copy()
    else:
        velocity = None
    step *= np.float32(server_learning_rate)
    step += trunk
    return step, velocity


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
