"""CSV: nothing guessed, every defect located without being quoted."""

import pytest

from data_contracts.catalogue import ACTIVITIES, ASSAYS, LABELS, STRUCTURES
from data_contracts.errors import ContractViolation
from data_contracts.limits import ReadingLimits
from data_contracts.reading import open_batches
from data_contracts.validation import validate_batches
from tests.data_contracts.tables import CANARY
from tests.data_contracts.test_reading import here, refused

HEADER = b"compound_id,smiles\n"


def csv(tmp_path, content, name="a.csv"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_text_stays_as_written_and_only_an_unquoted_empty_field_is_null(tmp_path):
    content = HEADER + b'007,C\n1e3,NA\ntrue,null\n,""\n"a,b","say ""C"""\n\n  x ,\xc3\xa9\n'
    assert here(csv(tmp_path, content), STRUCTURES).to_pylist() == [
        {"compound_id": "007", "smiles": "C"},
        {"compound_id": "1e3", "smiles": "NA"},
        {"compound_id": "true", "smiles": "null"},
        {"compound_id": None, "smiles": ""},
        {"compound_id": "a,b", "smiles": 'say "C"'},
        {"compound_id": "  x ", "smiles": "é"},
    ]


@pytest.mark.parametrize("content", [
    b"\xef\xbb\xbfcompound_id,smiles\n1,C\n2,N\n",
    b"smiles,compound_id\nC,1\nN,2\n",
    b"compound_id,smiles\r\n1,C\r\n2,N",
    b'"compound_id","smiles"\n"1","C"\n"2","N"\n',
])  # fmt: skip
def test_marks_column_order_line_ends_and_quotes_do_not_matter(tmp_path, content):
    opened = open_batches(csv(tmp_path, content), STRUCTURES)
    rows = [
        row
        for batch in validate_batches(opened, STRUCTURES, quarantine_path=None)
        for row in batch.to_pylist()
    ]
    assert rows == [{"compound_id": "1", "smiles": "C"}, {"compound_id": "2", "smiles": "N"}]


def test_empty_thresholds_are_nulls_and_numbers_are_numbers(tmp_path):
    content = b"assay_id,assay_type,direction,threshold_1,threshold_2\nA,OTHER,high,6.5,\nB,PANEL,low,,7\n"
    batches = list(
        validate_batches(open_batches(csv(tmp_path, content), ASSAYS), ASSAYS, quarantine_path=None)
    )
    assert batches[0].column("threshold_1").to_pylist() == [6.5, None]
    assert batches[0].column("threshold_2").to_pylist() == [None, 7.0]


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (f"{CANARY},CCO\n".encode() * 3, "without compound_id, smiles"),  # no header: its first row must not be quoted
        (b"compound_id;smiles\n1;C\n", "separated by semicolons"),
        (b"compound_id\tsmiles\n1\tC\n", "separated by tabs"),
        (b"\n" + HEADER + b"1,C\n", "0 columns without"),
        (b"compound_id,smiles,x" + CANARY.encode() + b"\n1,C,2\n", "column 3 of 3 with a name"),
        (b"compound_id,smiles,smiles\n1,C,C\n", "column 'smiles' twice"),
        (HEADER + b"1,C\n" + CANARY.encode() + b",C,N\n", "3 fields in line 3"),
        (HEADER + b"1,C\n" + CANARY.encode() + b"\n", "1 fields in line 3"),
        (HEADER + b"1,C\n" + CANARY.encode() + b",C\xe9\n", "a byte in line 3 that is not UTF-8"),
        (HEADER + b"1,C\n2," + b"C" * (1 << 21) + b"\n", "a line longer than"),
        (HEADER.replace(b"s", b"\xe9") + b"1,C\n", "header line that is not UTF-8"),
        ("compound_id,smiles\n1,C\n".encode("utf-16"), "UTF-16"),
        (HEADER.strip(), "one line, without rows"),
        (b",".join(b"c%d" % i for i in range(100)) + b"\n1\n", "100 columns"),
        (b"a,\0\n1,2\n", "without compound_id"),
    ],
)  # fmt: skip
def test_defects_are_refused_by_line_never_by_content(tmp_path, content, got):
    assert got in refused(csv(tmp_path, content), STRUCTURES, limits=ReadingLimits())


def test_a_header_without_rows_is_refused_as_an_empty_table(tmp_path):
    with pytest.raises(ContractViolation, match=r"a\.csv: got a table without rows"):
        list(open_batches(csv(tmp_path, HEADER), STRUCTURES))


def test_a_quote_that_swallows_rows_is_refused_or_set_aside_but_never_accepted(tmp_path):
    content = HEADER + b'1,C\n2,"N\n3,O\n4,S"\n5,F\n'
    validation = validate_batches(
        open_batches(csv(tmp_path, content), STRUCTURES), STRUCTURES, quarantine_path=None
    )
    assert [row["compound_id"] for batch in validation for row in batch.to_pylist()] == ["1", "5"]
    assert [f.rule for f in validation.report.findings if f.count] == ["no_control_characters"]


def test_a_contract_with_integers_or_lists_is_not_read_from_csv(tmp_path):
    path = csv(tmp_path, b"structure_index,endpoint_index,label\n0,0,1\n")
    assert "CSV cannot hold column structure_index" in refused(path, LABELS)


def test_a_refusal_travels_from_the_child_with_its_advice_and_without_a_trace(tmp_path):
    content = b"compound_id,assay_id,relation,value,unit\n" + CANARY.encode() + b",A,=,1,p,9\n"
    with pytest.raises(ContractViolation, match="6 fields in line 2") as caught:
        list(open_batches(csv(tmp_path, content), ACTIVITIES))
    assert "double quotes" in caught.value.advice
    assert caught.value.__context__ is None
