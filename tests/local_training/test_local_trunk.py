"""A partner's own trunk beside the shared one is one wider network that starts as the shared one and leaves it alone."""

import numpy as np
import pytest
import torch

from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import Adapt, Score, TrainingSettings
from tasks.local_training.local_trunk import beside_each_other, widened_head
from tasks.local_training.network import embed, features_behind, without_dropout
from tasks.local_training.parameters import (
    initial_head,
    initial_trunk,
    read_parameters,
    write_parameters,
)
from tasks.local_training.regression_heads import with_scales
from tasks.local_training.training import train
from tests.local_training.conftest import write_prepared

HIDDEN, WIDTH = 8, 4


def _features(dataset, trunk):
    bits, starts = dataset.fingerprints_of(np.arange(dataset.n_structures))
    tensors = {name: torch.from_numpy(array) for name, array in trunk.items()}
    embedded = embed(
        tensors["embedding.weight"],
        tensors["embedding.bias"],
        bits=torch.from_numpy(bits.astype(np.int64)),
        starts=torch.from_numpy(starts),
    )
    return features_behind(embedded, tensors, dropout=without_dropout).numpy()


@pytest.mark.parametrize("n_layers", [0, 2])
def test_two_trunks_side_by_side_have_the_features_of_both(prepared, n_layers):
    dataset = PreparedDataset.open(prepared)
    shared, own = initial_trunk(HIDDEN, seed=1, n_layers=n_layers), initial_trunk(WIDTH, seed=2)
    both = np.hstack([_features(dataset, shared), _features(dataset, own)])
    np.testing.assert_allclose(_features(dataset, beside_each_other(shared, own)), both, rtol=1e-5, atol=1e-6)


def test_a_widened_head_says_what_it_said(prepared):
    head = initial_head(5, HIDDEN, seed=1)
    features = np.random.default_rng(1).random((3, HIDDEN + WIDTH), dtype=np.float32)
    wide = widened_head(head, width=WIDTH)
    np.testing.assert_allclose(
        features @ wide["weight"].T + wide["bias"],
        features[:, :HIDDEN] @ head["weight"].T + head["bias"],
        rtol=1e-6,
    )


@pytest.mark.parametrize("modality", ["classification", "hybrid"])
def test_adapting_trains_the_own_trunk_alone_and_keeps_what_is_best_on_validation(tmp_path, modality):
    prepared = write_prepared(tmp_path / "prepared", seed=3, n_structures=400, n_bits=60)
    dataset = PreparedDataset.open(prepared, modality=modality)
    shared = initial_trunk(HIDDEN, seed=1, n_layers=1)
    write_parameters(tmp_path / "shared.safetensors", shared)
    rows = dataset.training_rows((1, 2, 3))
    head = with_scales(initial_head(dataset.n_endpoints, HIDDEN, seed=4), dataset, rows, modality=modality)
    write_parameters(tmp_path / "head.safetensors", head)
    job = Adapt(
        dataset=prepared,
        modality=modality,
        trunk=tmp_path / "shared.safetensors",
        head=tmp_path / "head.safetensors",
        width=WIDTH,
        seed=5,
        max_epochs=8,
        settings=TrainingSettings(batch_size=16, learning_rate=0.01, dropout=0.1),
        output=tmp_path / "adapted",
    )
    result = train(job)
    assert 0 < result.best_epoch < len(result.history)
    trunk = read_parameters(result.trunk)
    np.testing.assert_array_equal(trunk["embedding.weight"][:, :HIDDEN], shared["embedding.weight"])
    np.testing.assert_array_equal(trunk["layers.0.weight"][:HIDDEN, :HIDDEN], shared["layers.0.weight"])
    assert (trunk["embedding.weight"][:, HIDDEN:] != initial_trunk(WIDTH, seed=5)["embedding.weight"]).any()
    scored = train(
        Score(
            dataset=prepared,
            modality=modality,
            trunk=result.trunk,
            head=result.heads[0],
            folds=(4,),
            output=tmp_path,
        )
    )
    best = result.history[result.best_epoch].validation
    assert scored.means.auprc == pytest.approx(best.auprc, abs=1e-6)
    assert scored.means.auprc > result.history[0].validation.auprc
    again = train(job.model_copy(update={"output": tmp_path / "again"}))
    assert again.trunk.read_bytes() == result.trunk.read_bytes()
