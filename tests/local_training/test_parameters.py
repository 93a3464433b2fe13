"""Named arrays, flat vectors and their files are three views of one thing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import UpdateMismatch
from tasks.local_training.parameters import (
    PUBLISHED_HEAD_GAIN,
    flatten,
    head_layout,
    initial_head,
    initial_trunk,
    layout_of,
    read_parameters,
    read_vector,
    trunk_layout,
    unflatten,
    vector_length,
    write_parameters,
    write_vector,
)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 3), st.integers(1, 20), st.integers(0, 2**32))
def test_flatten_and_unflatten_are_inverse_and_unflatten_copies_nothing(hidden, n_layers, n_bits, seed):
    layout = trunk_layout(hidden, n_layers=n_layers, n_bits=n_bits)
    vector = np.random.default_rng(seed).random(vector_length(layout), dtype=np.float32)
    named = unflatten(vector, layout)
    assert all(np.shares_memory(array, vector) for array in named.values())
    np.testing.assert_array_equal(flatten(named, layout), vector)
    assert layout_of(dict(reversed(named.items()))) == layout


def test_the_flat_vector_keeps_the_fixed_order():
    layout = trunk_layout(2, n_layers=1, n_bits=3)
    named = unflatten(np.arange(vector_length(layout), dtype=np.float32), layout)
    assert [name for name, _ in layout] == [
        "embedding.weight",
        "embedding.bias",
        "layers.0.weight",
        "layers.0.bias",
    ]
    assert named["embedding.weight"][2].tolist() == [4, 5]
    assert named["embedding.bias"].tolist() == [6, 7]
    assert named["layers.0.bias"].tolist() == [12, 13]


def test_a_first_head_says_a_tenth_of_what_the_published_one_says_and_draws_the_same():
    # SparseChem models.py: xavier_uniform_(gain=1), bias 0.1
    small, published = (initial_head(30, 40, seed=5, gain=gain) for gain in (0.1, PUBLISHED_HEAD_GAIN))
    bound = math.sqrt(6 / (30 + 40))
    assert bound * 0.99 < np.abs(published["weight"]).max() <= bound * (1 + 1e-6)
    assert (published["bias"] == np.float32(0.1)).all()
    for name, array in initial_head(30, 40, seed=5).items():
        np.testing.assert_array_equal(array, small[name])
        np.testing.assert_allclose(array, published[name] / 10, rtol=1e-6, atol=1e-8)


def test_first_trunk_is_xavier_uniform_with_relu_gain_and_biases_of_a_tenth():
    # SparseChem models.py: xavier_uniform_(gain=sqrt(2)), bias 0.1; variance of U(-b, b) is b^2 / 3
    trunk = initial_trunk(16, seed=5)
    bound = math.sqrt(2) * math.sqrt(6 / (32_768 + 16))
    weight = trunk["embedding.weight"]
    assert np.abs(weight).max() <= bound * (1 + 1e-6)
    assert float(weight.astype(np.float64).var()) == pytest.approx(bound**2 / 3, rel=0.01)
    assert abs(float(weight.mean(dtype=np.float64))) < bound / 300
    assert (trunk["embedding.bias"] == np.float32(0.1)).all()


def test_the_same_seed_draws_the_same_trunk_and_another_seed_another():
    one, again, other = (initial_trunk(4, seed=seed, n_layers=1)["embedding.weight"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert initial_head(3, 4, seed=1)["weight"].shape == dict(head_layout(3, 4))["weight"]


def test_files_give_the_arrays_back_and_the_same_arrays_give_the_same_bytes(tmp_path):
    trunk = initial_trunk(4, seed=1)
    for name in ("one", "two"):
        write_parameters(tmp_path / name, dict(reversed(trunk.items())) if name == "two" else trunk)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found = read_parameters(tmp_path / "one")
    assert all(np.array_equal(found[name], trunk[name]) for name in trunk)
    vector = flatten(trunk, layout_of(trunk))
    write_vector(tmp_path / "update.npy", vector)
    np.testing.assert_array_equal(read_vector(tmp_path / "update.npy"), vector)
    assert not read_vector(tmp_path / "update.npy").flags.writeable


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 64, b"\x93NUMPY\x01\x00 nonsense"])
def test_missing_and_damaged_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UpdateMismatch, match="'file' is no readable safetensors file"):
        read_parameters(path)
    with pytest.raises(UpdateMismatch, match=r"'file' is no readable \.npy vector"):
        read_vector(path)


def test_other_types_and_shapes_are_refused(tmp_path):
    write_parameters(tmp_path / "double", {"weight": np.zeros(3)})  # type: ignore[dict-item] - the wrong type is the point
    with pytest.raises(UpdateMismatch, match="of another type than float32"):
        read_parameters(tmp_path / "double")
    np.save(tmp_path / "matrix.npy", np.zeros((2, 2), np.float32))
    with pytest.raises(UpdateMismatch, match="not a flat float32 vector"):
        read_vector(tmp_path / "matrix.npy")
    layout = trunk_layout(2, n_bits=4)
    with pytest.raises(UpdateMismatch, match=r"needs float32 \(10,\)"):
        unflatten(np.zeros(11, np.float32), layout)
    with pytest.raises(UpdateMismatch, match="of another model"):
        flatten({"embedding.weight": np.zeros((4, 2), np.float32)}, layout)
    with pytest.raises(UpdateMismatch, match=r"needs a matrix 'embedding\.weight'"):
        layout_of(initial_head(2, 2, seed=0))


def test_objects_in_an_npy_file_are_refused_and_never_unpickled(tmp_path):
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UpdateMismatch, match=r"no readable \.npy vector"):
        read_vector(tmp_path / "object.npy")
