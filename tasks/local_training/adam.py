"""Adam on named tensors, through torch's fused kernel, with a state that can be saved.

Why: ``torch.optim`` imports torch's compiler on first use, a second of CPU and 800 modules in every child, and
keys its state by tensor instead of by name. Runs: on the partner, in the training child.
Source: Kingma & Ba 2015, Algorithm 1, with coupled L2 decay; own: equal to ``torch.optim.Adam`` in the tests.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from data_contracts.errors import UpdateMismatch
from tasks.local_training.parameters import Parameters

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Defaults of the paper, of torch and of SparseChem."""


class Adam:
    """First and second moments of named tensors.

    Args:
        tensors: What is trained; steps change them in place.
        learning_rate: Step size; may be changed between steps.
        weight_decay: L2 coefficient, added to the gradient.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, learning_rate: float, weight_decay: float) -> None:
        self._tensors = tensors
        self.learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._steps = torch.zeros(())
        self._mean = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        self._square = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}

    @torch.no_grad()
    def step(self) -> None:
        """Move every tensor along its gradient."""
        self._steps += 1
        gradients = [tensor.grad for tensor in self._tensors.values() if tensor.grad is not None]
        torch._fused_adam_(  # the kernel behind torch.optim.Adam(fused=True); torch is pinned
            list(self._tensors.values()),
            gradients,
            list(self._mean.values()),
            list(self._square.values()),
            [],
            [self._steps] * len(gradients),
            lr=self.learning_rate,
            beta1=BETA1,
            beta2=BETA2,
            weight_decay=self._weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> Parameters:
        """The moments and the number of steps, sharing memory with this object."""
        arrays = {"steps": self._steps.reshape(1).numpy()}
        arrays |= {f"mean/{name}": tensor.detach().numpy() for name, tensor in self._mean.items()}
        arrays |= {f"square/{name}": tensor.detach().numpy() for name, tensor in self._square.items()}
        return arrays

    def resume(self, state: Parameters) -> None:
        """Take up a saved state.

        Raises:
            UpdateMismatch: If its names or shapes are not those of the tensors.
        """
        own = self.state()
        if {name: array.shape for name, array in state.items()} != {
            name: array.shape for name, array in own.items()
        }:
            raise UpdateMismatch(
                "the optimizer's state belongs to other training data or another network; start it anew"
            )
        for name, array in own.items():
            array[...] = state[name]
