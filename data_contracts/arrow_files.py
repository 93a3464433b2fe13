"""An Arrow IPC file that appears under its name only when it is complete and durable.

Why: a crash at any moment leaves either no file or the whole one; its digest is computed while the bytes pass,
not by reading them again. Runs: anywhere. Source: POSIX rename; own.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa


class HashedFile:
    """A write-only file object that knows the SHA-256 and the number of the bytes written."""

    def __init__(self, file: BinaryIO) -> None:
        """Wrap an open binary file."""
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Write bytes or an Arrow buffer, and digest them."""
        view = memoryview(data).cast("B")
        self._sha256.update(view)
        self._file.write(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.size

    def flush(self) -> None:
        """Do nothing: durability comes once, at the end."""

    def close(self) -> None:
        """Do nothing: the owner closes the file."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes so far, hexadecimal."""
        return self._sha256.hexdigest()


class ArrowFile:
    """Writes record batches, uncompressed, into a temporary file beside ``path``."""

    def __init__(self, path: Path, schema: Any) -> None:
        """Create the directory if needed, open the temporary file, write the schema.

        Raises:
            OSError: The directory cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._file = self._temporary.open("wb", buffering=1 << 20)
        self._hashed = HashedFile(self._file)
        self._writer: Any = pa.ipc.new_file(pa.PythonFile(self._hashed, mode="w"), schema)

    def write(self, batch: Any) -> None:
        """Append a ``pa.RecordBatch`` of the schema."""
        self._writer.write_batch(batch)

    def publish(self) -> tuple[str, int]:
        """Make the file durable and give it its name, replacing what stood there.

        Returns:
            SHA-256 (hexadecimal) and size in bytes.
        """
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return self._hashed.sha256, self._hashed.size

    def abandon(self) -> None:
        """Remove what was written; harmless after ``publish``."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)
