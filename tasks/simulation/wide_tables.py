"""Reading of a public wide table: one SMILES column and one numeric column per target.

Why: public benchmarks (MoleculeNet and its kin) come in this shape; motet works on long tables with one row per
measurement. Runs: anywhere. Source: own; the caps are those of data_contracts/limits.py in spirit.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from data_contracts.catalogue import MAX_SMILES_CHARACTERS
from data_contracts.errors import SettingsError

SMILES_NAMES = ("smiles", "canonical_smiles", "structure")
ID_NAMES = ("mol_id", "compound_id", "molecule_id", "id", "index", "name", "split", "fold", "")
MAX_COLUMNS = 20_000
MAX_DECODED_BYTES = 4 * 2**30
MAX_EXPANSION = 200  # decoded bytes for each byte on disk, beyond the free part
FREE_DECODED_BYTES = 256 * 2**20
BLOCK_BYTES = 4 * 2**20
BATCH_ROWS = 1024
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
CONTROL_CHARACTER = r"\pC"
WIDE_ADVICE = (
    "expected CSV (also .csv.gz) or Parquet with a column `smiles` and one numeric column per target"
)

Numbers = tuple[
    npt.NDArray[np.int64], npt.NDArray[np.float64], int
]  # rows, values, entries that are no number


@dataclass(frozen=True)
class WideTable:
    """A wide table in long form.

    Attributes:
        smiles: One SMILES a row, never empty; length ``n_rows``.
        row_ids: The table's own ids, or None.
        targets: Names of the numeric columns.
        row: Row of each value, shape ``(n_values,)``.
        target: Target of each value, same shape.
        value: The value, finite, same shape.
        left_out: What did not come in, as counts by reason.
    """

    smiles: tuple[str, ...]
    row_ids: tuple[str, ...] | None
    targets: tuple[str, ...]
    row: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    left_out: dict[str, int]


def read_wide_table(
    path: Path,
    *,
    smiles_column: str | None = None,
    id_column: str | None = None,
    ignored: Sequence[str] = (),
) -> WideTable:
    """Read a wide table.

    Args:
        path: CSV, gzip-compressed CSV or Parquet, recognised by content.
        smiles_column: Column of structures; by default ``smiles`` in any case.
        id_column: Column of compound ids; by default the rows are numbered.
        ignored: Numeric columns that are no targets. Usual names of ids and splits are ignored anyway.

    Returns:
        The values in long form. Text in a numeric column and non-finite numbers count as left out.

    Raises:
        SettingsError: If the file is no such table.
    """
    columns = _columns(path)
    smiles_name = _smiles_name(list(columns), smiles_column, path=path)
    if id_column is not None and id_column not in columns:
        raise SettingsError(
            f"{path.name} has no column '{id_column}'", advice="check the name of the id column"
        )
    smiles = pc.utf8_trim_whitespace(_text(columns[smiles_name]))
    present = _usable_structures(smiles)
    found, not_numeric = _target_columns(columns, skipped={smiles_name, id_column, *ignored})
    kept = {name: present[rows] for name, (rows, _, _) in found.items()}
    if not any(mask.any() for mask in kept.values()):
        raise SettingsError(
            f"{path.name} has no numeric target column with a value; it has {len(columns)} columns",
            advice=WIDE_ADVICE,
        )
    row_after = np.cumsum(present) - 1
    keep = pa.array(present)
    return WideTable(
        smiles=tuple(smiles.filter(keep).to_pylist()),
        row_ids=None if id_column is None else tuple(_text(columns[id_column]).filter(keep).to_pylist()),
        targets=tuple(found),
        row=np.concatenate([row_after[rows[kept[name]]] for name, (rows, _, _) in found.items()]),
        target=np.repeat(np.arange(len(found)), [mask.sum() for mask in kept.values()]),
        value=np.concatenate([values[kept[name]] for name, (_, values, _) in found.items()]),
        left_out={
            "rows without a usable structure": int((~present).sum()),
            "values that are not numbers": sum(bad for _, _, bad in found.values()),
            "columns that are not numeric": not_numeric,
        },
    )


def _usable_structures(smiles: Any) -> npt.NDArray[np.bool_]:
    """Neither empty nor longer than the contract allows, and without control characters."""
    length = pc.utf8_length(smiles).to_numpy()
    odd = pc.match_substring_regex(smiles, CONTROL_CHARACTER).to_numpy()
    usable: npt.NDArray[np.bool_] = (length > 0) & (length <= MAX_SMILES_CHARACTERS) & ~odd
    return usable


def _target_columns(columns: dict[str, Any], *, skipped: set[str | None]) -> tuple[dict[str, Numbers], int]:
    found: dict[str, Numbers] = {}
    not_numeric = 0
    for name, column in columns.items():
        if name in skipped or name.strip().lower() in ID_NAMES:
            continue
        numbers = _numbers(column)
        if numbers is None:
            not_numeric += 1
        else:
            found[name] = numbers
    return found, not_numeric


def _refuse(path: Path, got: str, *, advice: str = WIDE_ADVICE) -> NoReturn:
    raise SettingsError(f"{path.name}: {got}", advice=advice)


def _smiles_name(names: Sequence[str], wanted: str | None, *, path: Path) -> str:
    if wanted is not None:
        if wanted not in names:
            _refuse(path, f"there is no column '{wanted}'", advice="check the name of the structure column")
        return wanted
    found = next((name for usual in SMILES_NAMES for name in names if name.strip().lower() == usual), None)
    if found is None:
        _refuse(path, f"none of the {len(names)} columns is called `smiles`")
    return found


def _columns(path: Path) -> dict[str, Any]:
    """Read all columns, as text (CSV) or as typed (Parquet), refusing what is no table or grows too much."""
    if not path.is_file():
        _refuse(path, "there is no such file", advice="check the path")
    if path.stat().st_size == 0:
        _refuse(path, "the file is empty (0 bytes)")
    failed = False
    batches: list[Any] = []
    try:
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        allowed = min(max(FREE_DECODED_BYTES, MAX_EXPANSION * path.stat().st_size), MAX_DECODED_BYTES)
        spent = 0
        for batch in _parquet_batches(path) if parquet else _csv_batches(path):
            spent += batch.nbytes
            if spent > allowed:
                _refuse(path, f"needs more than {allowed >> 20} MiB when decoded: a decompression bomb?")
            batches.append(batch)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error):
        failed = True  # their texts quote the row
    if failed:
        _refuse(path, "cannot be read as a table (damaged, truncated, or rows of different length)")
    if not sum(batch.num_rows for batch in batches):
        _refuse(path, "the table has no rows")
    table = pa.Table.from_batches(batches)
    return dict(zip(table.column_names, table.columns, strict=True))


def _check_names(names: Sequence[str], *, path: Path) -> None:
    if len(names) > MAX_COLUMNS:
        _refuse(path, f"{len(names)} columns, at most {MAX_COLUMNS} are read")
    if len(set(names)) != len(names):
        _refuse(path, "a column name repeats; expected every name once")


def _parquet_batches(path: Path) -> Iterator[Any]:
    file = pq.ParquetFile(
        path, pre_buffer=False, page_checksum_verification=True, arrow_extensions_enabled=False
    )
    _check_names(file.schema_arrow.names, path=path)
    for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
        batch.validate(full=True)
        yield batch


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")  # type: ignore[return-value]


def _csv_batches(path: Path) -> Iterator[Any]:
    with _opened(path) as file:
        line = file.readline(BLOCK_BYTES).decode("utf-8-sig")
    names = next(csv.reader(io.StringIO(line)), [])
    _check_names(names, path=path)
    with _opened(path) as file:
        yield from pa_csv.open_csv(
            pa.PythonFile(file, mode="r"),
            read_options=pa_csv.ReadOptions(
                use_threads=False, block_size=BLOCK_BYTES, skip_rows=1, column_names=names
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=["", "NA", "N/A", "NaN", "nan", "null", "None"],
                strings_can_be_null=True,
            ),
        )


def _text(column: Any) -> Any:
    return pc.fill_null(column.cast(pa.string()), "")


def _numbers(column: Any) -> Numbers | None:
    """Rows and values of a numeric column, and how many entries are no finite number; None if it is not numeric."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        filled = column.is_valid()
        good = pc.and_(filled, pc.fill_null(pc.match_substring_regex(column, NUMBER), False))
        n_good, n_filled = pc.sum(good).as_py() or 0, pc.sum(filled).as_py() or 0
        if 2 * n_good < n_filled:
            return None
        rows = np.flatnonzero(good.to_numpy())
        numbers = pc.utf8_trim_whitespace(column.filter(good)).cast(pa.float64()).to_numpy()
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        filled = column.is_valid()
        rows = np.flatnonzero(filled.to_numpy())
        numbers = column.filter(filled).cast(pa.float64()).to_numpy()
        n_filled = len(rows)
    else:
        return None
    finite = np.isfinite(numbers)
    return rows[finite], numbers[finite], n_filled - int(finite.sum())
