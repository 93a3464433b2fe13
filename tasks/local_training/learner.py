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
from tasks.local_training.dataset import Labels, PreparedDataset
from tasks.local_training.heads import LOGITS, HeadWork, head_work
from tasks.local_training.jobs import TrainingSettings
from tasks.local_training.network import dropout_with, features_behind
from tasks.local_training.parameters import Parameters
from tasks.local_training.place import CPU, Place, as_array
from tasks.local_training.sparse_products import Pull, RowwiseMatrix, sum_of_rows

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
        work: How the head is computed; by default what is faster for these data.
        place: Where, and how precisely.
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
        work: HeadWork | None = None,
        place: Place = CPU,
    ) -> None:
        self.dataset = dataset
        self.work = work or head_work(
            n_endpoints=dataset.n_endpoints,
            labels_per_molecule=float(np.diff(dataset.label_starts)[rows].mean()),
        )
        self.loss_scale = loss_scale
        self.place = place
        self.active = dataset.used_bits(rows)
        self._place = np.zeros(trunk[EMBEDDING].shape[0], dtype=np.int64)
        self._place[self.active] = np.arange(len(self.active))
        self._weight = torch.from_numpy(dataset.endpoint_weight)
        self._dropout = dropout_with(settings.dropout, place.generator(generator))
        start = {name: array for name, array in trunk.items() if name != EMBEDDING}
        start |= {f"head.{name}": array for name, array in head.items()}
        self.tensors = {
            name: torch.tensor(array, device=place.device, requires_grad=True)
            for name, array in start.items()
        }
        self.tensors[EMBEDDING] = place.put(trunk[EMBEDDING][self.active])
        self.tensors["head.weight"] = RowwiseMatrix.of(self.tensors["head.weight"])
        self._gradient = torch.zeros_like(
            self.tensors[EMBEDDING]
        )  # a batch sets few bits: kept, and cleared by row
        self._touched = torch.zeros(0, dtype=torch.int64, device=place.device)
        self._proximal = settings.proximal
        self._start = (
            {name: self.tensors[name].detach().clone() for name in trunk} if settings.proximal else {}
        )
        self._adam = Adam(
            self.tensors, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def step(self, rows: npt.NDArray[np.int64]) -> tuple[float, float, int]:
        """Take one step on a batch.

        Returns:
            The summed weighted loss of the batch before the step, the summed weight, and the number of labels.
        """
        told = self.backward(rows)
        self._pull_to_start()
        self._adam.step()
        return told

    def backward(self, rows: npt.NDArray[np.int64]) -> tuple[float, float, int]:
        """Leave the gradient of a batch's scaled loss with the tensors; nothing moves.

        Returns:
            What ``step`` returns.
        """
        bits, starts = self.dataset.fingerprints_of(rows)
        labels = self.dataset.labels_of(rows)
        self._clear()
        inverse = self._touch(self._place[bits])
        part = self.tensors[EMBEDDING].index_select(0, self._touched).requires_grad_()
        embedded = sum_of_rows(part, bits=inverse, starts=starts) + self.tensors["embedding.bias"]
        with self.place.precision():
            features = features_behind(embedded, self.tensors, dropout=self._dropout)
            logits = LOGITS[self.work](features, self.head(), labels, n_molecules=len(rows))
        logits = logits.float().cpu()  # one number a label: its loss is computed where the labels are
        loss, total_weight, n_labels = self._loss(logits, labels)
        torch.autograd.backward(loss * self.loss_scale)
        assert part.grad is not None  # noqa: S101 - backward has just run
        self.tensors[EMBEDDING].grad = self._gradient.index_copy_(0, self._touched, part.grad)
        return float(loss.detach()), total_weight, n_labels

    def gradients(self) -> Parameters:
        """What ``backward`` left, each as large as its tensor; of the embedding, the rows that take part."""
        left = {
            name: tensor.whole_gradient() if isinstance(tensor, RowwiseMatrix) else tensor.grad
            for name, tensor in self.tensors.items()
        }
        return {name: as_array(gradient) for name, gradient in left.items() if gradient is not None}

    def set_learning_rate(self, learning_rate: float) -> None:
        """Change the step size of the steps that follow."""
        self._adam.learning_rate = learning_rate

    def head(self) -> dict[str, Tensor]:
        """The head's tensors, shared."""
        return {"weight": self.tensors["head.weight"], "bias": self.tensors["head.bias"]}

    def head_arrays(self) -> Parameters:
        """Copy the head."""
        return {name: np.array(as_array(tensor)) for name, tensor in self.head().items()}

    def write_trunk(self, trunk: Parameters) -> None:
        """Write the trained trunk into arrays that hold the trunk this learner started from."""
        for name, array in trunk.items():
            if name == EMBEDDING:
                array[self.active] = as_array(self.tensors[name])
            else:
                array[...] = as_array(self.tensors[name])

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

    def _pull_to_start(self) -> None:
        """Add the gradient of ``mu / 2 |trunk - start|^2``."""
        for name, start in self._start.items():
            tensor = self.tensors[name]
            pull = Pull(tensor, start, strength=self._proximal)
            if isinstance(tensor, RowwiseMatrix):
                tensor.gradients.append(pull)
            else:
                assert tensor.grad is not None  # noqa: S101 - backward has just run
                tensor.grad += pull.whole()

    def _clear(self) -> None:
        """Let the embedding's kept gradient be zero again."""
        if self._proximal:
            self._gradient.zero_()
        else:
            self._gradient.index_fill_(0, self._touched, 0.0)

    def _touch(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Note the distinct active rows of a batch, ascending; each bit's position among them."""
        seen = np.zeros(len(self.active), dtype=bool)
        seen[places] = True
        touched = np.flatnonzero(seen)
        position = np.empty(len(self.active), dtype=np.int64)
        position[touched] = np.arange(len(touched))
        self._touched = self.place.put(touched)
        return position[places]

    def _loss(self, logits: Tensor, labels: Labels) -> tuple[Tensor, float, int]:
        weight = self._weight.index_select(0, torch.from_numpy(labels.endpoint))
        loss = functional.binary_cross_entropy_with_logits(
            logits, torch.from_numpy(labels.value), weight=weight, reduction="sum"
        )
        return loss, float(weight.sum()), int((weight > 0).sum())
