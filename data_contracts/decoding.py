"""The process that decodes one foreign file: everything that may crash, hang or blow up happens here.

Why: Arrow decompresses before anyone can look, and damaged files have crashed it; here the kernel caps memory and
time, core dumps are off, and no exception text (they quote values) leaves. Runs: on the partner, as a child of
``reading.py``: job in (JSON, stdin), record batches out (IPC stream, stdout), verdict out (JSON, stderr).
Source: own; "data always assumed valid, call ValidateFull": Arrow's security model (format/Security).
"""

import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.conforming import Others, check_columns, conform
from data_contracts.contract import Contract, Field
from data_contracts.csv_decoding import csv_batches
from data_contracts.errors import ContractViolation
from data_contracts.limits import MEBI, ReadingLimits
from data_contracts.violations import attempt, refusal, source_name

THRIFT_BYTES = 16 * MEBI
CUT_ADVICE = (
    "write the file in smaller batches or row groups, or as several files; do not open files you were sent"
)


def arrow_batches(path: Path, contract: Contract, limits: ReadingLimits, others: Others) -> Iterator[Any]:
    """Yield the record batches of an Arrow IPC file, its schema checked before the first.

    Raises:
        ContractViolation: Columns do not fit, or there are too many batches.
    """
    source = source_name(path)
    reader = pa.ipc.open_file(pa.memory_map(str(path)), options=pa.ipc.IpcReadOptions(use_threads=False))
    _check_width(len(reader.schema), limits, source=source)
    check_columns(reader.schema, contract, source=source, others=others)
    wanted = [name for name in reader.schema.names if name in contract.schema.names]
    _check_count(reader.num_record_batches, limits.max_batches, "record batches", source=source)
    for index in range(reader.num_record_batches):
        batch = reader.get_batch(index)
        yield batch if others == "refused" else batch.select(wanted)


def parquet_batches(path: Path, contract: Contract, limits: ReadingLimits, others: Others) -> Iterator[Any]:
    """Yield record batches of a Parquet file, its schema and footer checked before the first page.

    Raises:
        ContractViolation: Columns do not fit, or the footer announces too many rows or row groups.
    """
    source = source_name(path)
    file = pq.ParquetFile(
        str(path),
        pre_buffer=False,
        page_checksum_verification=True,
        arrow_extensions_enabled=False,
        thrift_string_size_limit=THRIFT_BYTES,
        thrift_container_size_limit=THRIFT_BYTES,
    )
    _check_width(file.metadata.num_columns, limits, source=source)
    check_columns(file.schema_arrow, contract, source=source, others=others)
    wanted = [name for name in file.schema_arrow.names if name in contract.schema.names]
    _check_count(file.metadata.num_row_groups, limits.max_batches, "row groups", source=source)
    _check_count(file.metadata.num_rows, limits.max_rows, "rows", source=source)
    yield from file.iter_batches(batch_size=limits.max_batch_rows, use_threads=False, columns=wanted)


FORMATS: dict[str, Callable[[Path, Contract, ReadingLimits, Others], Iterator[Any]]] = {
    "arrow": arrow_batches,
    "parquet": parquet_batches,
    "csv": csv_batches,
}


def _check_width(columns: int, limits: ReadingLimits, *, source: str) -> None:
    _check_count(columns, limits.max_columns, "columns", source=source)


def _check_count(count: int, limit: int, what: str, *, source: str) -> None:
    if count > limit:
        raise refusal(source, got=f"{count} {what}", expected=f"at most {limit}", advice=CUT_ADVICE)


def decoded_slices(
    path: Path, contract: Contract, limits: ReadingLimits, *, file_format: str, others: Others = "refused"
) -> Iterator[Any]:
    """Yield small, fully validated batches of plain columns, and keep account of what they cost.

    Args:
        path: The foreign file.
        contract: What it must be; only columns and types matter here, rules come later.
        limits: Caps.
        file_format: A key of ``FORMATS``.
        others: What happens to columns that the contract does not have.

    Yields:
        ``pa.RecordBatch`` in the contract's types (numbers of a CSV file as text), at most
        ``max_batch_rows`` rows and ``max_batch_bytes`` bytes each.

    Raises:
        ContractViolation: The file is damaged, costs too much or does not fit.
    """
    source, size = source_name(path), path.stat().st_size
    allowed = limits.decoded_bytes(file_bytes=size)
    rows = spent = 0
    for batch in FORMATS[file_format](path, contract, limits, others):
        damaged = refusal(
            source,
            got=f"a record batch (rows from {rows} on) whose inner structure is invalid",
            expected="Arrow data that passes full validation",
            advice="the file is damaged or its text is not UTF-8: write it again",
        )
        attempt(lambda batch=batch: batch.validate(full=True), otherwise=damaged)  # type: ignore[misc]
        for start in range(0, batch.num_rows, limits.max_batch_rows):
            part = batch.slice(start, limits.max_batch_rows)
            plain = part if file_format == "csv" else conform(part, contract, source=source).batch
            rows, spent = rows + plain.num_rows, spent + plain.nbytes
            _check_count(rows, limits.max_rows, "rows or more", source=source)
            if spent > allowed:
                raise bomb(source, file_bytes=size, limit=allowed)
            yield from _small(plain, limits, source=source)


def _small(batch: Any, limits: ReadingLimits, *, source: str) -> Iterator[Any]:
    """Cut a batch until each part has few enough bytes."""
    if batch.nbytes <= limits.max_batch_bytes:
        yield batch
    elif batch.num_rows == 1:
        expected = f"at most {limits.max_batch_bytes} bytes"
        raise refusal(source, got=f"a row of {batch.nbytes} bytes", expected=expected, advice=CUT_ADVICE)
    else:
        half = batch.num_rows // 2
        yield from _small(batch.slice(0, half), limits, source=source)
        yield from _small(batch.slice(half), limits, source=source)


def bomb(source: str, *, file_bytes: int, limit: int) -> ContractViolation:
    """Word the refusal of a file that grows too much when decoded."""
    return refusal(
        source,
        got=f"a file of {file_bytes} bytes that needs more than {limit // MEBI} MiB when decoded: a decompression bomb?",
        expected="a table whose decoded size is in proportion to its file",
        advice=CUT_ADVICE,
    )


def confine(limits: ReadingLimits, *, file_bytes: int) -> None:
    """Let the kernel cap this process: memory beyond what it has now, processor time, files, core dumps."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    now = pages * resource.getpagesize()
    budget = limits.memory_bytes(file_bytes=file_bytes)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.max_cpu_seconds, limits.max_cpu_seconds))
    if now:
        resource.setrlimit(resource.RLIMIT_AS, (now + file_bytes + budget,) * 2)


def decode(job: dict[str, Any], *, out: BinaryIO) -> dict[str, Any]:
    """Do one job and return the verdict, which never holds anything from the file but counts.

    Args:
        job: ``path``, ``format``, ``contract`` (name, version, fields), ``limits``, ``others``.
        out: Where the IPC stream goes.

    Returns:
        ``{"rows": n}``, or ``{"message": ..., "advice": ...}`` of a refusal.
    """
    path, limits = Path(job["path"]), ReadingLimits(**job["limits"])
    fields = tuple(Field(**field) for field in job["contract"]["fields"])
    contract = Contract(job["contract"]["name"], job["contract"]["version"], fields)
    source = source_name(path)
    size = path.stat().st_size
    confine(limits, file_bytes=size)
    try:
        return {
            "rows": _send(
                decoded_slices(path, contract, limits, file_format=job["format"], others=job["others"]),
                out=out,
            )
        }
    except ContractViolation as violation:
        refused = violation
    except MemoryError:
        refused = bomb(source, file_bytes=size, limit=limits.memory_bytes(file_bytes=size))
    except Exception:  # noqa: BLE001 - hostile bytes may raise anything, and its text may quote them
        refused = refusal(
            source,
            got=f"a file that cannot be read as {job['format']} (truncated or damaged)",
            expected=f"a complete {job['format']} file of {contract.identifier}",
            advice="write the file again and compare its size with the original",
        )
    return {"message": str(refused), "advice": refused.advice}


def _send(batches: Iterator[Any], *, out: BinaryIO) -> int:
    """Write batches as an IPC stream and return the number of rows."""
    rows, writer = 0, None
    for batch in batches:
        writer = writer or pa.ipc.new_stream(pa.PythonFile(out, mode="w"), batch.schema)
        writer.write_batch(batch)
        rows += batch.num_rows
    if writer is not None:
        writer.close()
    out.flush()
    return rows


def main() -> None:
    """Run one job from stdin; foreign text on stderr goes nowhere."""
    report = os.fdopen(os.dup(2), "w")
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    verdict = decode(json.load(sys.stdin), out=sys.stdout.buffer)
    report.write(json.dumps(verdict))
    report.close()
    os._exit(0)  # no finalizers: half-read foreign data must not crash a process that is done


if __name__ == "__main__":
    main()
