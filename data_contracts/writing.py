"""Writing and reading of motet's own Arrow artefacts.

Why: every artefact satisfies its contract when it is written, names the contract in its metadata, and is checked
again when it is read; uncompressed IPC files are mapped, not loaded. Runs: anywhere. Source: own.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_contracts.arrow_files import ArrowFile
from data_contracts.conforming import check_columns
from data_contracts.contract import CONTRACT_KEY, DIGEST_KEY, Contract
from data_contracts.references import BlobReference
from data_contracts.validation import require_valid
from data_contracts.violations import attempt, refusal, source_name

REWRITE_ADVICE = "remove the file and run the step that writes it again"


def write_table(path: Path, contract: Contract, rows: Any) -> BlobReference:
    """Write a table as an uncompressed Arrow IPC file that carries its contract.

    Args:
        path: Target; an existing file is replaced in one step, a failure leaves it as it was.
        contract: What the table must be; columns are brought into its order and types.
        rows: ``pa.Table``, or an iterable of ``pa.RecordBatch`` such as a ``Validation``, which is written while
            it flows and published only if it ends without refusal.

    Returns:
        Reference with the SHA-256 of the file. It stays at the site if the table is private.

    Raises:
        ContractViolation: A row breaks a rule, or ``rows`` itself refuses; no file appears.
    """
    batches: Iterable[Any] = _batches_of(rows)
    file = ArrowFile(path, contract.schema)
    try:
        for batch in require_valid(batches, contract, source=source_name(path)):
            file.write(batch)
        sha256, size = file.publish()
    finally:
        file.abandon()
    return BlobReference(sha256=sha256, bytes=size, contract=contract.identifier)


def _batches_of(rows: Any) -> Iterable[Any]:
    """Return the batches of a table, at least one so that its columns are checked, or pass an iterable on."""
    if not isinstance(rows, pa.Table):
        batches: Iterable[Any] = rows
        return batches
    found: list[Any] = rows.to_batches()
    return found or [
        pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in rows.schema], schema=rows.schema)
    ]


def read_table(path: Path, contract: Contract) -> Any:
    """Read one of our own artefacts, memory-mapped and fully checked.

    Args:
        path: Arrow IPC file that ``write_table`` wrote.
        contract: What it must be.

    Returns:
        ``pa.Table`` whose columns lie in the mapped file; the file must not change while it is in use.

    Raises:
        ContractViolation: Absent, damaged, written under another contract or digest, compressed, or a row breaks
            a rule.
    """
    source = source_name(path)
    damaged = refusal(
        source,
        got="a file that is absent, truncated or damaged",
        expected=f"an Arrow IPC file of {contract.identifier}",
        advice=REWRITE_ADVICE,
    )
    size = attempt(lambda: path.stat().st_size, otherwise=damaged)
    reader: Any = attempt(lambda: pa.ipc.open_file(pa.memory_map(str(path))), otherwise=damaged)
    metadata = reader.schema.metadata or {}
    _check_contract(metadata, contract, source=source)
    check_columns(reader.schema, contract, source=source)
    batches = [
        attempt(lambda index=index: reader.get_batch(index), otherwise=damaged)  # type: ignore[misc]
        for index in range(reader.num_record_batches)
    ]
    if sum(attempt(lambda batch=batch: batch.nbytes, otherwise=damaged) for batch in batches) > size:  # type: ignore[misc]
        raise refusal(
            source, got="compressed batches", expected="an uncompressed file", advice=REWRITE_ADVICE
        )
    checked: Iterator[Any] = require_valid(batches, contract, source=source)
    return pa.Table.from_batches(checked, schema=contract.schema)


def _check_contract(metadata: dict[bytes, bytes], contract: Contract, *, source: str) -> None:
    """Refuse an artefact whose metadata does not name exactly this contract."""
    found, digest = metadata.get(CONTRACT_KEY), metadata.get(DIGEST_KEY)
    if found == contract.identifier.encode() and digest == contract.digest.encode():
        return
    if found is None:
        got = "a file without a contract in its metadata"
    elif found == contract.identifier.encode():
        got = f"a file of {contract.identifier} with another digest"
    else:
        got = "a file of another contract or version"
    expected = f"{contract.identifier} with digest {contract.digest[:12]}..."
    raise refusal(source, got=got, expected=expected, advice=REWRITE_ADVICE)
