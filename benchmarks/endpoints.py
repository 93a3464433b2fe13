"""Activities to endpoints: rows a second, memory, and whether the cost of a row grows with their number.

Why: one large partner brings hundreds of millions of activities. Runs: anywhere, on generated activities of 5,000
assays of all types, as Arrow batches with dictionary-encoded names. Source: own; goals: 50 million rows at 2 million
a second, at most 3 GB, at a cost per row that does not grow.

Run: ``OMP_NUM_THREADS=1 python benchmarks/endpoints.py [million rows ...]``, each size in a process of its own.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.catalogue import LABELS, REGRESSION_VALUES
from data_contracts.writing import write_table
from tasks.featurization.activity_shards import ActivityShards
from tasks.featurization.assay_table import assay_table
from tasks.featurization.endpoints import build_endpoints
from tasks.featurization.intake import Names, take_in
from tasks.featurization.preparation_rules import rules_of

N_ASSAYS, N_COMPOUNDS = 5_000, 250_000
BATCH_ROWS = 1 << 16
TYPES, SHARES = ("OTHER", "PANEL", "ADME", "AUX_HTS"), (0.4, 0.1, 0.1, 0.4)
GIVEN_SHARE = 0.5  # of the assays name two thresholds
SIZES = (1.0, 5.0, 10.0, 50.0)


def generated_assays(rng: np.random.Generator) -> Any:
    """Return assays of all types; half of them name thresholds."""
    given = np.where(
        rng.random((N_ASSAYS, 1)) < GIVEN_SHARE, rng.choice([5.0, 5.5, 6.0, 7.0], (N_ASSAYS, 2)), np.nan
    )
    return pa.table(
        {
            "assay_id": [f"ASSAY-{number:05d}" for number in range(N_ASSAYS)],
            "assay_type": rng.choice(TYPES, N_ASSAYS, p=SHARES).tolist(),
            "direction": ["high"] * N_ASSAYS,
            "threshold_1": given[:, 0],
            "threshold_2": given[:, 1],
        }
    )


def generated_activities(rows: int, names: Names, rng: np.random.Generator) -> Iterator[Any]:
    """Yield valid activities; one in five is censored."""
    relations, units = pa.array(["<", "=", ">"]), pa.array(["p"])
    for start in range(0, rows, BATCH_ROWS):
        count = min(BATCH_ROWS, rows - start)
        relation = rng.choice(np.array([0, 1, 1, 1, 1, 1, 1, 1, 1, 2], dtype=np.int8), count)
        codes = {
            "compound_id": (rng.integers(0, N_COMPOUNDS, count, dtype=np.int32), names.compounds),
            "assay_id": (rng.integers(0, N_ASSAYS, count, dtype=np.int32), names.assays),
            "relation": (relation, relations),
            "unit": (np.zeros(count, dtype=np.int8), units),
        }
        columns = {name: pa.DictionaryArray.from_arrays(pa.array(c), d) for name, (c, d) in codes.items()}
        columns["value"] = pa.array(np.round(rng.normal(6.0, 1.2, count).clip(3.1, 9.9), 2))
        yield pa.RecordBatch.from_pydict(columns)


def timed(batches: Iterator[Any], spent: list[float]) -> Iterator[Any]:
    """Stop the clocks while the next batch is generated: what that takes is subtracted from ``spent``."""
    while True:
        cpu, wall = time.process_time(), time.perf_counter()
        batch = next(batches, None)
        spent[0] -= time.process_time() - cpu
        spent[1] -= time.perf_counter() - wall
        if batch is None:
            return
        yield batch


def measure(rows: int, *, profile: str, threads: int) -> dict[str, Any]:
    """Run all steps on generated rows; generation is not counted."""
    rng = np.random.default_rng(0)
    assays, rules = generated_assays(rng), rules_of(profile)
    names = Names(
        compounds=pa.array([f"CMP-{number:07d}" for number in range(N_COMPOUNDS)]),
        assays=assays.column("assay_id").combine_chunks(),
    )
    table, fold = assay_table(assays, rules), rng.integers(0, 5, N_COMPOUNDS).astype(np.int8)
    spent = [0.0, 0.0]
    cpu, wall = time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        scratch = Path(home)
        shards = ActivityShards(scratch)
        take_in(
            timed(generated_activities(rows, names, rng), spent),
            names=names,
            table=table,
            shards=shards,
            quarantine=scratch / "quarantine.arrow",
            threads=threads,
        )
        tables = build_endpoints(
            shards,
            table,
            parent=np.arange(N_COMPOUNDS),
            fold=fold,
            rules=rules,
            scratch=scratch,
            threads=threads,
        )
        labels = write_table(scratch / "labels.arrow", LABELS, tables.label_batches())
        values = tables.regression.value_batches(tables.structure_index, threads=threads)
        write_table(scratch / "values.arrow", REGRESSION_VALUES, values)
    return {
        "rows": rows,
        "cpu": time.process_time() - cpu + spent[0],
        "wall": time.perf_counter() - wall + spent[1],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "endpoints": tables.endpoints.num_rows,
        "label_mib": labels.bytes >> 20,
    }


def main() -> None:
    """Print one line for each number of rows."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]), profile=sys.argv[3], threads=int(sys.argv[4]))))
        return
    sizes = [float(text) for text in sys.argv[1:]] or SIZES
    print("profile    threads  million rows  ns/row (CPU)  Mrow/s (CPU)  Mrow/s (clock)  peak MiB  endpoints")
    for profile in ("melloddy", "simple"):
        for size in sizes:
            for threads in (1, 2):
                arguments = ["--one", str(int(size * 1e6)), profile, str(threads)]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                said = subprocess.run(
                    [sys.executable, __file__, *arguments], capture_output=True, check=True, env=environment
                )
                one = json.loads(said.stdout.splitlines()[-1])
                print(
                    f"{profile:10s} {threads:7d} {size:13.0f} {one['cpu'] / one['rows'] * 1e9:13.0f} "
                    f"{one['rows'] / one['cpu'] / 1e6:13.2f} {one['rows'] / one['wall'] / 1e6:15.2f} "
                    f"{one['peak_mib']:9.0f} {one['endpoints']:10d}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
