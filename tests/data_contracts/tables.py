"""Tables for the tests of the contract engine, and the slow oracle that its masks are compared with."""

import math
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from hypothesis import strategies as st

from data_contracts import rules
from data_contracts.contract import Contract, Field

CANARY = "CANARY7x9"  # stands for a compound id or a structure
CANARY_NUMBER = 8675309.125  # stands for an activity value
KNOWN = pa.array(["a", "b", "aaaaaaaab", None])

EVERY_RULE = Contract(
    name="every_rule",
    version="1.0.0",
    fields=(
        Field("text", "string", nullable=True),
        Field("kind", "string"),
        Field("number", "float64", nullable=True),
        Field("count", "int32"),
        Field("position", "int32", nullable=True),
        Field("flag", "bool", nullable=True),
        Field("bits", "list<uint16>", nullable=True),
    ),
    key=("text", "count"),
    rules=(
        rules.LengthBetween("text", 1, 9),
        rules.NoControlCharacters("text"),
        rules.Matches("text", "[ab]+|é*"),
        rules.KnownIn("text", "others", "text"),
        rules.OneOf("kind", ("p", "nM", "12345678")),
        rules.OneOf("text", ("a", "a-long-value")),
        rules.OneOf("count", (0, 1, 2)),
        rules.Between("number", -1.0, 2.0),
        rules.Between("count", None, 2),
        rules.BetweenWhen("number", 0.0, None, when="kind", among=("nM",)),
        rules.Finite("number"),
        rules.RequiredWhen("text", flag="flag", state=True),
        rules.SortedUniqueBelow("bits", 100),
        rules.RowNumber("position"),
        rules.StrictlyIncreasing(("count", "position")),
    ),
)

TEXTS = [
    "a",
    "b",
    "",
    "ab",
    "aaaaaaaa",
    "aaaaaaaab",
    "aaaaaaaaab",
    "a\x00",
    "é",
    "éééééééééé",
    "a\nb",
    "\x7f",
    "x" * 300,
]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.one_of(st.none(), st.sampled_from(TEXTS)),
            "kind": st.one_of(
                st.none(), st.sampled_from(["p", "nM", "12345678", "123456789", "p\x00", "", "q"])
            ),
            "number": st.one_of(
                st.none(), st.sampled_from([-1.0, 2.0, -0.5, 3.0, math.nan, math.inf, -math.inf])
            ),
            "count": st.one_of(st.none(), st.integers(-1, 4)),
            "position": st.one_of(st.none(), st.integers(0, 12)),
            "flag": st.one_of(st.none(), st.booleans()),
            "bits": st.one_of(
                st.none(), st.lists(st.sampled_from([0, 1, 2, 99, 100, 65535, None]), max_size=4)
            ),
        }
    ),
    max_size=12,
)


def as_table(rows: list[dict[str, Any]], contract: Contract) -> Any:
    """Build a table of a contract's types, without its nullability, so that it may break every rule."""
    schema = pa.schema([(field.name, field.arrow_type) for field in contract.fields])
    return pa.Table.from_pylist(rows, schema=schema)


def activities(count: int = 5, **replaced: list[Any]) -> Any:
    """Build a valid table of activities; named columns may be replaced."""
    columns: dict[str, list[Any]] = {
        "compound_id": [f"C{i:03d}" for i in range(count)],
        "assay_id": ["A1"] * count,
        "relation": ["="] * count,
        "value": [6.5] * count,
        "unit": ["p"] * count,
        "measured_on": pa.array(["2020-02-29"] * count),
    }
    return pa.table(columns | replaced)


def write(table: Any, path: Path, **options: Any) -> Path:
    """Write a table in the format that the suffix names."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, **options)
    elif path.suffix == ".csv":
        pa_csv.write_csv(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema, **options) as writer:
            writer.write_table(table)
    return path


def oracle(rule: rules.Rule, rows: list[dict[str, Any]], *, known: Any = KNOWN) -> list[bool]:
    """Return, row by row and slowly, which rows break a rule."""
    known_values = {value for value in known.to_pylist() if value is not None}
    seen: set[tuple[Any, ...]] = set()
    broken = []
    for index, row in enumerate(rows):
        values = tuple(row[column] for column in rule.columns)
        if isinstance(rule, rules.Unique):
            broken.append(None not in values and values in seen)
            seen.add(values)
        elif isinstance(rule, rules.StrictlyIncreasing):
            now, before = (tuple(r[c] or 0 for c in rule.columns) for r in (row, rows[max(index - 1, 0)]))
            broken.append(index > 0 and now <= before)
        elif isinstance(rule, rules.Required):
            broken.append(values[0] is None)
        elif isinstance(rule, rules.RequiredWhen):
            broken.append(values[0] is None and row[rule.flag] is rule.state)
        elif isinstance(rule, rules.RowNumber):
            broken.append(values[0] is not None and values[0] != index)
        elif isinstance(rule, rules.KnownIn):
            broken.append(values[0] is not None and values[0] not in known_values)
        else:
            broken.append(values[0] is not None and not keeps(rule, values[0], row))
    return broken


def keeps(rule: Any, value: Any, row: dict[str, Any]) -> bool:  # noqa: PLR0911 - one answer for each rule
    """Whether one value that is not null keeps a rule that looks at one row only."""
    match rule:
        case rules.OneOf():
            return value in rule.values
        case rules.Between():
            return inside(rule, value)
        case rules.BetweenWhen():
            return row[rule.when] not in rule.among or inside(rule, value)
        case rules.Finite():
            return math.isfinite(value)
        case rules.Matches():
            return re.fullmatch(rule.pattern, value) is not None
        case rules.LengthBetween():
            return rule.minimum <= len(value) <= rule.maximum
        case rules.NoControlCharacters():
            return all(ord(c) >= 32 and ord(c) != 127 for c in value)
        case rules.SortedUniqueBelow():
            return None not in value and sorted(set(value)) == value and all(v < rule.bound for v in value)
    raise AssertionError(f"the oracle does not know {rule.kind}")


def inside(rule: Any, value: float) -> bool:
    """Whether a number lies in a rule's closed interval."""
    low = -math.inf if rule.minimum is None else rule.minimum
    return low <= value <= (math.inf if rule.maximum is None else rule.maximum)
