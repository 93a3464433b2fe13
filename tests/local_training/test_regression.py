"""Numbers are learnt beside classes on one trunk, each on its own scale, and mean the same wherever a head is read."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

from data_contracts.errors import ContractViolation, UpdateMismatch
from tasks.evaluation.metric_tables import read_metrics, read_regression_metrics
from tasks.evaluation.score_tables import read_regression_scores
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import Centralised, LocalSteps, Score, TrainingSettings
from tasks.local_training.learner import Learner
from tasks.local_training.losses import one_sided_error, tobit_error
from tasks.local_training.parameters import (
    initial_head,
    initial_trunk,
    read_parameters,
    write_parameters,
)
from tasks.local_training.regression_data import PUBLIC_CENTRE, PUBLIC_SCALE
from tasks.local_training.regression_heads import in_assay_units, own_scales, with_scales
from tasks.local_training.scoring import predict_all
from tasks.local_training.shared_model import initial_shared
from tasks.local_training.training import train
from tests.local_training.conftest import HIDDEN, rewrite, write_prepared

SETTINGS = TrainingSettings(batch_size=16, learning_rate=0.01, dropout=0.1)
N_CLASSES, N_NUMBERS = 5, 3


def _head(dataset, *, modality="hybrid", places=None):
    head = initial_head(dataset.n_endpoints, HIDDEN, seed=4)
    rows = dataset.training_rows((1, 2, 3))
    return with_scales(head, dataset, rows, modality=modality, places=places)


def _places(tmp_path, numbers, name="places.npy"):
    np.save(tmp_path / name, np.array(numbers, dtype=np.int32), allow_pickle=False)
    return tmp_path / name


def _shared(tmp_path, *, n_catalogue=2):
    from tasks.local_training.parameters import unflatten
    from tasks.local_training.shared_model import shared_layout

    vector = initial_shared(HIDDEN, n_catalogue=n_catalogue, seed=3)
    path = tmp_path / "shared.safetensors"
    write_parameters(path, unflatten(vector, shared_layout(HIDDEN, n_catalogue=n_catalogue)))
    return path


@pytest.mark.parametrize("modality", ["classification", "regression", "hybrid"])
def test_a_modality_decides_which_labels_there_are(prepared, modality):
    dataset = PreparedDataset.open(prepared, modality=modality)
    labels = dataset.labels_of(np.arange(dataset.n_structures))
    classes = N_CLASSES if modality != "regression" else 0
    numbers = N_NUMBERS if modality != "classification" else 0
    assert dataset.n_endpoints == classes + numbers
    assert dataset.is_regression.tolist() == [False] * classes + [True] * numbers
    assert np.all(np.diff(labels.row) >= 0)
    assert len(labels) == dataset.n_labels.sum()
    numeric = dataset.is_regression[labels.endpoint]
    assert set(labels.value[~numeric]) <= {0.0, 1.0}
    assert not labels.censoring[~numeric].any()
    if modality == "hybrid":
        alone = PreparedDataset.open(prepared, modality="regression")
        others = alone.labels_of(np.arange(alone.n_structures))
        np.testing.assert_array_equal(labels.value[numeric], others.value)
        np.testing.assert_array_equal(labels.censoring[numeric], others.censoring)


def test_bounds_weigh_what_their_endpoint_says(prepared):
    dataset = PreparedDataset.open(prepared, modality="regression")
    labels = dataset.labels_of(np.arange(dataset.n_structures))
    expected = np.array([1, 0.5, 1])[labels.endpoint]
    expected = np.where(labels.censoring == 0, expected, expected * np.array([1, 0.25, 1])[labels.endpoint])
    np.testing.assert_allclose(dataset.weights_of(labels), expected)
    assert (labels.censoring != 0).any()


def test_values_that_point_outside_are_refused(prepared):
    table = pa.ipc.open_file(pa.OSFile(str(prepared / "regression_values.arrow"))).read_all()
    moved = pa.array(table.column("endpoint_index").to_numpy() + 1, pa.int32())
    rewrite(prepared / "regression_values.arrow", endpoint_index=moved)
    with pytest.raises(ContractViolation, match="structures or endpoints it does not have"):
        PreparedDataset.open(prepared, modality="regression")
    PreparedDataset.open(prepared)  # who learns classes alone does not look


def test_the_scale_of_an_endpoint_comes_from_measured_values_of_the_training_folds(prepared):
    dataset = PreparedDataset.open(prepared, modality="hybrid")
    rows = dataset.training_rows((1, 2, 3))
    centre, scale = own_scales(dataset, rows)
    labels = dataset.labels_of(rows)
    assert (centre[:N_CLASSES] == 0).all()
    assert (scale[:N_CLASSES] == 1).all()
    for endpoint in range(N_CLASSES, N_CLASSES + N_NUMBERS):
        chosen = labels.value[(labels.endpoint == endpoint) & (labels.censoring == 0)].astype(np.float64)
        assert (centre[endpoint], scale[endpoint]) == pytest.approx((chosen.mean(), chosen.std()))


def test_a_shared_row_has_the_public_scale_and_a_private_one_its_own(prepared):
    dataset = PreparedDataset.open(prepared, modality="hybrid")
    head = _head(dataset, places=np.array([0, -1, -1, -1, -1, 1, -1, -1], dtype=np.int32))
    assert head["centre"][[0, 5]].tolist() == [0, PUBLIC_CENTRE]
    assert head["scale"][[0, 5]].tolist() == [1, PUBLIC_SCALE]
    assert head["scale"][6] != PUBLIC_SCALE


def test_a_head_in_assay_units_predicts_scale_times_output_plus_centre(prepared):
    dataset = PreparedDataset.open(prepared, modality="hybrid")
    head = _head(dataset)
    features = np.random.default_rng(0).random((4, HIDDEN), dtype=np.float32)
    plain = features @ head["weight"].T + head["bias"]
    told = in_assay_units(head)
    np.testing.assert_allclose(
        features @ told["weight"].T + told["bias"], plain * head["scale"] + head["centre"], rtol=1e-5
    )
    assert set(in_assay_units({"weight": plain, "bias": plain})) == {"weight", "bias"}


@pytest.mark.parametrize("loss", ["one_sided", "tobit"])
@pytest.mark.parametrize("work", ["dense", "pairs"])
def test_a_batch_costs_what_both_losses_say(prepared, loss, work):
    weight = 0.3
    settings = SETTINGS.model_copy(update={"regression_loss": loss, "dropout": 0.0})
    dataset = PreparedDataset.open(prepared, modality="hybrid").balanced(weight)
    head, trunk = _head(dataset), initial_trunk(HIDDEN, seed=3)
    rows = dataset.training_rows((1, 2, 3))[:20]
    learner = Learner(
        dataset,
        dataset.training_rows((1, 2, 3)),
        trunk=trunk,
        head=head,
        settings=settings,
        generator=torch.Generator().manual_seed(0),
        loss_scale=0.01,
        work=work,
    )
    found, total, _ = learner.step(rows)
    labels = dataset.labels_of(rows)
    bits, starts = dataset.fingerprints_of(rows)
    embedded = np.add.reduceat(trunk["embedding.weight"][bits], starts) + trunk["embedding.bias"]
    outputs = np.maximum(embedded, 0) @ head["weight"].T + head["bias"]
    output = torch.from_numpy(outputs[labels.row, labels.endpoint])
    target = torch.from_numpy(
        (labels.value - head["centre"][labels.endpoint]) / head["scale"][labels.endpoint]
    )
    numeric = torch.from_numpy(dataset.is_regression[labels.endpoint])
    censoring = torch.from_numpy(labels.censoring)
    numbers = (
        one_sided_error(output, target, censoring)
        if loss == "one_sided"
        else tobit_error(output, target, censoring, log_deviation=torch.zeros(len(labels)))
    )
    classes = functional.binary_cross_entropy_with_logits(output, target.clamp(0, 1), reduction="none")
    each = torch.from_numpy(
        np.array([1, 0.5, 1, 0.5, 0, 1, 0.5, 1])[labels.endpoint]
        * np.where(labels.censoring == 0, 1, np.array([*[1] * 6, 0.25, 1])[labels.endpoint])
        * np.where(numeric, 2 * weight, 2 * (1 - weight))
    )
    assert total == pytest.approx(each.sum().item(), rel=1e-5)
    assert found == pytest.approx((torch.where(numeric, numbers, classes) * each).sum().item(), rel=1e-4)
    after = learner.head_arrays()
    assert set(after) == set(head)
    np.testing.assert_array_equal(after["scale"], head["scale"])
    assert (after["log_deviation"][N_CLASSES:] != 0).any() == (loss == "tobit")
    assert (after["log_deviation"][:N_CLASSES] == 0).all()


@pytest.mark.parametrize("modality", ["regression", "hybrid"])
@pytest.mark.parametrize("loss", ["one_sided", "tobit"])
def test_training_alone_learns_the_numbers(tmp_path, modality, loss):
    prepared = write_prepared(tmp_path / "prepared", seed=5, n_structures=600, n_bits=60)
    write_parameters(tmp_path / "trunk.safetensors", initial_trunk(32, seed=1))
    result = train(
        Centralised(
            kind="alone",
            datasets=(prepared,),
            modality=modality,
            trunk=tmp_path / "trunk.safetensors",
            head_seeds=(1,),
            seed=2,
            max_epochs=25,
            settings=SETTINGS.model_copy(update={"regression_loss": loss}),
            output=tmp_path / "alone",
        )
    )
    job = Score(
        dataset=prepared,
        modality=modality,
        trunk=result.trunk,
        head=result.heads[0],
        folds=(0,),
        output=tmp_path / "scored",
    )
    job.output.mkdir()
    scored = train(job)
    assert scored.means.n_regression == N_NUMBERS
    assert scored.means.r2 > 0.5
    assert scored.means.concordance > 0.7
    metrics, counted = read_regression_metrics(scored.regression_metrics)
    assert counted.all()
    assert metrics.rmse.mean() == pytest.approx(scored.means.rmse)
    scores = read_regression_scores(job.output / "regression_scores.arrow")
    assert np.sqrt(np.mean(np.square(scores.prediction - scores.value)[scores.censoring == 0])) < 0.8
    if modality == "hybrid":
        assert len(read_metrics(scored.metrics)[1]) == N_CLASSES
    else:
        assert scored.metrics is None
    if loss == "tobit":  # its own idea of its error is not far from the error
        error = np.abs(scores.prediction - scores.value)[scores.censoring == 0].mean()
        assert 0.3 < error / scores.deviation.mean() < 3


def test_a_round_keeps_scales_and_shares_rows_of_numbers(tmp_path, prepared):
    places = _places(tmp_path, [-1, 0, -1, -1, -1, 1, -1, -1])
    first = LocalSteps(
        dataset=prepared,
        modality="hybrid",
        trunk=_shared(tmp_path),
        places=places,
        head_seed=1,
        seed=2,
        settings=SETTINGS,
        output=tmp_path / "r1",
    )
    done = train(first)
    head = read_parameters(done.head)
    again = train(first.model_copy(update={"head": done.head, "output": tmp_path / "r2"}))
    following = read_parameters(again.head)
    for name in ("centre", "scale"):
        np.testing.assert_array_equal(following[name], head[name])
    assert head["scale"][5] == PUBLIC_SCALE
    update = np.load(done.update)
    rows = update[-2 * HIDDEN - 2 : -2].reshape(2, HIDDEN)
    assert (rows != 0).any(axis=1).all()
    assert (
        train(first.model_copy(update={"output": tmp_path / "r3"})).update.read_bytes()
        == done.update.read_bytes()
    )


def test_a_head_of_another_modality_is_refused(tmp_path, prepared):
    write_parameters(tmp_path / "head.safetensors", initial_head(N_CLASSES, HIDDEN, seed=1))
    write_parameters(tmp_path / "trunk.safetensors", initial_trunk(HIDDEN, seed=1))
    job = Score(
        dataset=prepared,
        modality="hybrid",
        trunk=tmp_path / "trunk.safetensors",
        head=tmp_path / "head.safetensors",
        folds=(0,),
        output=tmp_path,
    )
    with pytest.raises(UpdateMismatch, match="the file of another model"):
        train(job)


def test_pooled_numbers_of_one_catalogue_row_are_one_endpoint(tmp_path):
    paths = [write_prepared(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 2))]
    datasets = [PreparedDataset.open(path, modality="hybrid") for path in paths]
    places = np.array([0, -1, -1, -1, -1, 1, -1, -1], dtype=np.int32)
    pooled = PreparedDataset.pool(datasets, places=[places, places])
    assert pooled.n_endpoints == 2 + 6 + 6
    assert pooled.is_regression.sum() == 1 + 2 + 2
    assert pooled.is_regression[1]
    whole = pooled.labels_of(np.arange(pooled.n_structures))
    parts = [dataset.labels_of(np.arange(dataset.n_structures)) for dataset in datasets]
    for number, part in enumerate(parts):
        here = whole.row // datasets[0].n_structures == number
        np.testing.assert_array_equal(whole.value[here], part.value)
        np.testing.assert_array_equal(whole.endpoint[here], pooled.endpoints_of[number][part.endpoint])
        np.testing.assert_array_equal(whole.censoring[here], part.censoring)
    predictions = predict_all(
        pooled,
        (4,),
        trunk=initial_trunk(HIDDEN, seed=1),
        head=with_scales(
            initial_head(pooled.n_endpoints, HIDDEN, seed=1),
            pooled,
            pooled.training_rows((1, 2, 3)),
            modality="hybrid",
        ),
    )
    assert predictions.numbers.endpoint.max() == 4
    assert (
        len(predictions.classes.label) + len(predictions.numbers.value)
        == pooled.n_labels[pooled.fold == 4].sum()
    )


def test_a_share_of_the_loss_balances_classes_and_numbers_and_leaves_one_kind_alone(prepared):
    hybrid = PreparedDataset.open(prepared, modality="hybrid")
    assert hybrid.balanced(0.5).endpoint_weight.tolist() == hybrid.endpoint_weight.tolist()
    assert (hybrid.balanced(1.0).endpoint_weight[:N_CLASSES] == 0).all()
    alone = PreparedDataset.open(prepared)
    assert alone.balanced(0.9) is alone
