"""A model's directory is complete, checkable file by file, and says nothing that it must not."""

import json

import numpy as np
import pytest

from data_contracts.canonical_json import canonical_bytes
from data_contracts.errors import UpdateMismatch
from tasks.local_training.parameters import initial_head, initial_trunk, write_parameters
from tasks.model_registration import scoring
from tasks.model_registration.bundle import ModelCard, read_card, read_parts, sha256_of, write_bundle
from tests.model_registration.conftest import ENDPOINTS, HIDDEN, REAL, make_bundle, validated


def test_the_same_model_is_the_same_bytes(tmp_path):
    one, other = (make_bundle(tmp_path / name, validation=validated(0.5)) for name in ("one", "other"))
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in other.iterdir()
    }


def test_the_card_names_every_other_file_by_its_digest(bundle):
    card = read_card(bundle)
    files = {path.name for path in bundle.iterdir()} - {scoring.CARD}
    assert card.sha256 == {name: sha256_of(bundle / name) for name in files}
    assert card.weights_sha256 == card.sha256["weights.safetensors"]
    assert (bundle / scoring.CARD).read_bytes() == canonical_bytes(card.model_dump(mode="json"))


def test_writing_over_an_older_model_leaves_nothing_of_it(tmp_path):
    make_bundle(tmp_path / "bundle", seed=1)
    make_bundle(tmp_path / "bundle", seed=2)
    fresh = make_bundle(tmp_path / "fresh", seed=2)
    assert read_card(tmp_path / "bundle") == read_card(fresh)
    scoring.load(tmp_path / "bundle")


def test_the_files_that_travel_import_none_of_our_packages(bundle):
    for name in scoring.SOURCES:
        text = (bundle / name).read_text()
        assert not [
            room
            for room in ("tasks", "flows", "data_contracts")
            if f"from {room}" in text or f"import {room}" in text
        ]


def parts(**changed):
    whole = {
        "run_id": "run-1",
        "trunk": initial_trunk(HIDDEN, seed=0),
        "head": initial_head(len(ENDPOINTS), HIDDEN, seed=1),
        "endpoints": ENDPOINTS,
        "data": REAL,
        "validation": None,
    }
    return whole | changed


@pytest.mark.parametrize(
    "changed",
    [
        {"head": None},
        {"endpoints": ()},
        {"endpoints": ENDPOINTS[:2]},
        {"head": initial_head(len(ENDPOINTS), HIDDEN + 1, seed=1)},
        {"trunk": {"weight": np.zeros((2, 2), dtype=np.float32)}},
        {"trunk": {"embedding.weight": np.zeros((4, HIDDEN), dtype=np.float64)}},
    ],
    ids=["no head", "no endpoints", "too few endpoints", "another width", "no trunk", "another type"],
)
def test_parts_that_do_not_fit_together_are_refused_and_nothing_is_written(tmp_path, changed):
    with pytest.raises(UpdateMismatch):
        write_bundle(tmp_path / "bundle", **parts(**changed))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "text",
    [None, "", "{", "[]", '{"format": "motet-model@1"}', "\xff"],
)
def test_what_is_no_card_is_refused_without_the_path(tmp_path, text):
    if text is not None:
        (tmp_path / scoring.CARD).write_text(text)
    with pytest.raises(UpdateMismatch, match="no readable model card") as refused:
        read_card(tmp_path)
    assert str(tmp_path) not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("field", ["seed", "path", "user", "n_compounds"])
def test_a_card_has_no_room_for_more_than_a_consumer_needs(bundle, field):
    card = json.loads((bundle / scoring.CARD).read_bytes())
    with pytest.raises(ValueError, match=field):
        ModelCard.model_validate(card | {field: "x"})


def test_a_models_head_takes_the_rows_that_the_consortium_trained_and_keeps_its_own(tmp_path):
    trunk = initial_trunk(HIDDEN, seed=0)
    catalogue = initial_head(2, HIDDEN, seed=5)
    shared = trunk | {f"catalogue.{name}": array for name, array in catalogue.items()}
    head = initial_head(len(ENDPOINTS), HIDDEN, seed=1)
    write_parameters(tmp_path / "shared.safetensors", shared)
    write_parameters(tmp_path / "head.safetensors", head)
    np.save(tmp_path / "places.npy", np.array([1, -1, 0], dtype=np.int32))
    found, full = read_parts(
        *(tmp_path / name for name in ("shared.safetensors", "head.safetensors", "places.npy"))
    )
    assert set(found) == set(trunk)
    expected = np.stack([catalogue["weight"][1], head["weight"][1], catalogue["weight"][0]])
    np.testing.assert_array_equal(full["weight"], expected)
    assert read_parts(tmp_path / "shared.safetensors", None, None)[1] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_validation_that_is_no_number_cannot_be_written(value):
    with pytest.raises(ValueError, match="finite"):
        validated(value)
