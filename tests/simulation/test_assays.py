"""Simulated results are written down as laboratories do: units, censoring, thresholds."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.simulation.assays import (
    CENSORING_LIMIT,
    HIGHEST,
    LOWEST,
    AssaySettings,
    SimulatedAssays,
    activities_table,
    assays_table,
    permuted_activities,
    simulate_assays,
)


def world(seed=0, **changed):
    chosen = AssaySettings(**({"n_assays": 30, "median_size": 300} | changed))
    rng = np.random.default_rng(seed)
    features = (rng.random((600, 256)) < 0.1).astype(np.uint8)
    assays = simulate_assays(features, rng.normal(size=(600, 5)), settings=chosen, rng=rng)
    compounds = pa.array([f"C{number}" for number in range(600)])
    return assays, activities_table(assays, compounds, settings=chosen, rng=rng), chosen


def test_a_concentration_is_nine_minus_the_logarithm_of_nanomolar():
    # By definition: p = -log10(c / M), so 1 uM = 1,000 nM is p 6, and "weaker than 10 uM" is > 10,000 nM.
    assays = SimulatedAssays(
        names=("SYN-A",),
        family=np.zeros(1, dtype=np.int64),
        values=np.array([[6.0], [4.2], [9.0]]),
        measured=np.ones((3, 1), dtype=bool),
    )
    for share, expected in (
        (1.0, [("=", 1000.0, "nM"), (">", 10_000.0, "nM"), ("=", 1.0, "nM")]),
        (0.0, [("=", 6.0, "p"), ("<", 5.0, "p"), ("=", 9.0, "p")]),
    ):
        table = activities_table(
            assays,
            pa.array(["C0", "C1", "C2"]),
            settings=AssaySettings(share_nanomolar=share, share_censoring_assays=1.0),
            rng=np.random.default_rng(0),
        )
        rows = [tuple(row.values()) for row in table.select(["relation", "value", "unit"]).to_pylist()]
        assert rows == expected


def test_values_lie_on_the_scale_and_a_censored_one_only_says_weaker():
    assays, activities, _ = world()
    assert assays.values.min() >= LOWEST
    assert assays.values.max() <= HIGHEST
    relations = set()
    for row in activities.to_pylist():
        p = row["value"] if row["unit"] == "p" else 9 - np.log10(row["value"])
        relations.add((row["unit"], row["relation"]))
        assert row["relation"] == "=" or p == pytest.approx(CENSORING_LIMIT)
    assert relations == {("p", "="), ("p", "<"), ("nM", "="), ("nM", ">")}


def test_assays_of_one_family_resemble_each_other_more_than_others():
    assays, _, _ = world(n_assays=40, n_families=8, family_similarity=0.95, noise_log=0.1)
    likeness = np.abs(np.corrcoef(assays.values.T))
    same = assays.family[:, None] == assays.family[None, :]
    np.fill_diagonal(same, val=False)
    other = assays.family[:, None] != assays.family[None, :]
    assert likeness[same].mean() > likeness[other].mean() + 0.2


def test_only_what_was_measured_is_written_down():
    assays, activities, _ = world()
    assert activities.num_rows == int(assays.measured.sum())
    pairs = set(zip(activities["compound_id"].to_pylist(), activities["assay_id"].to_pylist(), strict=True))
    assert len(pairs) == activities.num_rows


def test_own_thresholds_split_their_assay_in_half():
    assays, _, _ = world(n_assays=60)
    table = assays_table(assays, rng=np.random.default_rng(1))
    thresholds = table["threshold_1"].to_pylist()
    own = [number for number, threshold in enumerate(thresholds) if threshold is not None]
    assert 10 <= len(own) <= 35
    for number in own:
        assert 0.4 < (assays.values[:, number] >= thresholds[number]).mean() < 0.6
    assert set(table["direction"].to_pylist()) == {"high", "low"}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.lists(st.tuples(st.sampled_from("ABC"), st.floats(4, 9)), min_size=1, max_size=60),
)
def test_a_permutation_keeps_each_assays_results_as_a_multiset_and_its_compounds_in_place(seed, rows):
    table = pa.table(
        {
            "compound_id": [f"C{number}" for number in range(len(rows))],
            "assay_id": [assay for assay, _ in rows],
            "relation": ["<" if value < 5 else "=" for _, value in rows],
            "value": [value for _, value in rows],
            "unit": ["p" if number % 2 else "nM" for number in range(len(rows))],
        }
    )
    shuffled = permuted_activities(table, rng=np.random.default_rng(seed))
    assert shuffled.schema == table.schema
    assert shuffled.select(["compound_id", "assay_id"]) == table.select(["compound_id", "assay_id"])
    results = ["assay_id", "relation", "value", "unit"]  # a relation stays with its value and unit
    before, after = (
        Counter(tuple(row.values()) for row in t.select(results).to_pylist()) for t in (table, shuffled)
    )
    assert before == after
