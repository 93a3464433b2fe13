"""One byte string for a value: what comes back, what is refused, and whose digest it is."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.canonical_json import canonical_bytes, parse_canonical
from data_contracts.errors import ProtocolError
from data_contracts.plan import Lane, RoundPlan

LARGEST_INTEGER = 2**53 - 1
INTEGERS = st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
# A whole number from 2^53 on is written, but read as an integer, and as such refused.
FLOATS = st.floats(-LARGEST_INTEGER, LARGEST_INTEGER)
SCALARS = st.none() | st.booleans() | INTEGERS | FLOATS | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "value", [LARGEST_INTEGER + 1, float("nan"), float("inf"), "\ud800", {1: 2}, {None: 1}, {True: 1}, b"a"]
)
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(ValueError):  # noqa: PT011 - the kinds of ``rfc8785`` are all such
        canonical_bytes(value)


@given(VALUES)
def test_a_message_comes_back_and_in_any_other_form_is_refused(value):
    data = canonical_bytes(value)
    assert canonical_bytes(parse_canonical(data, who="a", max_bytes=10**6)) == data
    spaced = json.dumps(value, indent=1).encode()
    if spaced != data:
        with pytest.raises(ProtocolError):
            parse_canonical(spaced, who="a", max_bytes=10**6)


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
