"""Streaming validation: nothing lost, nothing leaked, the verdict at the end."""

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.catalogue import ACTIVITIES, ASSAYS, STRUCTURES
from data_contracts.errors import ContractViolation
from data_contracts.quarantine import QUARANTINE
from data_contracts.report import published
from data_contracts.validation import validate_batches
from data_contracts.writing import read_table
from tests.data_contracts.tables import (
    CANARY,
    CANARY_NUMBER,
    EVERY_RULE,
    KNOWN,
    ROWS,
    activities,
    as_table,
    oracle,
)


def validated(table, contract, **options):
    """Run a validation to its end."""
    options = {"quarantine_path": None, "max_bad_fraction": 1.0} | options
    validation = validate_batches(table.to_batches(max_chunksize=3), contract, **options)
    return list(validation), validation.report


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, batch_rows=st.integers(1, 12))
def test_accepted_and_quarantined_rows_are_exactly_the_rows_read(tmp_path_factory, rows, batch_rows):
    path = tmp_path_factory.mktemp("q") / "quarantine.arrow"
    batches = as_table(rows, EVERY_RULE).to_batches(max_chunksize=batch_rows)
    validation = validate_batches(
        batches, EVERY_RULE, quarantine_path=path, max_bad_fraction=1.0, known_keys={"text": KNOWN}
    )
    accepted = [row for batch in validation for row in batch.column("count").to_pylist()]
    report = validation.report
    set_aside = read_table(path, QUARANTINE).to_pylist()

    expected = {
        (index, rule.label, rule.kind)
        for rule in EVERY_RULE.all_rules
        for index, broken in enumerate(oracle(rule, rows))
        if broken
    }
    assert {(entry["row"], entry["column"], entry["rule"]) for entry in set_aside} == expected
    assert len(set_aside) == len(expected)
    assert [entry["row"] for entry in set_aside] == sorted(entry["row"] for entry in set_aside)
    bad = {index for index, _, _ in expected}
    assert accepted == [row["count"] for index, row in enumerate(rows) if index not in bad]
    assert report.rows_read == len(rows)
    assert report.rows_accepted == len(accepted)
    assert report.rows_accepted + report.rows_quarantined == report.rows_read
    for finding in report.findings:
        assert finding.count == sum((finding.column, finding.rule) == entry[1:] for entry in expected)


def test_text_that_is_no_number_is_set_aside_whatever_else_stands_in_its_batch():
    texts = ["1.5", "", None, "1e999", "nan", "inf", " 1", "1,5", "0x1", "+.5e-3", "-2.", "1e-320", CANARY]
    readable = [True, False, False, False, False, False, False, False, False, True, True, True, False]
    for size in (1, len(texts)):
        table = activities(len(texts), value=pa.array(texts, pa.string()))
        validation = validate_batches(
            table.to_batches(max_chunksize=size), ACTIVITIES, quarantine_path=None, max_bad_fraction=1.0
        )
        accepted = [value for batch in validation for value in batch.column("value").to_pylist()]
        assert accepted == [float(text) for text, good in zip(texts, readable, strict=True) if good]
        counts = {(f.rule, f.column): f.count for f in validation.report.findings if f.count}
        assert counts == {("type", "value"): readable.count(False) - 1, ("required", "value"): 1}


def test_identifiers_are_compared_as_text_so_that_007_is_not_7():
    table = pa.table({"compound_id": ["007", "7", "07", "7"], "smiles": ["C"] * 4})
    accepted, report = validated(table, STRUCTURES)
    assert [row for batch in accepted for row in batch.column("compound_id").to_pylist()] == [
        "007",
        "7",
        "07",
    ]
    assert report.for_partner()["findings"] == [
        {"rule": "unique", "column": "compound_id", "count": 1, "rows": [3], "value": "withheld"}
    ]


def test_concentrations_must_be_positive_but_logarithms_need_not():
    table = activities(4, value=[-1.0, 0.0, 0.0, 5.0], unit=["p", "p", "nM", "uM"])
    accepted, report = validated(table, ACTIVITIES)
    assert report.rows_accepted == 3
    assert [f.rows for f in report.findings if f.rule == "between_when"] == [(2,)]
    assert sum(batch.num_rows for batch in accepted) == 3


def test_a_wrong_unit_and_an_unknown_assay_are_set_aside_by_rule():
    table = activities(3, unit=["p", "mg/ml", "p"], assay_id=["A1", "A1", "A9"])
    _, report = validated(table, ACTIVITIES, known_keys={"assay_id": pa.array(["A1"])})
    assert {(f.rule, f.column, f.rows) for f in report.findings if f.count} == {
        ("one_of", "unit", (1,)),
        ("known_in", "assay_id", (2,)),
    }
    assert report.unchecked == ("known_in of compound_id",)


def test_absent_optional_columns_are_nulls_and_foreign_columns_are_put_in_order():
    table = pa.table(
        {"direction": ["high"], "assay_type": ["OTHER"], "assay_id": ["A"], "threshold_2": pa.nulls(1)}
    )
    accepted, report = validated(table, ASSAYS)
    assert report.rows_accepted == 1
    assert accepted[0].schema.equals(ASSAYS.schema, check_metadata=True)
    assert accepted[0].column("threshold_5").null_count == 1


def test_more_bad_rows_than_allowed_refuse_the_whole_table_by_name_and_leave_the_quarantine(tmp_path):
    table = activities(4, unit=["p", "x", "y", "z"])
    validation = validate_batches(
        table.to_batches(), ACTIVITIES, quarantine_path=tmp_path / "q.arrow", source="activities.csv"
    )
    with pytest.raises(
        ContractViolation, match=r"activities\.csv: got 3 of 4 rows .*one_of of unit: 3 rows"
    ) as caught:
        list(validation)
    assert "ordinals" in caught.value.advice
    assert validation.report.verdict == "refused"
    assert read_table(tmp_path / "q.arrow", QUARANTINE).column("row").to_pylist() == [1, 2, 3]
    exactly_half = validate_batches(
        activities(2, unit=["p", "x"]).to_batches(), ACTIVITIES, quarantine_path=None
    )
    assert sum(batch.num_rows for batch in exactly_half) == 1


def test_a_corrupted_text_offset_is_refused_before_it_is_followed():
    # The same batch makes .as_py() read outside the buffer: segmentation fault on pyarrow 25.
    offsets = pa.array([0, 2, 2_000_000_000, 6], pa.int32()).buffers()[1]
    broken = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"abcdef"))
    batch = pa.record_batch({"compound_id": broken, "smiles": ["C", "C", "C"]})
    with pytest.raises(ContractViolation, match="structures: got a record batch") as caught:
        list(validate_batches([batch], STRUCTURES, quarantine_path=None))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_stopping_early_leaves_no_file_and_no_report(tmp_path):
    validation = validate_batches(
        activities(9).to_batches(max_chunksize=1), ACTIVITIES, quarantine_path=tmp_path / "q.arrow"
    )
    next(validation)
    validation.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="iterate"):
        _ = validation.report


def test_no_value_appears_in_the_reports_or_the_quarantine_file(tmp_path):
    table = activities(
        30,
        compound_id=[CANARY + "\n"] * 30,
        assay_id=[CANARY * 50] * 30,
        relation=[CANARY] * 30,
        unit=["nM"] * 29 + [CANARY],
        value=[str(-CANARY_NUMBER)] * 29 + [CANARY],
    )
    path = tmp_path / "q.arrow"
    _, report = validated(table, ACTIVITIES, quarantine_path=path, source="mine.csv")
    assert report.rows_quarantined == 30
    said = [repr(report), str(report), json.dumps(report.for_partner()), json.dumps(report.for_consortium())]
    for text in [
        *said,
        path.read_bytes().decode("latin-1"),
        path.read_bytes().decode("utf-16-le", "replace"),
    ]:
        assert CANARY not in text
        assert str(CANARY_NUMBER) not in text


def test_the_consortium_learns_rounded_counts_and_the_partner_exact_ones():
    table = activities(1234, unit=["p"] * 1000 + ["bad"] * 234, relation=["=", "~"] + ["="] * 1232)
    _, report = validated(table, ACTIVITIES, source="secret-project.csv")
    theirs = report.for_consortium()
    assert theirs["rows"] == {"read": 1200, "quarantined": 240}  # 1234 and 235
    counts = {(f["rule"], f["column"]): f["count"] for f in theirs["findings"]}
    assert counts["one_of", "unit"] == 230
    assert counts["one_of", "relation"] == counts["finite", "value"] == "<10"  # one and none look the same
    assert "secret-project" not in json.dumps(theirs) + str(report)
    assert "rows" not in theirs["findings"][0]
    ours = report.for_partner()
    assert ours["rows"] == {"read": 1234, "accepted": 999, "quarantined": 235}
    assert [f["rows"] for f in ours["findings"]] == [[1], list(range(1000, 1020))]


@given(count=st.integers(0, 10**15))
def test_published_counts_are_suppressed_or_within_five_per_cent(count):
    shown = published(count)
    if count < 10:
        assert shown == "<10"
    else:
        assert abs(shown - count) <= 0.05 * count
        assert len(str(shown).rstrip("0")) <= 2
