"""A shared model is a trunk and a catalogue head in one flat vector, and a partner's head takes its rows from there."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import UpdateMismatch
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import Centralised, LocalSteps, Score, TrainingSettings
from tasks.local_training.parameters import (
    initial_head,
    initial_trunk,
    read_parameters,
    read_vector,
    unflatten,
    vector_length,
    write_parameters,
)
from tasks.local_training.shared_model import (
    PRIVATE,
    initial_shared,
    layout_of_shared,
    read_places,
    read_shared,
    shared_layout,
    split_shared,
    trunk_length,
    with_catalogue,
    write_catalogue,
)
from tasks.local_training.training import train
from tests.local_training.conftest import HIDDEN, write_prepared

SETTINGS = TrainingSettings(batch_size=16, learning_rate=0.01, dropout=0.3)


def _places(path, *places):
    with io.BytesIO() as buffer:
        np.save(buffer, np.array(places, dtype=np.int32), allow_pickle=False)
        path.write_bytes(buffer.getvalue())
    return path


def _shared(path, *, n_catalogue, seed=1):
    vector = initial_shared(HIDDEN, n_catalogue=n_catalogue, seed=seed)
    write_parameters(path, unflatten(vector, shared_layout(HIDDEN, n_catalogue=n_catalogue)))
    return path


def test_the_trunk_does_not_depend_on_the_catalogue():
    alone = initial_shared(HIDDEN, n_catalogue=0, seed=5)
    with_head = initial_shared(HIDDEN, n_catalogue=3, seed=5)
    np.testing.assert_array_equal(alone, with_head[: len(alone)])
    assert len(alone) == trunk_length(HIDDEN)
    assert len(with_head) == vector_length(shared_layout(HIDDEN, n_catalogue=3))
    np.testing.assert_array_equal(
        unflatten(alone, shared_layout(HIDDEN, n_catalogue=0))["embedding.weight"],
        initial_trunk(HIDDEN, seed=5)["embedding.weight"],
    )


def test_a_shared_model_survives_its_file_and_its_vector(tmp_path):
    arrays = read_parameters(_shared(tmp_path / "shared", n_catalogue=2))
    views, vector = read_shared(arrays)
    np.testing.assert_array_equal(vector, initial_shared(HIDDEN, n_catalogue=2, seed=1))
    trunk, catalogue = split_shared(views)
    assert set(trunk) == {"embedding.weight", "embedding.bias"}
    assert catalogue["weight"].shape == (2, HIDDEN)
    catalogue["bias"][0] = 7
    assert vector[-2] == 7, "views share the vector's memory"


@given(places=st.lists(st.sampled_from([PRIVATE, 0, 1, 2]), min_size=1, max_size=8))
def test_rows_go_into_a_head_and_back(places):
    places = np.array(places, dtype=np.int32)
    head = initial_head(len(places), HIDDEN, seed=1)
    catalogue = initial_head(3, HIDDEN, seed=2)
    merged = with_catalogue(head, catalogue, places)
    for row, place in enumerate(places.tolist()):
        source, at = (head, row) if place == PRIVATE else (catalogue, place)
        np.testing.assert_array_equal(merged["weight"][row], source["weight"][at])
        assert merged["bias"][row] == source["bias"][at]
    shared = {"embedding.weight": np.zeros(1), **{f"catalogue.{n}": a.copy() for n, a in catalogue.items()}}
    write_catalogue(shared, {name: array + 1 for name, array in merged.items()}, places)
    changed = np.flatnonzero((shared["catalogue.weight"] != catalogue["weight"]).any(axis=1))
    assert set(changed.tolist()) == {place for place in places.tolist() if place >= 0}


@pytest.mark.parametrize("places", [[0, 1], [0, 1, 2, 3], [PRIVATE, 9, 0]])
def test_places_that_do_not_fit_are_refused(places):
    with pytest.raises(UpdateMismatch, match="do not fit"):
        with_catalogue(
            initial_head(3, HIDDEN, seed=1), initial_head(2, HIDDEN, seed=2), np.array(places, np.int32)
        )


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_unreadable_places_are_refused_without_a_raw_error(tmp_path, content):
    path = tmp_path / "places.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UpdateMismatch, match=r"'places\.npy'"):
        read_places(path)


def test_places_of_another_type_are_refused(tmp_path):
    np.save(tmp_path / "places.npy", np.array([0.5]))
    with pytest.raises(UpdateMismatch, match="no places"):
        read_places(tmp_path / "places.npy")


def test_local_steps_move_only_the_catalogue_rows_that_the_partner_trains(prepared, tmp_path):
    shared = _shared(tmp_path / "shared", n_catalogue=4)
    places = _places(tmp_path / "places.npy", 2, PRIVATE, 0, PRIVATE, PRIVATE)
    job = LocalSteps(
        dataset=prepared,
        trunk=shared,
        places=places,
        head_seed=2,
        seed=3,
        settings=SETTINGS,
        output=tmp_path / "out",
    )
    result = train(job)
    layout = layout_of_shared(read_parameters(shared))
    update = unflatten(np.array(read_vector(result.update)), layout)
    assert update["catalogue.weight"].any(axis=1).tolist() == [True, False, True, False]
    head, start = read_parameters(result.head), read_parameters(shared)
    np.testing.assert_allclose(
        head["weight"][0], start["catalogue.weight"][2] + update["catalogue.weight"][2], atol=1e-6
    )


def test_scoring_takes_the_shared_rows_whatever_the_own_head_says(prepared, tmp_path):
    shared = _shared(tmp_path / "shared", n_catalogue=5)
    everything = _places(tmp_path / "places.npy", 0, 1, 2, 3, 4)
    for name, seed in (("one", 1), ("two", 2)):
        write_parameters(tmp_path / name, initial_head(5, HIDDEN, seed=seed))
        job = Score(
            dataset=prepared,
            trunk=shared,
            head=tmp_path / name,
            places=everything,
            folds=(0,),
            output=tmp_path / f"{name}-scores",
        )
        train(job)
        train(job.model_copy(update={"places": None, "output": tmp_path / f"{name}-own"}))
    scores = {path.name: (path / "scores.arrow").read_bytes() for path in tmp_path.glob("*-*")}
    assert scores["one-scores"] == scores["two-scores"]
    assert scores["one-own"] != scores["two-own"]


def test_pooling_with_places_makes_one_endpoint_of_those_with_one_row(prepared, tmp_path):
    other = write_prepared(tmp_path / "other", seed=7, n_endpoints=3, n_structures=50)
    places = [np.array([1, PRIVATE, 0, PRIVATE, PRIVATE], np.int32), np.array([0, PRIVATE, 1], np.int32)]
    datasets = [PreparedDataset.open(prepared), PreparedDataset.open(other)]
    pooled = PreparedDataset.pool(datasets, places=places)
    assert [numbers.tolist() for numbers in pooled.endpoints_of] == [[1, 2, 0, 3, 4], [0, 5, 1]]
    assert pooled.n_endpoints == 6
    counts = np.bincount(pooled.label_endpoint, minlength=6)
    own = [np.bincount(d.label_endpoint, minlength=d.n_endpoints) for d in datasets]
    assert counts.tolist() == [own[0][2] + own[1][0], own[0][0] + own[1][2], *own[0][[1, 3, 4]], own[1][1]]


def test_a_pooled_arm_gives_both_partners_the_same_row_for_a_shared_endpoint(prepared, tmp_path):
    other = write_prepared(tmp_path / "other", seed=7, n_endpoints=3, n_structures=50)
    result = train(
        Centralised(
            kind="pooled",
            datasets=(prepared, other),
            trunk=_shared(tmp_path / "shared", n_catalogue=0),
            places=(
                _places(tmp_path / "a.npy", 0, PRIVATE, PRIVATE, PRIVATE, PRIVATE),
                _places(tmp_path / "b.npy", PRIVATE, 0, PRIVATE),
            ),
            head_seeds=(1, 2),
            seed=3,
            max_epochs=2,
            settings=SETTINGS,
            output=tmp_path / "pooled",
        )
    )
    first, second = (read_parameters(head)["weight"] for head in result.heads)
    assert (first.shape, second.shape) == ((5, HIDDEN), (3, HIDDEN))
    np.testing.assert_array_equal(first[0], second[1])
    assert not np.array_equal(first[0], second[0])
