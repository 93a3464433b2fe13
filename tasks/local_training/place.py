"""Where a network is computed and how precisely: the torch side of a partner's own ``Machine``.

Why: a partner with a GPU uses it without anybody else's noticing; parameters, moments and all that leaves the child
stay float32 in main memory. Runs: on the partner, in the training child.
Source: mixed precision with float32 master weights (Micikevicius et al. 2018), by ``torch.autocast``.
"""

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data_contracts.errors import SettingsError
from tasks.local_training.jobs import Machine


@dataclass(frozen=True)
class Place:
    """A device and a precision.

    Args:
        device: Where tensors live.
        reduced: Whether matrix products (residual layers, dense heads) are computed in bfloat16.
    """

    device: torch.device
    reduced: bool = False

    def put(self, array: npt.NDArray[np.generic]) -> Tensor:
        """Bring an array here; on the CPU it is shared."""
        return torch.from_numpy(array).to(self.device)

    def precision(self) -> torch.autocast:
        """The context in which a network is applied."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.reduced)

    def generator(self, generator: torch.Generator) -> torch.Generator:
        """A private source of numbers on this device: the given one on the CPU, elsewhere one of the same seed."""
        if self.device.type == "cpu":
            return generator
        return torch.Generator(device=self.device).manual_seed(generator.initial_seed())


CPU = Place(torch.device("cpu"))


def place_of(machine: Machine) -> Place:
    """Find the device that a partner's settings name.

    Call it in the training child only: CUDA does not survive a fork.

    Raises:
        SettingsError: If CUDA was asked for and there is no such device.
    """
    reduced = machine.precision == "bfloat16"
    if machine.device == "cpu" or (machine.device == "auto" and not torch.cuda.is_available()):
        return Place(torch.device("cpu"), reduced=reduced)
    if not torch.cuda.is_available():
        raise SettingsError(
            "device 'cuda' was asked for, but torch sees no CUDA device on this machine",
            advice="choose device 'auto' or 'cpu', or install torch for CUDA and a driver",
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or its products are not repeatable
    torch.use_deterministic_algorithms(True, warn_only=True)
    return Place(torch.device("cuda"), reduced=reduced)


def as_array(tensor: Tensor) -> npt.NDArray[np.float32]:
    """A tensor's values in main memory; shared where it lives there."""
    array: npt.NDArray[np.float32] = tensor.detach().cpu().numpy()
    return array
