"""Reading of files that motet did not write: Parquet, Arrow IPC or CSV, as a stream of small batches.

Why: a foreign file may be truncated, hostile or a decompression bomb; it is recognised here by its first bytes
and decoded in a confined child process (decoding.py), so that the worst outcome is a named refusal.
Runs: on the partner. Source: own.
"""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, Self

import pyarrow as pa

from data_contracts.conforming import Others
from data_contracts.contract import Contract
from data_contracts.errors import ContractViolation
from data_contracts.limits import ReadingLimits
from data_contracts.violations import attempt, refusal, source_name

MAGIC_BYTES = 8
MAX_VERDICT_BYTES = 1 << 16
ACCEPTED = "a Parquet, Arrow IPC or CSV file"
MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow"}
FOREIGN_MAGIC = {
    b"PARE": "an encrypted Parquet file",
    b"FEA1": "a Feather version 1 file",
    b"\xff\xff\xff\xff": "an Arrow IPC stream, not an Arrow IPC file",
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\x1f\x8b": "a gzip-compressed file",
    b"\x28\xb5\x2f\xfd": "a zstd-compressed file",
    b"BZh": "a bzip2-compressed file",
    b"\x89HDF": "an HDF5 file",
}
SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow"}
KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")
BOOT = "import sys; sys.path.append(sys.argv[1]); from data_contracts.decoding import main; main()"


class Reading:
    """Iterates over the batches of one foreign file; hand it to ``validate_batches`` and to nothing else.

    Attributes:
        source: Base name of the file.
    """

    def __init__(self, path: Path, contract: Contract, *, limits: ReadingLimits, others: Others) -> None:
        """Recognise the file; see ``open_batches``."""
        self.source = source_name(path)
        file_format = recognise(path, limits=limits)
        self._batches = _stream(path, contract, limits=limits, file_format=file_format, others=others)

    def __iter__(self) -> Self:
        """Return itself: the stream can be walked once."""
        return self

    def __next__(self) -> Any:
        """Return the next batch."""
        return next(self._batches)

    def close(self) -> None:
        """Stop early and end the decoding process."""
        self._batches.close()


def open_batches(
    path: Path, contract: Contract, *, limits: ReadingLimits | None = None, others: Others = "refused"
) -> Reading:
    """Open a foreign file as a stream of record batches.

    Args:
        path: Parquet, Arrow IPC file or CSV, recognised by content; CSV by its suffix ``.csv``.
        contract: What the file must be: columns and types are checked here, rules by ``validate_batches``.
        limits: Caps on size, rows, memory and time.
        others: What happens to columns that the contract does not have; imports pass them over.

    Returns:
        Iterator over ``pa.RecordBatch`` objects in row order. The types are the contract's, but numbers of a CSV
        file still come as text. No batch is trustworthy before ``validate_batches``.

    Raises:
        ContractViolation: At once: absent, empty, too large, truncated or of unknown format. While iterating:
            damaged, wrong columns or types, no rows, or more memory, time or decoded bytes than allowed.
    """
    return Reading(path, contract, limits=limits or ReadingLimits(), others=others)


def recognise(path: Path, *, limits: ReadingLimits) -> str:
    """Tell a file's format by its first and last bytes.

    Returns:
        ``parquet``, ``arrow`` or ``csv``.

    Raises:
        ContractViolation: Absent, no regular file, empty, too large, truncated, or of no accepted format.
    """
    source = source_name(path)
    absent = refusal(
        source, got="no readable file", expected=ACCEPTED, advice="check the path and its permissions"
    )
    status = attempt(path.stat, otherwise=absent)
    if not stat.S_ISREG(status.st_mode):
        raise refusal(
            source, got="a directory or device", expected=ACCEPTED, advice="give the path of a file"
        )
    if status.st_size == 0:
        raise refusal(
            source, got="an empty file (0 bytes)", expected=ACCEPTED, advice="export the table again"
        )
    if status.st_size > limits.max_file_bytes:
        raise refusal(
            source, got=f"{status.st_size} bytes", expected=f"at most {limits.max_file_bytes} bytes"
        )
    head, tail = attempt(lambda: _ends(path, size=status.st_size), otherwise=absent)
    for start, kind in FOREIGN_MAGIC.items():
        if head.startswith(start):
            raise refusal(
                source, got=kind, expected=ACCEPTED, advice="convert it to Parquet and hand it in again"
            )
    named = SUFFIXES.get(path.suffix.lower())
    found = next((name for magic, name in MAGIC.items() if head.startswith(magic)), "csv")
    if found == "csv" and named != "csv":
        got = "content that is neither Parquet nor Arrow IPC"
        raise refusal(source, got=got, expected=f"{ACCEPTED} (CSV needs the suffix .csv)")
    if found != "csv" and named == "csv":
        raise refusal(source, got=f"{found} content under a .csv name", expected="content that fits the name")
    complete = any(tail.endswith(magic) for magic, name in MAGIC.items() if name == found)
    if found != "csv" and not (complete and status.st_size > len(head)):
        raise refusal(
            source,
            got=f"a truncated {found} file (its footer is missing)",
            expected=f"a complete {found} file",
            advice="write or copy the file again and compare its size with the original",
        )
    return found


def _ends(path: Path, *, size: int) -> tuple[bytes, bytes]:
    """Return the first and the last eight bytes of a file."""
    with path.open("rb") as file:
        head = file.read(MAGIC_BYTES)
        file.seek(max(0, size - MAGIC_BYTES))
        return head, file.read(MAGIC_BYTES)


def _stream(
    path: Path, contract: Contract, *, limits: ReadingLimits, file_format: str, others: Others
) -> Generator[Any, None, None]:
    """Run the decoding process and pass its batches on; end it in any case."""
    job = {
        "path": str(path.absolute()),
        "format": file_format,
        "limits": asdict(limits),
        "others": others,
        "contract": {
            "name": contract.name,
            "version": contract.version,
            "fields": [asdict(field) for field in contract.fields],
        },
    }
    process = _start(json.dumps(job).encode())
    try:
        rows = 0
        for batch in _received(process):
            rows += batch.num_rows
            yield batch
        _conclude(process, path, limits=limits, rows=rows)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _start(job: bytes) -> subprocess.Popen[bytes]:
    """Start the decoding process: isolated interpreter, almost no environment, the job on its stdin."""
    environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    environment |= {
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    root = str(Path(__file__).resolve().parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", BOOT, root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    if process.stdin is not None:
        process.stdin.write(job)
        process.stdin.close()
    return process


def _received(process: subprocess.Popen[bytes]) -> Iterator[Any]:
    """Yield the batches that arrive; a stream that breaks off simply ends, the verdict then says why."""
    try:
        yield from pa.ipc.open_stream(process.stdout)
    except (pa.ArrowException, OSError):
        return


def _conclude(process: subprocess.Popen[bytes], path: Path, *, limits: ReadingLimits, rows: int) -> None:
    """Read the verdict of the decoding process and raise it if it is a refusal."""
    source = source_name(path)
    said = process.stderr.read(MAX_VERDICT_BYTES) if process.stderr is not None else b""
    code = process.wait()
    try:
        verdict = json.loads(said)
    except ValueError:
        verdict = {}
    if code != 0 or not isinstance(verdict, dict) or not verdict:
        _crashed(source, code=code, memory=limits.memory_bytes(file_bytes=path.stat().st_size))
    if "message" in verdict:
        raise ContractViolation(verdict["message"], advice=verdict.get("advice"))
    if verdict.get("rows") != rows:
        _crashed(source, code=code, memory=limits.memory_bytes(file_bytes=path.stat().st_size))
    if rows == 0:
        raise refusal(
            source, got="a table without rows", expected="at least one row", advice="export the table again"
        )


def _crashed(source: str, *, code: int, memory: int) -> NoReturn:
    raise refusal(
        source,
        got=f"a file whose decoding ended the reading process (exit code {code}, {memory >> 20} MiB allowed)",
        expected="a file that can be decoded within the limits",
        advice="the file is damaged or hostile: write it again from the source, in smaller row groups",
    )
