"""One network in training: the trunk rows a partner's molecules touch, a head, and Adam's state of both.

Why: a partner's training molecules set a part of the 32,768 bits only, and a batch far fewer; work on those
rows alone is exact, because all other rows have gradient zero. Runs: on the partner, in the training child.
Source: own; equal to the dense network in tests/local_training/test_learner.py.
"""

from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from data_contracts.errors import UpdateMismatch
from tasks.local_training.adam import Adam
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import TrainingSettings
from tasks.local_training.network import dropout_with, embed, features_behind, logits_of, observed
from tasks.local_training.parameters import Parameters

EMBEDDING = "embedding.weight"


class Learner:
    """Trains on batches of one data set.

    Args:
        dataset: The data.
        rows: Training structures; they decide which trunk rows take part.
        trunk: The trunk to start from; left untouched.
        head: The head to start from; left untouched.
        settings: Hyperparameters.
        generator: Source of dropout.
        loss_scale: Factor on the summed loss of a batch. It must come from this partner alone.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        rows: npt.NDArray[np.int64],
        *,
        trunk: Parameters,
        head: Parameters,
        settings: TrainingSettings,
        generator: torch.Generator,
        loss_scale: float,
    ) -> None:
        self.dataset = dataset
        self.loss_scale = loss_scale
        self.active = np.unique(dataset.fingerprints_of(rows)[0]).astype(np.int64)
        self._place = np.zeros(trunk[EMBEDDING].shape[0], dtype=np.int64)
        self._place[self.active] = np.arange(len(self.active))
        self._weight = torch.from_numpy(dataset.endpoint_weight)
        self._dropout = dropout_with(settings.dropout, generator)
        start = {name: array for name, array in trunk.items() if name != EMBEDDING}
        start |= {f"head.{name}": array for name, array in head.items()}
        self.tensors = {name: torch.tensor(array, requires_grad=True) for name, array in start.items()}
        self.tensors[EMBEDDING] = torch.from_numpy(trunk[EMBEDDING][self.active])
        self.tensors[EMBEDDING].grad = torch.zeros_like(self.tensors[EMBEDDING])
        self._adam = Adam(
            self.tensors, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def step(self, rows: npt.NDArray[np.int64]) -> tuple[float, float, int]:
        """Take one step on a batch.

        Returns:
            The summed weighted loss of the batch before the step, the summed weight, and the number of labels.
        """
        bits, starts = self.dataset.fingerprints_of(rows)
        touched, inverse = self._touched(self._place[bits])
        weight, gradient = self.tensors[EMBEDDING], self.tensors[EMBEDDING].grad
        assert gradient is not None  # noqa: S101 - set in __init__
        part = weight.index_select(0, touched).requires_grad_()
        embedded = embed(part, self.tensors["embedding.bias"], bits=inverse, starts=torch.from_numpy(starts))
        features = features_behind(embedded, self.tensors, dropout=self._dropout)
        logits = logits_of(features, self.head())
        loss, total_weight, n_labels = self._loss(logits, rows)
        torch.autograd.backward(loss * self.loss_scale)
        assert part.grad is not None  # noqa: S101 - backward has just run
        gradient.index_copy_(0, touched, part.grad)
        self._adam.step()
        gradient.index_fill_(0, touched, 0.0)
        for name, tensor in self.tensors.items():
            if name != EMBEDDING:
                tensor.grad = None
        return float(loss.detach()), total_weight, n_labels

    def head(self) -> dict[str, Tensor]:
        """The head's tensors, shared."""
        return {"weight": self.tensors["head.weight"], "bias": self.tensors["head.bias"]}

    def head_arrays(self) -> Parameters:
        """Copy the head."""
        return {name: tensor.detach().numpy().copy() for name, tensor in self.head().items()}

    def write_trunk(self, trunk: Parameters) -> None:
        """Write the trained trunk into arrays that hold the trunk this learner started from."""
        for name, array in trunk.items():
            if name == EMBEDDING:
                array[self.active] = self.tensors[name].numpy()
            else:
                array[...] = self.tensors[name].detach().numpy()

    def optimizer_state(self) -> Parameters:
        """Adam's state, and the trunk rows that its moments belong to."""
        return {"active": self.active.astype(np.float32), **self._adam.state()}

    def resume(self, state: Parameters) -> Self:
        """Take up Adam's state of an earlier round.

        Raises:
            UpdateMismatch: If it belongs to other training data or another network.
        """
        moments = {name: array for name, array in state.items() if name != "active"}
        if not np.array_equal(state.get("active", ()), self.active):
            raise UpdateMismatch("the optimizer's state belongs to other training data; start it anew")
        self._adam.resume(moments)
        return self

    def _touched(self, places: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The distinct active rows of a batch, ascending, and each bit's position among them."""
        seen = np.zeros(len(self.active), dtype=bool)
        seen[places] = True
        touched = np.flatnonzero(seen)
        position = np.empty(len(self.active), dtype=np.int64)
        position[touched] = np.arange(len(touched))
        return torch.from_numpy(touched), torch.from_numpy(position[places])

    def _loss(self, logits: Tensor, rows: npt.NDArray[np.int64]) -> tuple[Tensor, float, int]:
        labels = self.dataset.labels_of(rows)
        endpoint = torch.from_numpy(labels.endpoint)
        weight = self._weight.index_select(0, endpoint)
        loss = functional.binary_cross_entropy_with_logits(
            observed(logits, row=torch.from_numpy(labels.row), endpoint=endpoint),
            torch.from_numpy(labels.value),
            weight=weight,
            reduction="sum",
        )
        return loss, float(weight.sum()), int((weight > 0).sum())
