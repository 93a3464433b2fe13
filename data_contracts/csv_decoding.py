"""Decoding of CSV: strict, typed by the contract, nothing guessed.

Why: CSV has no types and no nulls; guessing turns compound "007" into 7 and sodium "NA" into nothing. All columns
come as text here; an unquoted empty field is null, a quoted one is empty text. Runs: inside ``decoding.py``.
Source: RFC 4180, UTF-8 only; own.
"""

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from data_contracts.conforming import Others, check_names
from data_contracts.contract import Contract
from data_contracts.errors import ContractViolation
from data_contracts.limits import MEBI, ReadingLimits
from data_contracts.violations import refusal, source_name

BLOCK_BYTES = MEBI
HEADER_BYTES = 1 << 16
CSV_TYPES = ("string", "float64", "bool")
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def csv_batches(path: Path, contract: Contract, limits: ReadingLimits, others: Others) -> Iterator[Any]:
    """Yield record batches of text columns, named by the header line.

    Args:
        path: CSV file: UTF-8, commas, header line, double quotes, no line breaks inside fields.
        contract: What it must be.
        limits: Caps; here only the number of columns.
        others: What happens to columns that the contract does not have.

    Yields:
        ``pa.RecordBatch`` of string columns.

    Raises:
        ContractViolation: Wrong encoding, separator or header, or a row with another number of fields.
    """
    source = source_name(path)
    other = [field.name for field in contract.fields if field.type not in CSV_TYPES]
    if other:
        expected = f"Parquet or Arrow IPC: CSV cannot hold column {other[0]}"
        raise refusal(source, got=f"a CSV file for {contract.identifier}", expected=expected)
    names = _header(path, contract, limits, others)
    wanted = [name for name in names if name in contract.schema.names]
    uneven: list[tuple[int, int]] = []

    def note(row: Any) -> str:
        uneven.append((row.number, row.actual_columns))
        return "error"

    failed = False
    try:
        reader = pa_csv.open_csv(
            pa.OSFile(str(path)),
            read_options=pa_csv.ReadOptions(
                use_threads=False, block_size=BLOCK_BYTES, skip_rows=1, column_names=names
            ),
            parse_options=pa_csv.ParseOptions(newlines_in_values=False, invalid_row_handler=note),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()),
                null_values=[""],
                include_columns=wanted,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        yield from reader
    except pa.ArrowInvalid:  # its text quotes the row
        failed = True
    if failed:
        raise _reason(path, width=len(names), uneven=uneven)


def _header(path: Path, contract: Contract, limits: ReadingLimits, others: Others) -> list[str]:
    """Read and check the header line."""
    source = source_name(path)
    with path.open("rb") as file:
        line = file.readline(HEADER_BYTES)
        rest = bool(file.read(1))
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _encoding(source, where="a UTF-16 mark at its start")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = None
    if text is None:
        raise _encoding(source, where="a header line that is not UTF-8")
    if not line.endswith((b"\n", b"\r")) and not rest:
        raise refusal(source, got="one line, without rows", expected="a header line and at least one row")
    text = text.splitlines()[0] if text.strip() else ""
    names = next(csv.reader([text]), [])
    if len(names) > limits.max_columns:
        raise refusal(source, got=f"{len(names)} columns", expected=f"at most {limits.max_columns}")
    for separator, word in OTHER_SEPARATORS.items():
        if len(names) == 1 and len(contract.fields) > 1 and separator in text:
            raise refusal(
                source,
                got=f"a header line separated by {word}",
                expected="columns separated by commas",
                advice="export the table as CSV with commas, in UTF-8",
            )
    check_names(names, contract, source=source, others=others)
    return names


def _reason(path: Path, *, width: int, uneven: list[tuple[int, int]]) -> ContractViolation:
    """Find out why a CSV file could not be parsed, without the parser's text, which quotes the row."""
    source = source_name(path)
    if uneven:
        line, found = uneven[0]
        return refusal(
            source,
            got=f"{found} fields in line {line}",
            expected=f"{width} fields, as in the header line",
            advice="a field with a comma or a double quote must stand in double quotes, without line breaks",
        )
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with path.open("rb") as file:
        for block in iter(lambda: file.read(BLOCK_BYTES), b""):
            try:
                decoder.decode(block)
            except UnicodeDecodeError as broken:
                line += block.count(b"\n", 0, broken.start)
                return _encoding(source, where=f"a byte in line {line} that is not UTF-8")
            line += block.count(b"\n")
    return refusal(
        source,
        got=f"a line longer than {BLOCK_BYTES} bytes or an unclosed quote",
        expected="one row in each line",
        advice="a double quote inside a field is written twice",
    )


def _encoding(source: str, *, where: str) -> ContractViolation:
    advice = "export the table as CSV in UTF-8"
    return refusal(source, got=where, expected="a CSV file in UTF-8", advice=advice)
