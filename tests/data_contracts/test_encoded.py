"""Dictionary-encoded text is judged as plain text is, and costs no second pass over the rows."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.catalogue import ACTIVITIES
from data_contracts.checks import failing
from data_contracts.encoded import ByDictionary
from data_contracts.rules import OneOf
from data_contracts.validation import Texts, validate_batches
from tests.data_contracts.tables import EVERY_RULE, KNOWN, ROWS, activities, as_table


def encoded(table: Any) -> Any:
    """Encode every text column, each batch with a dictionary of its own."""
    columns = {
        name: table.column(name).dictionary_encode()
        if table.schema.field(name).type == pa.string()
        else table.column(name)
        for name in table.schema.names
    }
    return pa.table(columns)


def judged(batches: list[Any], *, texts: Texts = "plain") -> tuple[list[Any], tuple[Any, ...], list[Any]]:
    validation = validate_batches(
        batches,
        EVERY_RULE,
        quarantine_path=None,
        max_bad_fraction=1.0,
        known_keys={"text": KNOWN},
        texts=texts,
    )
    accepted = list(validation)
    rows = [row for batch in accepted for row in batch.to_pylist()]
    return rows, validation.report.findings, [batch.schema for batch in accepted]


@settings(deadline=None)
@given(ROWS, st.integers(1, 5))
def test_encoded_text_is_judged_as_plain_text(rows: list[dict[str, Any]], size: int) -> None:
    table = as_table(rows, EVERY_RULE)
    plain = judged(table.to_batches(max_chunksize=size))
    parts = [
        batch
        for start in range(0, len(rows), size)
        for batch in encoded(table.slice(start, size)).to_batches()
    ]
    assert judged(parts) == plain
    rows_kept, findings, _ = judged(parts, texts="encoded")
    assert (rows_kept, findings) == plain[:2]


def test_text_stays_encoded_only_where_that_is_asked_for() -> None:
    batches = encoded(activities()).to_batches()
    plain = next(iter(validate_batches(batches, ACTIVITIES, quarantine_path=None)))
    assert plain.schema == ACTIVITIES.schema
    kept = next(iter(validate_batches(batches, ACTIVITIES, quarantine_path=None, texts="encoded")))
    assert pa.types.is_dictionary(kept.schema.field("assay_id").type)
    assert kept.to_pylist() == plain.to_pylist()


@pytest.mark.parametrize("same", [True, False])
def test_a_dictionary_is_judged_once_while_it_stays_the_same(*, same: bool) -> None:
    calls: list[int] = []
    rule = OneOf("kind", ("p",))

    def check(batch: Any) -> Any:
        calls.append(batch.num_rows)
        return failing(rule, batch)

    by_dictionary = ByDictionary(check, "kind")
    column = pa.array(["p", "q", "p", "p"]).dictionary_encode()
    other = column if same else pa.array(["q", "p"]).dictionary_encode()
    parts = [pa.record_batch([part], names=["kind"]) for part in (column.slice(0, 2), column.slice(2), other)]
    masks = [by_dictionary(part) for part in parts]
    assert [None if mask is None else mask.tolist() for mask in masks] == [
        [False, True],
        None,
        [False, True, False, False] if same else [True, False],
    ]
    assert calls == ([2] if same else [2, 2])


def test_a_null_inside_a_dictionary_counts_as_a_null() -> None:
    hidden = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1, 0, 0]), pa.array(["A1", None]))
    table = activities().set_column(1, "assay_id", hidden)
    validation = validate_batches(table.to_batches(), ACTIVITIES, quarantine_path=None)
    assert sum(batch.num_rows for batch in validation) == 3
    assert {f.rule: f.count for f in validation.report.findings if f.count} == {"required": 2}
