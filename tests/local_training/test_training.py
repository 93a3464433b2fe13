"""Jobs are functions of their inputs, learn, and keep to their folds."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.errors import ContractViolation, UpdateMismatch
from tasks.evaluation.metric_tables import read_metrics
from tasks.evaluation.metrics import METRICS, endpoint_metrics
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import JOB, RESULT, Centralised, LocalSteps, Score, TrainingSettings
from tasks.local_training.parameters import (
    flatten,
    initial_head,
    initial_trunk,
    layout_of,
    read_parameters,
    read_vector,
    unflatten,
    write_parameters,
)
from tasks.local_training.training import train
from tests.local_training.conftest import HIDDEN, rewrite, write_prepared

SETTINGS = TrainingSettings(batch_size=16, learning_rate=0.01, dropout=0.3)


@pytest.fixture
def trunk(tmp_path):
    path = tmp_path / "trunk.safetensors"
    write_parameters(path, initial_trunk(HIDDEN, seed=1))
    return path


def _local_steps(dataset, trunk, output, **changes):
    job = LocalSteps(dataset=dataset, trunk=trunk, head_seed=2, seed=3, settings=SETTINGS, output=output)
    return train(job.model_copy(update=changes))


def _centralised(kind, datasets, trunk, output, **changes):
    seeds = tuple(range(len(datasets)))
    job = Centralised(
        kind=kind,
        datasets=datasets,
        trunk=trunk,
        head_seeds=seeds,
        seed=3,
        max_epochs=4,
        settings=SETTINGS,
        output=output,
    )
    return train(job.model_copy(update=changes))


def _files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_same_local_steps_give_the_same_bytes_and_another_seed_gives_others(prepared, trunk, tmp_path):
    results = [_local_steps(prepared, trunk, tmp_path / name) for name in ("one", "two")]
    other = _local_steps(prepared, trunk, tmp_path / "other", seed=4)
    assert _files(tmp_path / "one") == _files(tmp_path / "two")
    hide = {"update", "head", "optimizer", "usage"}
    assert results[0].model_dump(exclude=hide) == results[1].model_dump(exclude=hide)
    assert other.update.read_bytes() != results[0].update.read_bytes()


def test_the_update_leads_from_the_trunk_to_a_lower_loss_and_moves_only_rows_the_partner_has(
    prepared, trunk, tmp_path
):
    first = _local_steps(prepared, trunk, tmp_path / "first", epochs=3)
    arrays = read_parameters(trunk)
    layout = layout_of(arrays)
    update = read_vector(first.update)
    write_parameters(tmp_path / "next", unflatten(flatten(arrays, layout) + update, layout))
    second = _local_steps(prepared, tmp_path / "next", tmp_path / "second", head=first.head, seed=5)
    assert second.loss_sum / second.weight_sum < first.loss_sum / first.weight_sum
    moved = np.flatnonzero(unflatten(np.array(update), layout)["embedding.weight"].any(axis=1))
    dataset = PreparedDataset.open(prepared)
    bits, _ = dataset.fingerprints_of(dataset.training_rows((1, 2, 3)))
    assert set(moved.tolist()) == set(bits.tolist())


def test_counts_are_those_of_the_training_folds(prepared, trunk, tmp_path):
    result = _local_steps(prepared, trunk, tmp_path / "out", epochs=2)
    dataset = PreparedDataset.open(prepared)
    inside = dataset.labels_of(np.flatnonzero(np.isin(dataset.fold, (1, 2, 3))))
    weights = dataset.endpoint_weight[inside.endpoint]
    assert result.n_labels == int((weights > 0).sum())
    assert result.labels_seen == 2 * result.n_labels
    assert result.weight_sum == pytest.approx(2 * float(weights.sum()))


def test_a_fraction_of_an_epoch_is_that_share_of_its_steps(prepared, trunk, tmp_path):
    whole = _local_steps(prepared, trunk, tmp_path / "whole")
    half = _local_steps(prepared, trunk, tmp_path / "half", epochs=0.5)
    assert (whole.n_steps, half.n_steps) == (4, 2)


def test_the_optimizer_state_of_a_round_can_open_the_next(prepared, trunk, tmp_path):
    first = _local_steps(prepared, trunk, tmp_path / "first", keep_optimizer=True)
    going_on = {"head": first.head, "optimizer": first.optimizer, "keep_optimizer": True}
    second = _local_steps(prepared, trunk, tmp_path / "second", **going_on)
    state = read_parameters(second.optimizer)
    assert state["steps"] == first.n_steps + second.n_steps
    fresh = _local_steps(prepared, trunk, tmp_path / "fresh", head=first.head)
    assert fresh.update.read_bytes() != second.update.read_bytes()


def test_the_test_fold_is_never_trained_on(prepared, trunk, tmp_path):
    before = _local_steps(prepared, trunk, tmp_path / "before")
    dataset = PreparedDataset.open(prepared)
    inside = np.repeat(np.isin(dataset.fold, (1, 2, 3)), np.diff(dataset.label_starts))
    spoiled = np.where(inside, dataset.label_value, 1 - dataset.label_value)
    rewrite(prepared / "labels.arrow", label=pa.array(spoiled, pa.int8()))
    after = _local_steps(prepared, trunk, tmp_path / "after")
    assert before.update.read_bytes() == after.update.read_bytes()


def test_alone_keeps_the_epoch_that_validates_best(prepared, trunk, tmp_path):
    result = _centralised("alone", (prepared,), trunk, tmp_path / "alone", max_epochs=6, min_per_class=3)
    values = [epoch.validation.auprc for epoch in result.history]
    assert result.best_epoch == 1 + int(np.argmax(values))
    score = train(
        Score(
            dataset=prepared,
            trunk=result.trunk,
            head=result.heads[0],
            folds=(4,),
            min_per_class=3,
            output=tmp_path / "score",
        )
    )
    assert score.means == result.history[result.best_epoch - 1].validation


def test_patience_ends_a_training_that_no_longer_improves(prepared, trunk, tmp_path):
    result = _centralised(
        "alone", (prepared,), trunk, tmp_path / "alone", max_epochs=60, patience=2, min_per_class=3
    )
    assert len(result.history) == result.best_epoch + 2 < 60


def test_pooling_one_data_set_is_training_alone(prepared, trunk, tmp_path):
    alone = _centralised("alone", (prepared,), trunk, tmp_path / "alone")
    pooled = _centralised("pooled", (prepared,), trunk, tmp_path / "pooled")
    assert _files(tmp_path / "alone") == _files(tmp_path / "pooled")
    assert alone.history == pooled.history


def test_pooled_partners_share_the_trunk_and_keep_heads_of_their_own_size(prepared, trunk, tmp_path):
    other = write_prepared(tmp_path / "other", seed=7, n_endpoints=3, n_structures=50)
    result = _centralised("pooled", (prepared, other), trunk, tmp_path / "pooled")
    assert [read_parameters(head)["weight"].shape for head in result.heads] == [(5, HIDDEN), (3, HIDDEN)]
    for dataset, head in zip((prepared, other), result.heads, strict=True):
        scored = train(
            Score(dataset=dataset, trunk=result.trunk, head=head, folds=(0,), output=tmp_path / "score")
        )
        assert np.isfinite(read_metrics(scored.metrics)[0].log_loss).any()


def test_scores_and_metrics_of_a_fold_agree(prepared, trunk, tmp_path):
    write_parameters(tmp_path / "head", initial_head(5, HIDDEN, seed=2))
    result = train(
        Score(
            dataset=prepared,
            trunk=trunk,
            head=tmp_path / "head",
            folds=(0, 4),
            min_per_class=3,
            output=tmp_path,
        )
    )
    with pa.OSFile(str(result.scores)) as source:
        scores = pa.ipc.open_file(source).read_all()
    dataset = PreparedDataset.open(prepared)
    columns = {name: scores.column(name).to_numpy() for name in scores.column_names}
    assert set(dataset.fold[columns["structure_index"]].tolist()) == {0, 4}
    again = endpoint_metrics(
        columns["endpoint_index"], columns["label"], columns["probability"], n_endpoints=dataset.n_endpoints
    )
    metrics, counted = read_metrics(result.metrics)
    for field in dataclasses.fields(metrics):
        np.testing.assert_array_equal(getattr(metrics, field.name), getattr(again, field.name))
    assert counted.tolist() == [True] * 4 + [False]
    assert result.means.model_dump(include=set(METRICS)) == metrics.means(counted)


def test_jobs_and_results_survive_json(prepared, trunk, tmp_path):
    job = LocalSteps(dataset=prepared, trunk=trunk, head_seed=2, seed=3, output=tmp_path / "out")
    assert JOB.validate_json(job.model_dump_json()) == job
    result = train(job)
    assert RESULT.validate_json(result.model_dump_json()) == result


def test_nothing_to_train_on_is_refused(prepared, trunk, tmp_path):
    rewrite(prepared / "endpoints.arrow", in_training=pa.array([False] * 5))
    with pytest.raises(ContractViolation, match="no labelled structure in training folds"):
        _local_steps(prepared, trunk, tmp_path / "out")


def test_a_head_of_another_data_set_and_a_missing_seed_are_refused(prepared, trunk, tmp_path):
    write_parameters(tmp_path / "head", initial_head(4, HIDDEN, seed=2))
    with pytest.raises(UpdateMismatch, match="the layout needs"):
        _local_steps(prepared, trunk, tmp_path / "out", head=tmp_path / "head")
    with pytest.raises(UpdateMismatch, match="need as many head seeds"):
        _centralised("alone", (prepared,), trunk, tmp_path / "out", head_seeds=(1, 2))
