"""Endpoints against a definition written out pair by pair, and the quorums at their edges."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.catalogue import ASSAYS, ENDPOINTS, LABELS
from data_contracts.writing import read_table, write_table
from tasks.featurization.preparation_rules import ThresholdRule, rules_of
from tests.featurization.built import built_from

THRESHOLDS = ("threshold_1", "threshold_2", "threshold_3", "threshold_4", "threshold_5")
VALUES = st.integers(8, 17).map(lambda n: n / 2)


def assays_of(*rows):
    """Rows of (assay_id, direction, thresholds)."""
    columns = {
        "assay_id": [row[0] for row in rows],
        "assay_type": ["OTHER"] * len(rows),
        "direction": [row[1] for row in rows],
    }
    for place, name in enumerate(THRESHOLDS):
        columns[name] = [row[2][place] if place < len(row[2]) else None for row in rows]
    return pa.table({n: pa.array(v, ASSAYS.schema.field(n).type) for n, v in columns.items()})


@dataclass
class Tables:
    endpoints: pa.Table
    labels: pa.Table
    excluded: list


def build(assays, rows, *, fold, training=1, evaluation=1, default=(5.5, 6.5, 7.5)):
    """Rows of (structure, assay_id, value, relation); thresholds and quorums vary the profile `simple`."""
    rules = rules_of("simple").varied(
        training={"active": training, "inactive": training},
        evaluation={"active": evaluation, "inactive": evaluation},
        thresholds=ThresholdRule(rule="given_or_default", default=default).model_dump(),
    )
    built = built_from(assays, rows, fold=fold, rules=rules)
    names = ("endpoint", "reason", "n_active", "n_inactive")
    return Tables(
        built.endpoints, built.labels, [{name: row[name] for name in names} for row in built.tables.excluded]
    )


def ids(tables):
    return tables.endpoints.column("endpoint_id").to_pylist()


def spread(n_active, n_inactive, *, assay="A"):
    """Actives at 9, inactives at 4, each a structure of its own."""
    values = [9.0] * n_active + [4.0] * n_inactive
    return [(structure, assay, value, "=") for structure, value in enumerate(values)]


@pytest.mark.parametrize(
    ("n_active", "n_inactive", "kept"), [(25, 25, True), (24, 30, False), (30, 24, False)]
)
def test_the_training_quorum_is_25_actives_and_25_inactives(n_active, n_inactive, kept):
    rows = spread(n_active, n_inactive)
    tables = build(assays_of(("A", "high", (6.5,))), rows, fold=[1] * len(rows), training=25)
    assert ids(tables) == (["A>=6.5"] if kept else [])
    assert tables.labels.num_rows == (len(rows) if kept else 0)
    excluded = {
        "endpoint": "A>=6.5",
        "reason": "training quorum",
        "n_active": n_active,
        "n_inactive": n_inactive,
    }
    assert tables.excluded == ([] if kept else [excluded])


@pytest.mark.parametrize(
    ("test", "validation", "counted"),
    [((5, 5), (5, 5), True), ((4, 9), (5, 5), False), ((5, 5), (9, 4), False)],
)
def test_the_evaluation_quorum_holds_in_the_test_and_in_the_validation_fold(test, validation, counted):
    rows = spread(30, 30)
    fold = np.ones(60, dtype=np.int8)
    for number, (n_active, n_inactive) in ((0, test), (4, validation)):
        first = 0 if number == 0 else 12
        fold[first : first + n_active] = number
        fold[30 + first : 30 + first + n_inactive] = number
    tables = build(
        assays_of(("A", "high", (6.5,))),
        rows,
        fold=fold,
        training=25,
        evaluation=5,
    )
    assert tables.endpoints.column("in_evaluation").to_pylist() == [counted]
    assert tables.endpoints.column("in_training").to_pylist() == [True]


def test_an_assay_without_thresholds_gets_the_default_ones_and_shares_its_weight():
    rows = [(i, "A", value, "=") for i, value in enumerate([5.0, 6.0, 7.0, 8.0])]
    tables = build(assays_of(("A", "high", ())), rows, fold=[1] * 4)
    assert ids(tables) == ["A>=5.5", "A>=6.5", "A>=7.5"]
    assert tables.endpoints.column("weight").to_pylist() == pytest.approx([1 / 3] * 3)
    assert tables.endpoints.column("n_active").to_pylist() == [3, 2, 1]


def test_only_trained_endpoints_share_the_weight_of_an_assay():
    rows = [(i, "A", value, "=") for i, value in enumerate([6.0, 6.2, 7.0, 7.2])]
    tables = build(assays_of(("A", "high", ())), rows, fold=[1] * 4)
    assert ids(tables) == ["A>=6.5"]
    assert tables.endpoints.column("weight").to_pylist() == [1.0]
    assert [row["endpoint"] for row in tables.excluded] == ["A>=5.5", "A>=7.5"]


def test_repeated_thresholds_are_one_endpoint_and_names_tell_close_ones_apart():
    rows = [(i, "A", value, "=") for i, value in enumerate([4.0, 9.0])]
    tables = build(assays_of(("A", "high", (6.5, 6.0, 6.5, 6.0000001))), rows, fold=[1, 1])
    assert ids(tables) == ["A>=6", "A>=6.0000001", "A>=6.5"]


def test_an_assay_of_direction_low_is_active_below():
    rows = [(0, "A", 5.0, "="), (1, "A", 6.5, "="), (2, "A", 8.0, "=")]
    tables = build(assays_of(("A", "low", (6.5,))), rows, fold=[1] * 3)
    assert ids(tables) == ["A<=6.5"]
    assert tables.labels.column("label").to_pylist() == [1, 1, 0]


def test_an_assay_without_measurements_is_excluded_by_that_reason():
    tables = build(assays_of(("B", "high", (6.5,)), ("A", "high", (6.5,))), spread(2, 2), fold=[1] * 4)
    assert tables.excluded == [
        {"endpoint": "B>=6.5", "reason": "no measurement", "n_active": 0, "n_inactive": 0}
    ]


def test_endpoints_are_sorted_by_name_whatever_the_order_of_the_assays():
    assays = assays_of(("b", "high", (6.5,)), ("a", "high", (7.0, 5.0)))
    rows = [*spread(2, 2, assay="a"), *spread(2, 2, assay="b")]
    assert ids(build(assays, rows, fold=[1] * 4)) == ["a>=5", "a>=7", "b>=6.5"]


def test_no_activity_gives_no_endpoint():
    tables = build(assays_of(("A", "high", (6.5,))), [], fold=[])
    assert ids(tables) == []
    assert tables.labels.num_rows == 0
    assert len(tables.excluded) == 1


ROWS = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from(["A", "B", "C"]), VALUES, st.sampled_from("=<>")),
    max_size=60,
)
OWN = st.lists(st.sampled_from([5.0, 6.0, 6.5, 7.0]), max_size=5)


def verdict(values, threshold, direction):
    """Label of one pair by hand: 1, 0 or None; ``values`` are (value, relation)."""
    measured = sorted(value for value, relation in values if relation == "=")
    if measured:
        middle = (measured[(len(measured) - 1) // 2] + measured[len(measured) // 2]) / 2
        possible = [middle]
    else:
        lower = max([value for value, relation in values if relation == ">"], default=-100.0)
        upper = min([value for value, relation in values if relation == "<"], default=100.0)
        possible = [lower + 0.01, upper - 0.01] if lower < upper else []
    verdicts = {v >= threshold if direction == "high" else v <= threshold for v in possible}
    return int(verdicts.pop()) if len(verdicts) == 1 else None


@settings(deadline=None)
@given(rows=ROWS, own=OWN, seed=st.integers(0, 99), quorum=st.integers(1, 3))
def test_endpoints_and_labels_are_those_made_by_hand(rows, own, seed, quorum):
    fold = np.random.default_rng(seed).choice([0, 0, 1, 4, 4], 8)
    directions = {"A": "high", "B": "low", "C": "high"}
    thresholds = {"A": sorted(set(own)) or [5.5, 6.5, 7.5], "B": [6.5], "C": [5.5, 6.5, 7.5]}
    assays = assays_of(("C", "high", ()), ("A", "high", own), ("B", "low", (6.5,)))
    tables = build(assays, rows, fold=fold, training=quorum, evaluation=1)

    expected, in_evaluation, excluded = {}, [], 0
    for assay in "ABC":
        for threshold in thresholds[assay]:
            labels = {}
            for structure in range(8):
                values = [(row[2], row[3]) for row in rows if row[:2] == (structure, assay)]
                label = verdict(values, threshold, directions[assay]) if values else None
                if label is not None:
                    labels[structure] = label
            counts = [list(labels.values()).count(kind) for kind in (0, 1)]
            if min(counts) < quorum:
                excluded += 1
                continue
            sign = ">=" if directions[assay] == "high" else "<="
            expected[f"{assay}{sign}{threshold:g}"] = labels
            in_evaluation.append(
                all({label for s, label in labels.items() if fold[s] == split} == {0, 1} for split in (0, 4))
            )
    assert ids(tables) == list(expected)
    assert tables.endpoints.column("in_evaluation").to_pylist() == in_evaluation
    assert len(tables.excluded) == excluded
    triples = sorted((s, e, label) for e, found in enumerate(expected.values()) for s, label in found.items())
    assert [tuple(row.values()) for row in tables.labels.to_pylist()] == triples


def test_the_tables_keep_their_contracts(tmp_path):
    tables = build(
        assays_of(("A", "high", ()), ("B", "low", (6.0,))), spread(4, 4), fold=[0, 1, 2, 3, 4, 0, 4, 1]
    )
    write_table(tmp_path / "endpoints.arrow", ENDPOINTS, tables.endpoints)
    write_table(tmp_path / "labels.arrow", LABELS, tables.labels)
    assert read_table(tmp_path / "endpoints.arrow", ENDPOINTS).num_rows == len(ids(tables)) == 3
    assert read_table(tmp_path / "labels.arrow", LABELS).num_rows == 24
