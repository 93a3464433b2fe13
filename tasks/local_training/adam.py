"""Adam on named tensors, through torch's fused kernel, with a state that can be saved.

Why: ``torch.optim`` imports torch's compiler on first use, a second of CPU and 800 modules in every child, and
keys its state by tensor instead of by name. Runs: on the partner, in the training child.
Source: Kingma & Ba 2015, Algorithm 1, with coupled L2 decay; own: equal to ``torch.optim.Adam`` in the tests.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from data_contracts.errors import UpdateMismatch
from tasks.local_training.parameters import Parameters
from tasks.local_training.place import as_array
from tasks.local_training.sparse_products import RowwiseMatrix

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Defaults of the paper, of torch and of SparseChem."""


BLOCK_ELEMENTS = 2**19
"""Parameters of a row-wise matrix stepped together: two megabytes of gradient are used while the cache has them."""


class Adam:
    """First and second moments of named tensors.

    Args:
        tensors: What is trained; steps change them in place. The gradient of a ``RowwiseMatrix`` is computed block by
            block and used at once, so that no gradient of its size is ever allocated, written or cleared.
        learning_rate: Step size; may be changed between steps.
        weight_decay: L2 coefficient, added to the gradient.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, learning_rate: float, weight_decay: float) -> None:
        self._tensors = tensors
        self.learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._mean = {name: torch.zeros_like(tensor.detach()) for name, tensor in tensors.items()}
        self._square = {name: torch.zeros_like(tensor.detach()) for name, tensor in tensors.items()}
        self._steps = torch.zeros((), device=next(iter(tensors.values())).device)
        self._blocks = {
            name: self._block_views(name)
            for name, tensor in tensors.items()
            if isinstance(tensor, RowwiseMatrix)
        }

    @torch.no_grad()
    def step(self) -> None:
        """Move every tensor along its gradient, and drop the gradients."""
        self._steps += 1
        whole: list[tuple[Tensor, ...]] = []
        for name, tensor in self._tensors.items():
            if isinstance(tensor, RowwiseMatrix) and tensor.gradients:
                blocks = self._blocks[name]
                gradients = tensor.gradient_blocks(len(blocks[0][0]))
                for views, gradient in zip(blocks, gradients, strict=True):
                    self._move([views], [gradient])
                tensor.gradients.clear()
            elif tensor.grad is not None:
                whole.append((tensor, self._mean[name], self._square[name], tensor.grad))
            tensor.grad = None
        if whole:
            self._move([found[:3] for found in whole], [found[3] for found in whole])

    def _block_views(self, name: str) -> list[tuple[Tensor, ...]]:
        moved = (self._tensors[name].detach(), self._mean[name], self._square[name])
        n_rows, width = moved[0].shape
        if moved[0].device.type == "cpu":  # elsewhere there is no cache to stay in, and a launch costs more
            n_rows = max(1, BLOCK_ELEMENTS // width)
        return list(zip(*(torch.split(tensor, n_rows) for tensor in moved), strict=True))

    def _move(self, moved: Sequence[tuple[Tensor, ...]], gradients: Sequence[Tensor]) -> None:
        """Step tensors with their mean and square."""
        torch._fused_adam_(  # the kernel behind torch.optim.Adam(fused=True); torch is pinned
            [tensor for tensor, _, _ in moved],
            list(gradients),
            [mean for _, mean, _ in moved],
            [square for _, _, square in moved],
            [],
            [self._steps] * len(moved),
            lr=self.learning_rate,
            beta1=BETA1,
            beta2=BETA2,
            weight_decay=self._weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> Parameters:
        """The moments and the number of steps; on the CPU they share memory with this object."""
        arrays = {"steps": as_array(self._steps.reshape(1))}
        arrays |= {f"mean/{name}": as_array(tensor) for name, tensor in self._mean.items()}
        arrays |= {f"square/{name}": as_array(tensor) for name, tensor in self._square.items()}
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
        self._steps.copy_(torch.from_numpy(state["steps"][0:1]).reshape(()))
        for name in self._tensors:
            self._mean[name].copy_(torch.from_numpy(state[f"mean/{name}"]))
            self._square[name].copy_(torch.from_numpy(state[f"square/{name}"]))
