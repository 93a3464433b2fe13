"""Working on touched rows alone is exact, and randomness is private."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from data_contracts.errors import UpdateMismatch
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import TrainingSettings
from tasks.local_training.learner import Learner
from tasks.local_training.network import dropout_with, features_behind, without_dropout
from tasks.local_training.parameters import initial_head, initial_trunk

HIDDEN = 6


def _learner(dataset, rows, *, settings, n_layers=0, seed=0):
    return Learner(
        dataset,
        rows,
        trunk=initial_trunk(HIDDEN, seed=3, n_layers=n_layers),
        head=initial_head(dataset.n_endpoints, HIDDEN, seed=4),
        settings=settings,
        generator=torch.Generator().manual_seed(seed),
        loss_scale=0.01,
    )


class _Dense:
    """The same network the plain way: a dense 0/1 matrix, all 32,768 rows, one loss over all cells."""

    def __init__(self, dataset, *, settings, n_layers):
        trunk = initial_trunk(HIDDEN, seed=3, n_layers=n_layers)
        head = initial_head(dataset.n_endpoints, HIDDEN, seed=4)
        self.dataset = dataset
        self.trunk = {name: torch.tensor(array, requires_grad=True) for name, array in trunk.items()}
        self.head = {name: torch.tensor(array, requires_grad=True) for name, array in head.items()}
        tensors = [*self.trunk.values(), *self.head.values()]
        self.optimizer = torch.optim.Adam(
            tensors, lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=False
        )

    def step(self, rows):
        matrix = torch.zeros(len(rows), 32_768)
        bits, starts = self.dataset.fingerprints_of(rows)
        for place, part in enumerate(np.split(bits.astype(np.int64), starts[1:])):
            matrix[place, part] = 1
        features = matrix @ self.trunk["embedding.weight"] + self.trunk["embedding.bias"]
        layer = 0
        while f"layers.{layer}.weight" in self.trunk:
            update = torch.relu(features) @ self.trunk[f"layers.{layer}.weight"].T
            features = features + update + self.trunk[f"layers.{layer}.bias"]
            layer += 1
        logits = torch.relu(features) @ self.head["weight"].T + self.head["bias"]
        labels = self.dataset.labels_of(rows)
        target, weight = torch.zeros_like(logits), torch.zeros_like(logits)
        target[labels.row, labels.endpoint] = torch.from_numpy(labels.value)
        weight[labels.row, labels.endpoint] = torch.from_numpy(self.dataset.endpoint_weight[labels.endpoint])
        loss = functional.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction="sum")
        self.optimizer.zero_grad()
        (loss * 0.01).backward()
        self.optimizer.step()
        return float(loss.detach())


@pytest.mark.parametrize("n_layers", [0, 2])
def test_steps_on_touched_rows_equal_steps_of_the_dense_network(prepared, n_layers):
    dataset = PreparedDataset.open(prepared)
    rows = dataset.training_rows((1, 2, 3))
    settings = TrainingSettings(dropout=0, weight_decay=0, learning_rate=0.01)
    ours, dense = (
        _learner(dataset, rows, settings=settings, n_layers=n_layers),
        _Dense(dataset, settings=settings, n_layers=n_layers),
    )
    for batch in np.array_split(rows, 9):
        loss, _, _ = ours.step(batch)
        assert loss == pytest.approx(dense.step(batch), rel=1e-5)
    trunk = initial_trunk(HIDDEN, seed=3, n_layers=n_layers)
    ours.write_trunk(trunk)
    for name, tensor in dense.trunk.items():
        np.testing.assert_allclose(trunk[name], tensor.detach().numpy(), atol=2e-5, err_msg=name)
    for name, array in ours.head_arrays().items():
        np.testing.assert_allclose(array, dense.head[name].detach().numpy(), atol=2e-5, err_msg=name)


@pytest.mark.parametrize("work", ["dense", "pairs"])
def test_gradients_of_a_batch_are_those_of_the_dense_network(prepared, work):
    dataset = PreparedDataset.open(prepared)
    rows = dataset.training_rows((1, 2, 3))
    settings = TrainingSettings(dropout=0, weight_decay=0)
    ours, dense = _learner(dataset, rows, settings=settings), _Dense(dataset, settings=settings, n_layers=0)
    ours.work = work
    loss, _, _ = ours.backward(rows)
    assert loss == pytest.approx(dense.step(rows), rel=1e-5)
    found = ours.gradients()
    expected = {**dense.trunk, **{f"head.{name}": tensor for name, tensor in dense.head.items()}}
    assert found.keys() == expected.keys()
    for name, array in found.items():
        wanted = expected[name].grad.numpy()
        wanted = wanted[ours.active] if name == "embedding.weight" else wanted
        np.testing.assert_allclose(array, wanted, atol=1e-5, err_msg=name)


def test_training_leaves_the_given_trunk_and_the_global_random_state_alone(prepared):
    dataset = PreparedDataset.open(prepared)
    rows = dataset.training_rows((1, 2, 3))
    before = torch.random.get_rng_state()
    learner = _learner(dataset, rows, settings=TrainingSettings(dropout=0.5))
    learner.step(rows)
    assert torch.equal(before, torch.random.get_rng_state())


def test_dropout_keeps_the_mean_and_silences_the_given_share():
    drop = dropout_with(0.6, torch.Generator().manual_seed(1))
    dropped = drop(torch.ones(400, 500))
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.6, abs=0.01)
    assert dropout_with(0.0, torch.Generator())(torch.ones(3)).tolist() == [1, 1, 1]


def test_without_layers_the_features_are_the_relu_of_the_embedding():
    embedded = torch.tensor([[-1.0, 2.0]])
    assert features_behind(embedded, {}, dropout=without_dropout).tolist() == [[0.0, 2.0]]


def test_the_optimizer_goes_on_where_it_stopped(prepared):
    dataset = PreparedDataset.open(prepared)
    rows = dataset.training_rows((1, 2, 3))
    settings = TrainingSettings(dropout=0)
    whole = _learner(dataset, rows, settings=settings)
    whole.step(rows)
    state = whole.optimizer_state()
    part = _learner(dataset, rows, settings=settings).resume(state)
    for name in part.tensors:
        part.tensors[name].data.copy_(whole.tensors[name].data)
    whole.step(rows)
    part.step(rows)
    for name in part.tensors:
        assert torch.equal(part.tensors[name], whole.tensors[name]), name


def test_an_optimizer_state_of_other_training_data_is_refused(prepared):
    dataset = PreparedDataset.open(prepared)
    rows = dataset.training_rows((1, 2, 3))
    learner = _learner(dataset, rows, settings=TrainingSettings())
    learner.step(rows)
    fewer = _learner(dataset, rows[:5], settings=TrainingSettings())
    with pytest.raises(UpdateMismatch, match="other training data"):
        fewer.resume(learner.optimizer_state())
    with pytest.raises(UpdateMismatch, match="other training data or another network"):
        learner.resume({"active": learner.active.astype(np.float32)})
    deeper = _learner(dataset, rows, settings=TrainingSettings(), n_layers=1)
    with pytest.raises(UpdateMismatch, match="another network"):
        deeper.resume(learner.optimizer_state())


def test_a_stronger_pull_keeps_the_trunk_nearer_to_where_the_round_began(prepared):
    dataset = PreparedDataset.open(prepared)
    rows = dataset.training_rows((1, 2, 3))
    distance = []
    for proximal in (0.0, 0.01, 1.0):
        learner = _learner(dataset, rows, settings=TrainingSettings(dropout=0, proximal=proximal))
        for batch in np.array_split(rows, 9) * 4:
            learner.step(batch)
        trunk = initial_trunk(HIDDEN, seed=3)
        learner.write_trunk(trunk)
        start = initial_trunk(HIDDEN, seed=3)
        distance.append(sum(float(np.square(trunk[name] - start[name]).sum()) for name in trunk))
    assert distance[0] > 1.05 * distance[1] > 1.05 * distance[2]


def test_the_pull_is_the_gradient_of_the_squared_distance(prepared):
    dataset = PreparedDataset.open(prepared)
    rows = dataset.training_rows((1, 2, 3))
    learner = _learner(dataset, rows, settings=TrainingSettings(dropout=0, proximal=0.5))
    learner.tensors["embedding.bias"].data += 2.0
    for name in ("embedding.bias", "embedding.weight"):
        learner.tensors[name].grad = torch.zeros_like(learner.tensors[name])
    learner._pull_to_start()
    assert torch.allclose(learner.tensors["embedding.bias"].grad, torch.full((HIDDEN,), 1.0))
    assert not learner.tensors["embedding.weight"].grad.any()


def test_a_smaller_learning_rate_takes_smaller_steps(prepared):
    dataset = PreparedDataset.open(prepared)
    rows = dataset.training_rows((1, 2, 3))
    learner = _learner(dataset, rows, settings=TrainingSettings(dropout=0, weight_decay=0))
    moved = []
    for learning_rate in (1e-3, 1e-5):
        learner.set_learning_rate(learning_rate)
        before = learner.head_arrays()["weight"]
        learner.step(rows)
        moved.append(float(np.abs(learner.head_arrays()["weight"] - before).max()))
    assert moved[0] == pytest.approx(1e-3, rel=0.01)
    assert moved[1] < 2e-5
