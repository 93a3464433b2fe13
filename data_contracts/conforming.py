"""Bringing a foreign table's columns to the contract's order and types, without losing anything.

Why: partners write large strings, dictionaries, float32 or columns in another order; all that is harmless, so it
is accepted, and everything else is refused by name before a row is looked at. Runs: anywhere. Source: own.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.columns import Bools, bools, numbers, valid_rows
from data_contracts.contract import Contract, Field
from data_contracts.encoded import decoded, is_encoded
from data_contracts.violations import attempt, refusal

NUMBER_TEXT = r"\A[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?\z"
TRUE_WORDS, FALSE_WORDS = ("true", "yes", "1"), ("false", "no", "0")
NUMBER_ADVICE = "write whole numbers below 2^53, or decimal numbers, into this column"


@dataclass(frozen=True)
class Conformed:
    """A batch in the contract's types.

    Attributes:
        batch: ``pa.RecordBatch`` with the contract's schema, but that text may be dictionary-encoded.
        unreadable: Column -> True (n,) where text is not a number; the batch holds null there.
    """

    batch: Any
    unreadable: dict[str, Bools] = field(default_factory=dict)


Others = Literal["refused", "passed over"]


def check_columns(
    schema: Any, contract: Contract, *, source: str, text: bool = False, others: Others = "refused"
) -> None:
    """Compare names and types of a table with the contract, before any row is read.

    Args:
        schema: ``pa.Schema`` as found.
        contract: What is expected.
        source: Name of the file or table, for the refusal.
        text: Whether numbers may come as text, as in CSV.
        others: What happens to columns that the contract does not have; where they are passed over, as imports do,
            whole numbers are names too.

    Raises:
        ContractViolation: Missing, unknown or repeated column, or a type that does not fit. Names of unknown
            columns are withheld: a CSV file without a header has data for names.
    """
    names: list[str] = list(schema.names)
    check_names(names, contract, source=source, others=others)
    for declared in contract.fields:
        if declared.name in names:
            found = schema.field(declared.name).type
            as_name = others == "passed over" and declared.type == "string" and pa.types.is_integer(found)
            if not as_name and not _accepted(found, declared, text=text):
                raise refusal(
                    source,
                    got=f"column '{declared.name}' of type {type_name(found)}",
                    expected=f"{declared.type} ({contract.identifier})",
                    advice=f"write column '{declared.name}' as {declared.type} and hand the file in again",
                )


def check_names(names: list[str], contract: Contract, *, source: str, others: Others = "refused") -> None:
    """Compare column names with the contract; order does not matter.

    Raises:
        ContractViolation: Missing, unknown or repeated column.
    """
    declared = {field.name: field for field in contract.fields}
    columns = ", ".join(declared)
    missing = [name for name, column in declared.items() if name not in names and not column.optional]
    if missing:
        raise refusal(
            source,
            got=f"{len(names)} columns without {', '.join(missing)}",
            expected=f"the columns {columns} ({contract.identifier})",
            advice="add the missing column; a CSV file needs a header line with these names",
        )
    for position, name in enumerate(names):
        if name not in declared and others == "refused":
            raise refusal(
                source,
                got=f"column {position + 1} of {len(names)} with a name that the contract does not have",
                expected=f"only the columns {columns} ({contract.identifier})",
                advice="remove the extra column: what is not needed must not leave your database",
            )
        if name in declared and name in names[:position]:
            raise refusal(
                source,
                got=f"column '{name}' twice",
                expected=f"each of the columns {columns} once ({contract.identifier})",
                advice="remove one of the two columns",
            )


def conform(batch: Any, contract: Contract, *, source: str) -> Conformed:
    """Bring a batch to the contract's schema, all columns plain; see ``conform_encoded``."""
    conformed = conform_encoded(batch, contract, source=source)
    return Conformed(decoded(conformed.batch), conformed.unreadable)


def conform_encoded(batch: Any, contract: Contract, *, source: str) -> Conformed:
    """Bring a batch to the contract's schema; dictionary-encoded text stays so.

    Args:
        batch: ``pa.RecordBatch`` that ``check_columns`` and ``validate(full=True)`` have accepted.
        contract: Target.
        source: Name of the file or table, for the refusal.

    Returns:
        The batch, and where text could not be read as a number.

    Raises:
        ContractViolation: A number cannot be held by the contract's type without loss.
    """
    if batch.schema.equals(contract.schema):
        return Conformed(batch.replace_schema_metadata(contract.schema.metadata))
    arrays, unreadable, schema = [], {}, contract.schema
    for index, declared in enumerate(contract.fields):
        if declared.name not in batch.schema.names:
            arrays.append(pa.nulls(batch.num_rows, declared.arrow_type))
            continue
        array = batch.column(declared.name)
        if _stays_encoded(array, declared):
            schema = schema.set(index, schema.field(index).with_type(array.type))
        elif pa.types.is_string(array.type) and declared.type in PARSERS:
            array, bad = PARSERS[declared.type](array)
            if bad is not None:
                unreadable[declared.name] = bad
        elif array.type != declared.arrow_type:
            array = _cast(array, declared, source=source)
        arrays.append(array)
    return Conformed(pa.RecordBatch.from_arrays(arrays, schema=schema), unreadable)


def _stays_encoded(array: Any, declared: Field) -> bool:
    """Whether a column is a dictionary whose texts can be judged in the place of its rows."""
    return bool(
        declared.type == "string"
        and is_encoded(array)
        and pa.types.is_string(array.type.value_type)
        and not array.dictionary.null_count
    )


def type_name(found: Any) -> str:
    """Name an Arrow type without field names, which may come from the data."""
    if isinstance(found, pa.BaseExtensionType):
        return "extension"
    if pa.types.is_dictionary(found):
        return f"dictionary<{type_name(found.value_type)}>"
    if pa.types.is_list(found) or pa.types.is_large_list(found):
        return f"list<{type_name(found.value_type)}>"
    return "nested" if pa.types.is_nested(found) else str(found)


def _accepted(found: Any, declared: Field, *, text: bool) -> bool:
    """Whether a found type holds what the contract wants, perhaps after a lossless cast."""
    if isinstance(found, pa.BaseExtensionType):
        return False
    if pa.types.is_null(found):
        return declared.nullable
    return bool(
        _is_acceptable(found, declared.type) or (text and declared.type in PARSERS and found == pa.string())
    )


def _is_acceptable(found: Any, wanted: str) -> bool:
    """Whether a plain Arrow type may stand for a type of the contract vocabulary."""
    types = pa.types
    if wanted == "string":
        plain = found.value_type if types.is_dictionary(found) else found
        return bool(types.is_string(plain) or types.is_large_string(plain))
    if wanted == "float64":
        return bool(types.is_float64(found) or types.is_float32(found) or types.is_integer(found))
    if wanted == "list<uint16>":
        return bool(types.is_list(found) and found.value_type == pa.uint16())
    return bool(types.is_integer(found) if wanted.startswith("int") else types.is_boolean(found))


def _cast(array: Any, declared: Field, *, source: str) -> Any:
    """Cast without loss, or refuse the table."""
    loss = refusal(
        source,
        got=f"column '{declared.name}' of type {type_name(array.type)} with content that {declared.type} cannot hold",
        expected=f"content that fits {declared.type} without loss",
        advice=NUMBER_ADVICE,
    )
    return attempt(lambda: pc.cast(array, declared.arrow_type, safe=True), otherwise=loss)


def _parsed(array: Any) -> tuple[Any, Bools | None]:
    """Read text as float64; where it is no finite number, null and True in the mask.

    The first cast is an optimistic one: only where it fails or meets an infinity is each text looked at.
    """
    try:
        parsed = pc.cast(array, pa.float64())
    except pa.ArrowInvalid:  # its text quotes the value, so nothing is raised from here
        parsed = None
    if parsed is not None and np.isfinite(numbers(parsed)).all():
        return parsed, None
    readable = bools(pc.match_substring_regex(array, NUMBER_TEXT))
    parsed = pc.cast(pc.if_else(pa.array(readable), array, pa.scalar(None, pa.string())), pa.float64())
    readable &= np.isfinite(numbers(parsed))
    bad = ~readable & valid_rows(array)
    if not bad.any():
        return parsed, None
    return pc.if_else(pa.array(readable), parsed, pa.scalar(None, pa.float64())), bad


def _parsed_flag(array: Any) -> tuple[Any, Bools | None]:
    """Read text as bool; where it is none, null and True in the mask."""
    word = pc.utf8_lower(pc.utf8_trim_whitespace(array))
    yes, no = (pc.is_in(word, value_set=pa.array(words)) for words in (TRUE_WORDS, FALSE_WORDS))
    parsed = pc.if_else(pc.or_(yes, no), yes, pa.scalar(None, pa.bool_()))
    bad = ~bools(pc.or_(yes, no)) & valid_rows(array)
    return parsed, bad if bad.any() else None


PARSERS = {"float64": _parsed, "bool": _parsed_flag}
"""How text of a CSV file is read as the types that CSV does not have."""
