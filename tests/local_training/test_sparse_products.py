"""Products on observed elements alone equal the dense ones, forward and backward."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.local_training import adam
from tasks.local_training.dataset import Labels, PreparedDataset
from tasks.local_training.heads import LOGITS, PAIR_COST, head_work
from tasks.local_training.jobs import TrainingSettings
from tasks.local_training.learner import Learner
from tasks.local_training.parameters import initial_head, initial_trunk
from tasks.local_training.sparse_products import Pull, RowwiseMatrix, owners, pair_logits, sum_of_rows


def _leaf(rng, *shape):
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32)).requires_grad_()


@st.composite
def _compressed_rows(draw):
    """Rows of element targets, some of them empty, targets repeated across rows and not all used."""
    n_targets = draw(st.integers(1, 9))
    rows = draw(
        st.lists(st.lists(st.integers(0, n_targets - 1), max_size=6, unique=True), min_size=1, max_size=7)
    )
    counts = np.array([len(row) for row in rows])
    return np.array([t for row in rows for t in row], dtype=np.int64), np.cumsum(counts) - counts, n_targets


@settings(max_examples=60, deadline=None)
@given(_compressed_rows(), st.integers(0, 2**32 - 1))
def test_sums_of_rows_equal_the_product_with_a_matrix_of_ones(rows, seed):
    bits, starts, n_rows = rows
    rng = np.random.default_rng(seed)
    weight, upstream = _leaf(rng, n_rows, 5), torch.from_numpy(rng.normal(size=(len(starts), 5)).astype("f4"))
    ones = torch.zeros(len(starts), n_rows)
    ones[owners(starts, n=len(bits)), bits] = 1
    dense = ones @ weight
    (expected,) = torch.autograd.grad(dense, weight, upstream)
    ours = sum_of_rows(weight, bits=bits, starts=starts)
    (found,) = torch.autograd.grad(ours, weight, upstream)
    torch.testing.assert_close(ours, dense)
    torch.testing.assert_close(found, expected)


@settings(max_examples=60, deadline=None)
@given(_compressed_rows(), st.integers(0, 2**32 - 1))
def test_logits_of_pairs_equal_the_picked_cells_of_the_dense_product(rows, seed):
    endpoint, starts, n_endpoints = rows
    rng = np.random.default_rng(seed)
    row = owners(starts, n=len(endpoint))
    features, weight = _leaf(rng, len(starts), 5), _leaf(rng, n_endpoints, 5)
    upstream = torch.from_numpy(rng.normal(size=len(endpoint)).astype("f4"))
    dense = (features @ weight.T)[row, endpoint]
    expected = torch.autograd.grad(dense, (features, weight), upstream)
    ours = pair_logits(features, weight, endpoint=endpoint, row=row, starts=starts)
    found = torch.autograd.grad(ours, (features, weight), upstream)
    torch.testing.assert_close(ours, dense)
    torch.testing.assert_close(found, expected)


def test_both_ways_of_a_head_give_the_same_logits():
    rng = np.random.default_rng(3)
    head = {"weight": _leaf(rng, 4, 6), "bias": _leaf(rng, 4)}
    labels = Labels(
        row=np.array([0, 0, 2]),
        endpoint=np.array([3, 1, 3]),
        value=np.zeros(3, dtype=np.float32),
        censoring=np.zeros(3, dtype=np.int8),
    )
    features = _leaf(rng, 3, 6)
    found = [compute(features, head, labels, n_molecules=3) for compute in LOGITS.values()]
    torch.testing.assert_close(found[0], found[1])


def test_more_than_the_measured_number_of_endpoints_per_label_means_pairs():
    assert head_work(n_endpoints=int(100 * PAIR_COST), labels_per_molecule=100) == "dense"
    assert head_work(n_endpoints=int(100 * PAIR_COST) + 1, labels_per_molecule=100) == "pairs"


@pytest.mark.parametrize("n_layers", [0, 1])
def test_training_on_pairs_follows_training_on_all_cells(prepared, n_layers):
    dataset = PreparedDataset.open(prepared)
    rows = dataset.training_rows((1, 2, 3))

    def trained(work):
        learner = Learner(
            dataset,
            rows,
            trunk=initial_trunk(6, seed=3, n_layers=n_layers),
            head=initial_head(dataset.n_endpoints, 6, seed=4),
            settings=TrainingSettings(dropout=0.3, learning_rate=0.01),
            generator=torch.Generator().manual_seed(1),
            loss_scale=0.01,
            work=work,
        )
        return [learner.step(batch)[0] for batch in np.array_split(rows, 9)], learner.head_arrays()

    (dense_losses, dense_head), (losses, head) = trained("dense"), trained("pairs")
    np.testing.assert_allclose(losses, dense_losses, rtol=1e-5)
    for name, array in head.items():
        np.testing.assert_allclose(array, dense_head[name], atol=2e-5, err_msg=name)


@settings(max_examples=30, deadline=None)
@given(_compressed_rows(), st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_a_gradient_computed_by_block_equals_the_one_of_autograd(rows, n_rows, seed):
    endpoint, starts, n_endpoints = rows
    rng = np.random.default_rng(seed)
    row = owners(starts, n=len(endpoint))
    features, weight = _leaf(rng, len(starts), 5), _leaf(rng, n_endpoints, 5)
    start = torch.from_numpy(rng.normal(size=(n_endpoints, 5)).astype("f4"))
    upstream = torch.from_numpy(rng.normal(size=len(endpoint)).astype("f4"))
    left = RowwiseMatrix.of(weight)
    for matrix in (weight, left):  # used in three ways at once
        pairs = pair_logits(features, matrix, endpoint=endpoint, row=row, starts=starts)
        sums = sum_of_rows(matrix, bits=endpoint, starts=starts)
        torch.autograd.backward((pairs * upstream).sum() + sums.square().sum() + matrix.sum())
    left.gradients.append(Pull(left, start, strength=0.5))
    expected = weight.grad + 0.5 * (weight.detach() - start)
    torch.testing.assert_close(torch.cat(list(left.gradient_blocks(n_rows))), expected)


@pytest.mark.parametrize("n_rows", [1, 3, 7, 100])
def test_adam_by_block_takes_the_steps_of_torchs_adam(monkeypatch, n_rows):
    monkeypatch.setattr(adam, "BLOCK_ELEMENTS", n_rows * 4)
    rng = np.random.default_rng(5)
    theirs = _leaf(rng, 7, 4)
    ours = RowwiseMatrix.of(theirs.detach().clone())
    reference = torch.optim.Adam([theirs], lr=0.01, weight_decay=0.1)
    stepping = adam.Adam({"weight": ours}, learning_rate=0.01, weight_decay=0.1)
    for number in range(6):
        bits, starts = rng.integers(0, 7, 5), np.array([0, 2, 2])
        for matrix in (theirs, ours):
            sum_of_rows(matrix, bits=bits, starts=starts).square().sum().backward()
        reference.step()
        stepping.step()
        reference.zero_grad()
        assert not ours.gradients, number
    torch.testing.assert_close(ours.detach(), theirs.detach(), atol=1e-7, rtol=1e-6)
