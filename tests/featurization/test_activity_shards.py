"""Sorting through files, each step against a definition in plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.featurization import activity_shards
from tasks.featurization.activity_shards import (
    LOW_BITS,
    ActivityShards,
    CodedRows,
    code_of,
    high_of,
    low_of,
    packed,
    sorted_rows,
)

N_STRUCTURES = 6
ROW = st.tuples(st.integers(0, 200), st.integers(0, N_STRUCTURES - 1), st.booleans())
BATCHES = st.lists(st.lists(ROW, min_size=1, max_size=9), max_size=4)
PARENTS = st.lists(st.integers(-1, 3), min_size=N_STRUCTURES, max_size=N_STRUCTURES)


def spread_over_files(directory, batches):
    shards, values = ActivityShards(directory), iter(range(10_000))
    for batch in batches:
        assay, structure, good = (np.array(column) for column in zip(*batch, strict=True))
        value = np.array([next(values) for _ in batch], dtype=np.float64)
        rows = CodedRows(assay, structure, value, (structure % 3 - 1).astype(np.int8))
        shards.add(shards.spread(rows, good=good))
    shards.close()
    return shards


@settings(max_examples=60, deadline=None)
@given(batches=BATCHES, parent=PARENTS, at_once=st.integers(1, 12), read_rows=st.integers(1, 5))
def test_every_row_comes_back_sorted_once_or_is_lost_and_no_assay_is_split(
    tmp_path_factory, batches, parent, at_once, read_rows
):
    directory, parents = tmp_path_factory.mktemp("shards"), np.array(parent, dtype=np.int64)
    shards = spread_over_files(directory, batches)
    found, assays_of_parts = [], []
    for records in shards:
        rows = sorted_rows(records, parent=parents)
        assert (np.diff(rows.pair.view(np.int64)) >= 0).all()
        parts = list(rows.by_assays(at_once))
        assert sum(map(len, parts)) == len(rows)
        for part in parts:
            assays_of_parts.append(set((part.pair >> LOW_BITS).tolist()))
            assert len(part) <= at_once or len(assays_of_parts[-1]) == 1
        found += zip(rows.pair.tolist(), rows.value.tolist(), rows.relation.tolist(), strict=True)
    flat = [row for batch in batches for row in batch]
    kept = [
        ((assay << 32) | parent[structure], float(place), structure % 3 - 1)
        for place, (assay, structure, good) in enumerate(flat)
        if good and parent[structure] >= 0
    ]
    assert sorted(found) == sorted(kept)
    assert sum(map(len, assays_of_parts)) == len(set().union(*assays_of_parts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activity_shards, "READ_ROWS", read_rows)
        lost = shards.without_parent(parents).tolist()
    assert lost == [place for place, (_, s, good) in enumerate(flat) if good and parent[s] < 0]
    assert list(directory.iterdir()) == []


def test_a_key_holds_the_largest_numbers_that_it_promises():
    high, low, code = np.array([0, 2**30 - 1]), np.array([0, 2**32 - 1]), np.array([0, 3], dtype=np.int8)
    key = packed(high, low, code)
    assert [part.tolist() for part in (high_of(key), low_of(key), code_of(key))] == [
        high.tolist(),
        low.tolist(),
        code.tolist(),
    ]
