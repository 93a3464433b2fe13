"""Every rule's mask, against a slow oracle; declarations that contradict themselves."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_contracts import rules
from data_contracts.checks import checks_for, failing
from data_contracts.contract import Contract, Field
from data_contracts.description import SENTENCES, describe
from tests.data_contracts.tables import EVERY_RULE, KNOWN, ROWS, as_table, oracle

NOTHING = dict.fromkeys(("text", "kind", "number", "count", "position", "flag", "bits"))


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, batch_rows=st.integers(1, 12))
@example(rows=[NOTHING], batch_rows=1)
@example(rows=[NOTHING | {"bits": []}, NOTHING | {"bits": [5]}, NOTHING | {"bits": [5, 5]}], batch_rows=2)
def test_every_mask_agrees_with_the_row_wise_oracle_however_the_rows_are_batched(rows, batch_rows):
    pairs, unchecked = checks_for(EVERY_RULE.all_rules, known_keys={"text": KNOWN})
    assert unchecked == ()
    masks = {rule: [] for rule, _ in pairs}
    for batch in as_table(rows, EVERY_RULE).to_batches(max_chunksize=batch_rows):
        for rule, check in pairs:
            mask = check(batch)
            assert mask is None or mask.any()
            masks[rule] += [False] * batch.num_rows if mask is None else mask.tolist()
    for rule in EVERY_RULE.all_rules:
        assert masks[rule] == oracle(rule, rows), rule


def test_the_test_contract_and_the_description_cover_the_whole_vocabulary():
    vocabulary = {c for base in (rules.ColumnRule, rules.ColumnsRule) for c in base.__subclasses__()}
    assert {type(rule) for rule in EVERY_RULE.all_rules} == vocabulary == set(SENTENCES)
    text = describe(EVERY_RULE)
    assert EVERY_RULE.digest in text
    assert all(f"| {field.name} |" in text for field in EVERY_RULE.fields)
    assert "- text + count is never repeated" in text
    assert r"matches [ab]+\|é*" in text  # a bar would break the table


def test_a_rule_without_a_check_is_refused_rather_than_passed():
    with pytest.raises(NotImplementedError, match="no check"):
        failing(rules.Rule(), pa.record_batch({"a": [1]}))


def test_an_interval_open_at_both_ends_still_refuses_nothing_but_what_finite_refuses():
    batch = pa.record_batch({"a": np.array([1.0, np.nan])})
    assert failing(rules.Between("a", None, None), batch) is None
    assert failing(rules.Finite("a"), batch).tolist() == [False, True]


@pytest.mark.parametrize(
    ("fields", "declared", "key", "reason"),
    [
        ([Field("a", "string")], [rules.Finite("a")], (), "cannot judge"),
        ([Field("a", "string")], [rules.Finite("b")], (), "cannot judge"),
        ([Field("a", "string"), Field("a", "string")], [], (), "different names"),
        ([], [], (), "must exist"),
        ([Field("a", "float64")], [], ("a",), "key column"),
        ([Field("a", "string")], [], ("b",), "key column"),
        ([Field("a", "string")], [rules.Required("a")], (), "declared twice"),
        ([Field("a", "int32"), Field("b", "int32"), Field("c", "int32")], [rules.StrictlyIncreasing(("a", "b", "c"))], (), "one or two"),
        ([Field("a", "string"), Field("b", "string")], [rules.RequiredWhen("a", flag="b", state=True)], (), "bool column"),
    ],
)  # fmt: skip
def test_a_contract_that_contradicts_itself_cannot_be_declared(fields, declared, key, reason):
    with pytest.raises(ValueError, match=reason):
        Contract(name="c", version="1.0.0", fields=tuple(fields), rules=tuple(declared), key=key)


@pytest.mark.parametrize("make", [
    lambda: Field("A", "string"),
    lambda: Field("a", "decimal"),
    lambda: Field("a", "string", optional=True),
    lambda: Contract(name="C", version="1.0.0", fields=(Field("a", "string"),)),
    lambda: Contract(name="c", version="1.0", fields=(Field("a", "string"),)),
])  # fmt: skip
def test_malformed_names_types_and_versions_cannot_be_declared(make):
    with pytest.raises(ValueError, match=r"name|type|nullable|version"):
        make()
