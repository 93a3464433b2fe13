"""Batches are what a loop over rows would give, and unsound data sets are refused."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import ContractViolation
from tasks.local_training import dataset as dataset_module
from tasks.local_training.dataset import PreparedDataset
from tests.local_training.conftest import rewrite, write_prepared


@st.composite
def datasets(draw):
    n = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bits = [np.sort(rng.choice(100, rng.integers(0, 8), replace=False)).astype(np.uint16) for _ in range(n)]
    labels = [np.sort(rng.choice(5, rng.integers(0, 5), replace=False)).astype(np.int32) for _ in range(n)]
    return PreparedDataset(
        bit_starts=np.cumsum([0, *map(len, bits)]),
        bits=np.concatenate(bits),
        fold=rng.integers(0, 5, n).astype(np.int8),
        label_starts=np.cumsum([0, *map(len, labels)]),
        label_endpoint=np.concatenate(labels),
        label_value=rng.integers(0, 2, sum(map(len, labels))).astype(np.int8),
        endpoint_weight=np.array([1, 0.5, 0, 1, 0], np.float32),
        in_evaluation=np.ones(5, bool),
        endpoints_of=(np.arange(5),),
    )


@settings(max_examples=60, deadline=None)
@given(datasets(), st.integers(0, 2**32))
def test_a_batch_is_what_a_loop_over_its_rows_gives(dataset, seed):
    rows = np.random.default_rng(seed).integers(0, dataset.n_structures, 7)
    bits, starts = dataset.fingerprints_of(rows)
    labels = dataset.labels_of(rows)
    for place, (row, part) in enumerate(zip(rows, np.split(bits, starts[1:]), strict=True)):
        np.testing.assert_array_equal(
            part, dataset.bits[dataset.bit_starts[row] : dataset.bit_starts[row + 1]]
        )
        here = slice(dataset.label_starts[row], dataset.label_starts[row + 1])
        np.testing.assert_array_equal(labels.endpoint[labels.row == place], dataset.label_endpoint[here])
        np.testing.assert_array_equal(labels.value[labels.row == place], dataset.label_value[here])


@settings(max_examples=60, deadline=None)
@given(datasets())
def test_training_rows_have_a_label_with_weight_and_rows_have_any(dataset):
    folds = (1, 2, 3)
    labels = dataset.labels_of(np.arange(dataset.n_structures))
    any_label = set(labels.row.tolist())
    weighted = set(labels.row[dataset.endpoint_weight[labels.endpoint] > 0].tolist())
    inside = set(np.flatnonzero(np.isin(dataset.fold, folds)).tolist())
    assert set(dataset.rows(folds).tolist()) == any_label & inside
    assert set(dataset.training_rows(folds).tolist()) == weighted & inside


@settings(max_examples=30, deadline=None)
@given(datasets(), datasets())
def test_pooling_keeps_every_structure_and_gives_each_partner_its_own_endpoints(one, other):
    pooled = PreparedDataset.pool([one, other])
    assert [numbers.tolist() for numbers in pooled.endpoints_of] == [list(range(5)), list(range(5, 10))]
    for dataset, first_row, first_endpoint in ((one, 0, 0), (other, one.n_structures, 5)):
        rows = np.arange(dataset.n_structures)
        for before, after in zip(
            dataset.fingerprints_of(rows), pooled.fingerprints_of(rows + first_row), strict=True
        ):
            np.testing.assert_array_equal(before, after)
        labels, found = dataset.labels_of(rows), pooled.labels_of(rows + first_row)
        np.testing.assert_array_equal(found.endpoint, labels.endpoint + first_endpoint)
        np.testing.assert_array_equal(found.value, labels.value)
        np.testing.assert_array_equal(pooled.fold[rows + first_row], dataset.fold)


def test_an_opened_data_set_maps_the_files(prepared):
    dataset = PreparedDataset.open(prepared)
    assert (dataset.n_structures, dataset.n_endpoints) == (120, 5)
    assert dataset.endpoint_weight.tolist() == [1.0, 0.5, 1.0, 0.5, 0.0], (
        "an endpoint outside training weighs nothing"
    )
    assert not dataset.bits.flags.owndata
    assert not dataset.label_value.flags.owndata


def test_a_table_of_several_record_batches_opens_the_same(prepared, tmp_path):
    other = write_prepared(tmp_path / "other", seed=1)
    for path in other.glob("*.arrow"):
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=17)
    one, two = PreparedDataset.open(prepared), PreparedDataset.open(other)
    for name in ("bit_starts", "bits", "label_starts", "label_endpoint", "label_value", "fold"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("name", ["fingerprints", "endpoints", "labels"])
def test_a_missing_or_truncated_file_is_refused(prepared, name):
    path = prepared / f"{name}.arrow"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ContractViolation, match=name):
        PreparedDataset.open(prepared)
    path.unlink()
    with pytest.raises(ContractViolation, match=name):
        PreparedDataset.open(prepared)


@pytest.mark.parametrize("column", ["structure_index", "endpoint_index"])
def test_labels_of_unknown_structures_or_endpoints_are_refused(prepared, column):
    path = prepared / "labels.arrow"
    with pa.OSFile(str(path)) as source:
        values = pa.ipc.open_file(source).read_all().column(column).to_numpy().copy()
    values[-1] = 120  # the last label: still sorted, so the file alone is sound
    rewrite(path, **{column: pa.array(values, pa.int32())})
    with pytest.raises(ContractViolation, match="it does not have"):
        PreparedDataset.open(prepared)


def test_reading_a_part_at_a_time_changes_nothing(prepared, monkeypatch):
    whole = PreparedDataset.open(prepared)
    rows = whole.training_rows((1, 2, 3))
    labels = whole.labels_of(np.arange(whole.n_structures))
    weight = whole.endpoint_weight[labels.endpoint]
    monkeypatch.setattr(dataset_module, "ROWS_AT_A_TIME", 7)
    by_parts = PreparedDataset.open(prepared)
    np.testing.assert_array_equal(by_parts.training_rows((1, 2, 3)), rows)
    count, summed = by_parts.trained_labels
    np.testing.assert_array_equal(count, np.bincount(labels.row[weight > 0], minlength=whole.n_structures))
    np.testing.assert_allclose(summed, np.bincount(labels.row, weights=weight, minlength=whole.n_structures))
    np.testing.assert_array_equal(by_parts.used_bits(rows), np.unique(whole.fingerprints_of(rows)[0]))
