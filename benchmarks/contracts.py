"""Speed and memory of the contract engine on activities with plain text identifiers.

Why: the validator stands in front of every row a partner brings. Runs: anywhere, on random rows.
Source: own; the goal of 10 million rows a second and core is from the design notes.

Run: ``OMP_NUM_THREADS=1 python benchmarks/contracts.py [million rows]``
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from data_contracts.catalogue import ACTIVITIES
from data_contracts.reading import open_batches
from data_contracts.validation import validate_batches
from data_contracts.writing import read_table, write_table

KNOWN = {
    "compound_id": pa.array([f"CMP-{i:07d}" for i in range(200_000)]),
    "assay_id": pa.array([f"ASSAY-{i:03d}" for i in range(200)]),
}


def random_activities(rows: int) -> Any:
    """Return ``rows`` valid activities of 200,000 compounds in 200 assays."""
    rng = np.random.default_rng(0)
    pick = {name: ids.take(pa.array(rng.integers(0, len(ids), rows))) for name, ids in KNOWN.items()}
    relation = pa.array(["=", "<", ">"]).take(pa.array(rng.integers(0, 3, rows)))
    unit = pa.array(["p", "nM", "uM"]).take(pa.array(rng.integers(0, 3, rows)))
    return pa.table({**pick, "relation": relation, "value": rng.uniform(3, 10, rows), "unit": unit})


def cpu_seconds() -> float:
    """Return processor seconds of this process and its ended children."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def measure(name: str, *, rows: int, work: Callable[[], object]) -> None:
    """Run a piece of work three times and print its best rates."""
    best_cpu = best_wall = float("inf")
    for _ in range(3):
        cpu, wall = cpu_seconds(), time.perf_counter()
        work()
        best_cpu, best_wall = min(best_cpu, cpu_seconds() - cpu), min(best_wall, time.perf_counter() - wall)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name:44s} {rows / best_cpu / 1e6:6.1f} Mrow/s/core {rows / best_wall / 1e6:6.1f} Mrow/s wall, peak {peak:5.0f} MB"
    )


def drain(batches: Iterable[Any], **options: Any) -> None:
    """Validate a stream to its end."""
    for _ in validate_batches(batches, ACTIVITIES, quarantine_path=None, **options):
        pass


def main() -> None:
    """Print one line for each path that rows may take."""
    rows = int(float(sys.argv[1]) * 1e6) if len(sys.argv) > 1 else 2_000_000
    with tempfile.TemporaryDirectory() as home:
        table, directory = random_activities(rows), Path(home)
        pq.write_table(table, directory / "a.parquet", compression="zstd")
        pa_csv.write_csv(table, directory / "a.csv")
        reference = write_table(directory / "a.arrow", ACTIVITIES, table)
        print(f"{rows} activities: {reference.bytes >> 20} MiB as Arrow")
        for name in ("a.parquet", "a.arrow", "a.csv"):
            path = directory / name
            measure(
                f"read {name} in the child and validate",
                rows=rows,
                work=lambda p=path: drain(open_batches(p, ACTIVITIES)),
            )  # type: ignore[misc]
        for size in (16_384, 65_536):
            batches = table.to_batches(max_chunksize=size)
            measure(f"validate, batches of {size}", rows=rows, work=lambda b=batches: drain(b))  # type: ignore[misc]
        batches = table.to_batches(max_chunksize=65_536)
        measure("validate with both foreign keys", rows=rows, work=lambda: drain(batches, known_keys=KNOWN))
        measure("write_table", rows=rows, work=lambda: write_table(directory / "b.arrow", ACTIVITIES, table))
        measure("read_table", rows=rows, work=lambda: read_table(directory / "b.arrow", ACTIVITIES))


if __name__ == "__main__":
    main()
