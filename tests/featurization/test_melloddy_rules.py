"""The profile `melloddy` on vectors that were worked out by hand from the published rules."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.catalogue import ASSAY_TYPES, ASSAYS, ENDPOINTS, REGRESSION_ENDPOINTS, THRESHOLDS
from data_contracts.validation import require_valid
from tasks.featurization.assay_table import EMPTY_CATALOGUE, Catalogue
from tasks.featurization.preparation_rules import rules_of
from tests.featurization.built import built_from

VECTORS = json.loads(
    (Path(__file__).resolve().parents[1] / "vectors" / "melloddy_endpoints.json").read_bytes()
)
RULES = rules_of("melloddy")


def assay(kind, *, direction="high", thresholds=(), binary=False, catalogue_id=None):
    columns = {
        "assay_id": ["A"],
        "assay_type": [kind],
        "direction": [direction],
        "is_binary": [binary],
        "catalogue_assay_id": [catalogue_id],
        **{name: [t] for name, t in zip(THRESHOLDS, [*thresholds, *[None] * 5], strict=False)},
    }
    return pa.table({n: pa.array(v, ASSAYS.schema.field(n).type) for n, v in columns.items()})


def spread(values):
    """Rows and folds: every value is a structure of its own."""
    rows, folds = [], []
    for value, relation, counts in values:
        for fold, count in enumerate(counts):
            for _ in range(count):
                rows.append((len(rows), "A", value, relation))
                folds.append(fold)
    return rows, folds


def catalogue_of(rows):
    columns = list(zip(*rows, strict=True)) if rows else None
    if columns is None:
        return EMPTY_CATALOGUE
    return Catalogue(list(columns[0]), list(columns[1]), np.array(columns[2]), list(columns[3]))


@pytest.mark.parametrize("case", VECTORS["classification"], ids=lambda case: case["name"])
def test_thresholds_quorums_and_weights_are_those_worked_out_by_hand(case):
    described = case["assay"]
    rows, folds = spread(case["values"])
    built = built_from(
        assay(
            described["type"],
            direction=described["direction"],
            thresholds=described["thresholds"],
            binary=described.get("binary", False),
            catalogue_id=described.get("catalogue_id"),
        ),
        rows,
        fold=folds,
        rules=RULES,
        catalogue=catalogue_of(case.get("catalogue")),
    )
    columns = ("endpoint_id", "threshold_method", "n_active", "n_inactive", "weight", "in_evaluation")
    more = ("catalogue_endpoint_id", "assay_type")
    found = [[row[name] for name in (*columns, *more)] for row in built.endpoints.to_pylist()]
    assert len(found) == len(case["endpoints"])
    for got, expected in zip(found, case["endpoints"], strict=True):
        assert got[4] == pytest.approx(expected[4])
        assert got[:4] + got[5 : len(expected)] == expected[:4] + expected[5:]
    assert [[row["endpoint"], row["reason"]] for row in built.tables.excluded] == case["excluded"]
    list(require_valid(built.endpoints.to_batches(), ENDPOINTS, source="endpoints"))


@pytest.mark.parametrize("case", VECTORS["regression"], ids=lambda case: case["name"])
def test_regression_quorums_and_censored_weights_are_those_worked_out_by_hand(case):
    rows, folds = spread(case["values"])
    built = built_from(assay(case["type"]), rows, fold=folds, rules=RULES)
    found = built.regression.to_pylist()
    if case["expected"] is None:
        assert found == []
        assert built.values.num_rows == 0
        return
    (row,) = found
    assert {name: row[name] for name in case["expected"]} == pytest.approx(case["expected"])
    censoring = {"<": -1, "=": 0, ">": 1}
    assert [(v["structure_index"], v["value"], v["censoring"]) for v in built.values.to_pylist()] == [
        (structure, value, censoring[relation]) for structure, _, value, relation in rows
    ]
    list(require_valid(built.regression.to_batches(), REGRESSION_ENDPOINTS, source="regression"))


def test_the_vectors_cover_every_assay_type_that_has_rules_of_its_own():
    kinds = {case["assay"]["type"] for case in VECTORS["classification"]}
    assert kinds == set(ASSAY_TYPES) - {"AUX_PL"}  # pseudo-labels are binary: same rule as any binary assay


def test_pseudo_labels_are_auxiliary_and_binary():
    rows, folds = spread([[1.0, "=", [2] * 5], [-1.0, "=", [2000] * 5]])
    built = built_from(assay("AUX_PL", binary=True), rows, fold=folds, rules=RULES)
    (row,) = built.endpoints.to_pylist()
    assert (row["n_active"], row["n_inactive"], row["weight"]) == (10, 10_000, 0.1)
    assert row["is_auxiliary"]
    assert not row["in_evaluation"]
    graded = built_from(assay("AUX_PL"), rows, fold=folds, rules=RULES)
    assert graded.tables.excluded[0]["reason"] == "no threshold"


def test_dose_responses_are_rounded_to_two_decimals_after_the_replicates():
    # 5.996 is 6.00 and active at 6; 5.994 is 5.99 and is not; ADME values keep all decimals.
    rows, folds = spread([[5.996, "=", [10] * 5], [5.994, "=", [10] * 5]])
    kinds = {}
    for kind in ("OTHER", "ADME"):
        built = built_from(assay(kind, thresholds=(6.0,)), rows, fold=folds, rules=RULES)
        kinds[kind] = {e["endpoint_id"]: e["n_active"] for e in built.endpoints.to_pylist()}
    assert kinds == {"OTHER": {"A>=6": 50}, "ADME": {}}


def test_replicates_of_panels_take_the_highest_and_of_screens_go_by_direction():
    rows, folds = spread([[4.0, "=", [10] * 5], [6.0, "=", [10] * 5]])
    higher = [(structure, "A", 7.0, ">") for structure in range(50)]
    built = built_from(assay("PANEL", thresholds=(5.0,)), [*rows, *higher], fold=folds, rules=RULES)
    assert built.endpoints.num_rows == 0  # everything is active at 5
    screens, folds = spread([[-4.0, "=", [2] * 5], [0.5, "=", [1000] * 5], [1.0, "=", [1000] * 5]])
    again = [(structure, "A", 1.0, "=") for structure in range(10)]
    for direction, n_active in (("low", 10), ("both", 10), ("high", None)):
        built = built_from(assay("AUX_HTS", direction=direction), [*screens, *again], fold=folds, rules=RULES)
        found = built.endpoints.column("n_active").to_pylist()
        assert found == ([] if n_active is None else [n_active])
