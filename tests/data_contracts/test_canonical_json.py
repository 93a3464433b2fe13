"""Canonical bytes are those of RFC 8785, whichever encoder wrote them."""

import copy
import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.canonical_json import LARGEST_INTEGER, canonical_bytes, parse_canonical
from data_contracts.errors import ProtocolError
from data_contracts.plan import Lane, RoundPlan

INTEGERS = st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
# A whole number from 2^53 on is written, but read as an integer, and as such refused.
FLOATS = st.floats(-LARGEST_INTEGER, LARGEST_INTEGER)
SCALARS = st.none() | st.booleans() | INTEGERS | FLOATS | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_bytes_are_those_of_the_reference(value):
    assert canonical_bytes(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        {'\x7f\x1f\b\t\n\f\r"\\/': '\x7f\x1f\b\t\n\f\r"\\/'},
        {"\U0001f600": 1, "\ufb33": 2},
        {"b": [], "a": {}, "": ""},
        (1, "a"),
        LARGEST_INTEGER,
        -LARGEST_INTEGER,
        1e21,
        -0.0,
    ],
)
def test_so_are_those_of_awkward_values(value):
    assert canonical_bytes(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value", [LARGEST_INTEGER + 1, float("nan"), float("inf"), "\ud800", {1: 2}, {None: 1}, {True: 1}, b"a"]
)
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(Exception) as reference:  # noqa: PT011 - whatever the reference raises
        rfc8785.dumps(value)
    with pytest.raises(reference.type):
        canonical_bytes(value)


@given(VALUES)
def test_a_message_comes_back_and_in_any_other_form_is_refused(value):
    data = canonical_bytes(value)
    assert canonical_bytes(parse_canonical(data, who="a", max_bytes=10**6)) == data
    spaced = json.dumps(value, indent=1).encode()
    if spaced != data:
        with pytest.raises(ProtocolError):
            parse_canonical(spaced, who="a", max_bytes=10**6)


@pytest.mark.parametrize("levels", [100, 400, 600])
def test_deep_nesting_is_written_as_the_reference_writes_it(levels):
    value = {}
    for _ in range(levels):
        value = {"a": value}
    data = canonical_bytes(value)
    assert data == rfc8785.dumps(value)
    assert parse_canonical(data, who="a", max_bytes=10**6) == value


def test_a_copy_of_a_plan_has_a_digest_of_its_own():
    lane = Lane(name="update", length=4, ring_bits=32, value_bits=20, clip=1.0)
    plan = RoundPlan(run_id="run", round=0, study="x", cohort=("a", "b"), threshold=2, lanes=(lane,))
    first = plan.digest
    assert plan.model_copy(deep=True, update={"attempt": 1}).digest != first
    other = plan.model_copy(update={"attempt": 1})
    assert other.digest != first
    assert other.digest == RoundPlan.model_validate_json(other.model_dump_json()).digest
    assert plan == RoundPlan.model_validate_json(plan.model_dump_json())
    assert plan.model_copy() == plan == copy.deepcopy(plan)
    assert "digest" not in copy.deepcopy(plan).__dict__
    assert "digest" not in plan.model_dump()
