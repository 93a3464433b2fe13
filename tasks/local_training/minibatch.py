"""One minibatch: the gradient of what all partners share, and one step of the partner's own head.

Why: MELLODDY sums gradients minibatch by minibatch. A job needs only its number, so a run repeats it to the bit
after kill -9. Runs: on the partner, in the training child. Source: McMahan et al. 2017, FedSGD; Heyndrickx et al.
2023 for the private head; SparseChem's ``batch_ratio`` and ``normalize_loss``.
"""

import numpy as np
import numpy.typing as npt
import torch

from tasks.local_training.adam import Adam
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import MinibatchGradient
from tasks.local_training.learner import EMBEDDING, Learner
from tasks.local_training.parameters import (
    Parameters,
    read_parameters,
    unflatten,
    vector_length,
    write_parameters,
    write_vector,
)
from tasks.local_training.place import Place
from tasks.local_training.shared_model import (
    layout_of_shared,
    read_places,
    split_shared,
    with_catalogue,
    write_catalogue,
)

Rows = npt.NDArray[np.int64]


def batch_rows(rows: Rows, *, order_seed: int, batch: int, n_batches: int) -> Rows:
    """Pick a minibatch of an epoch: shuffled, then cut into exactly ``n_batches`` parts of nearly equal size.

    Args:
        rows: Training structures, shape ``(n_rows,)``.
        order_seed: Seed of the epoch's order.
        batch: Which part, from 0.
        n_batches: Parts of an epoch, the same at every partner; with fewer rows than parts some are empty.
    """
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(order_seed)).numpy()
    part: Rows = np.array_split(rows[order], n_batches)[batch]
    return part


def minibatch_gradient(
    job: MinibatchGradient, dataset: PreparedDataset, rows: Rows, *, head: Parameters, place: Place
) -> tuple[float, float, int]:
    """Compute a minibatch's gradient and step the head; writes the job's files.

    The gradient is that of the batch's summed loss over ``loss_normalizer``, so a sum over partners weighs every
    label alike. Rows of the catalogue head are part of it; what the head's own step makes of them is never used.

    Returns:
        The summed loss of the batch, its summed weight, and its number of labels.

    Raises:
        UpdateMismatch: If trunk, head or optimizer state are damaged or do not fit the data set.
    """
    shared = read_parameters(job.trunk)
    layout = layout_of_shared(shared)
    vector = np.zeros(vector_length(layout), dtype=np.float32)
    batch = batch_rows(
        rows, order_seed=job.order_seed, batch=job.batch, n_batches=job.settings.batches_per_epoch
    )
    trunk, catalogue = split_shared(shared)
    places = read_places(job.places)
    if not len(batch):
        write_vector(job.output / "gradient.npy", vector)
        _keep_head(job, head)
        return 0.0, 0.0, 0
    learner = Learner(
        dataset,
        batch,  # a batch alone decides which rows of the trunk have a gradient
        trunk=trunk,
        head=with_catalogue(head, catalogue, places),
        settings=job.settings,
        generator=torch.Generator().manual_seed(job.seed),
        loss_scale=1 / job.loss_normalizer,
        place=place,
    )
    told = learner.backward(batch)
    found = learner.gradients()
    gradient = unflatten(vector, layout)
    for name, array in split_shared(gradient)[0].items():
        array[learner.active if name == EMBEDDING else ...] = found[name]
    write_catalogue(gradient, {name: found[f"head.{name}"] for name in head}, places)
    write_vector(job.output / "gradient.npy", vector)
    own = Adam(
        learner.head(), learning_rate=job.settings.learning_rate, weight_decay=job.settings.weight_decay
    )
    if job.optimizer is not None:
        own.resume(read_parameters(job.optimizer))
    own.step()
    write_parameters(job.output / "optimizer.safetensors", own.state())
    write_parameters(job.output / "head.safetensors", learner.head_arrays())
    return told


def _keep_head(job: MinibatchGradient, head: Parameters) -> None:
    """Leave head and optimizer as they were: without a label there is no step."""
    tensors = {name: torch.from_numpy(array) for name, array in head.items()}
    own = Adam(tensors, learning_rate=job.settings.learning_rate, weight_decay=0)
    state = own.state() if job.optimizer is None else read_parameters(job.optimizer)
    write_parameters(job.output / "optimizer.safetensors", state)
    write_parameters(job.output / "head.safetensors", head)
