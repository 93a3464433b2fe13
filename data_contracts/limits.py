"""How much a foreign file may cost before it is refused.

Why: 12 kB of compressed Arrow can become 400 MB, and 2 MB of Parquet 20 GB. Runs: on the partner. Source: own;
the figures leave honest files (expansion below about 100) a wide margin.
"""

from dataclasses import dataclass

MEBI = 1 << 20


@dataclass(frozen=True)
class ReadingLimits:
    """Caps for one foreign file.

    Attributes:
        max_file_bytes: Size on disk.
        max_rows: Rows in the file.
        max_batches: Record batches (Arrow) or row groups (Parquet).
        max_columns: Columns, counted before any name is looked at.
        max_batch_rows: Rows handed on at a time.
        max_batch_bytes: Decoded bytes handed on at a time; a single row may not have more.
        max_expansion: Decoded bytes for each byte on disk, beyond ``free_decoded_bytes``.
        free_decoded_bytes: Decoded size up to which the expansion does not matter.
        max_decoded_bytes: Decoded size in all.
        base_memory_bytes: Memory that the reading process may use for a file of any size ...
        memory_expansion: ... and for each byte on disk in addition ...
        max_memory_bytes: ... and at most.
        max_cpu_seconds: Processor time of the reading process.
    """

    max_file_bytes: int = 64 * 1024 * MEBI
    max_rows: int = 500_000_000
    max_batches: int = 200_000
    max_columns: int = 64
    max_batch_rows: int = 16_384
    max_batch_bytes: int = 32 * MEBI
    max_expansion: int = 1_000
    free_decoded_bytes: int = 256 * MEBI
    max_decoded_bytes: int = 256 * 1024 * MEBI
    base_memory_bytes: int = 256 * MEBI
    memory_expansion: int = 32
    max_memory_bytes: int = 4 * 1024 * MEBI
    max_cpu_seconds: int = 1_800

    def memory_bytes(self, *, file_bytes: int) -> int:
        """Return the memory budget of the reading process for a file of the given size."""
        return min(self.base_memory_bytes + self.memory_expansion * file_bytes, self.max_memory_bytes)

    def decoded_bytes(self, *, file_bytes: int) -> int:
        """Return the decoded size that a file of the given size may have."""
        return min(max(self.free_decoded_bytes, self.max_expansion * file_bytes), self.max_decoded_bytes)
