"""Speed and memory of the contract engine on activities, beside pandera where that is installed.

Why: the validator stands in front of every row a partner brings. Runs: anywhere, on random rows.
Source: own; goals: 12 million rows a second and core with plain text identifiers, 25 with dictionaries, at most
64 MB above one batch; 1.5 and 3 times `pandera.pyarrow`, which no part of motet needs.

Run: ``OMP_NUM_THREADS=1 python benchmarks/contracts.py [million rows]``
"""

import importlib.util
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from data_contracts.catalogue import ACTIVITIES, MOLAR_UNITS, RELATIONS
from data_contracts.reading import open_batches
from data_contracts.validation import validate_batches
from data_contracts.writing import read_table, write_table

TEXTS = ("compound_id", "assay_id", "relation", "unit")
BATCH_ROWS = 65_536
KNOWN = {
    "compound_id": pa.array([f"CMP-{i:07d}" for i in range(200_000)]),
    "assay_id": pa.array([f"ASSAY-{i:03d}" for i in range(200)]),
}


def random_activities(rows: int, *, seed: int = 0) -> Any:
    """Return ``rows`` valid activities of 200,000 compounds in 200 assays."""
    rng = np.random.default_rng(seed)
    pick = {name: ids.take(pa.array(rng.integers(0, len(ids), rows))) for name, ids in KNOWN.items()}
    relation = pa.array(["=", "<", ">"]).take(pa.array(rng.integers(0, 3, rows)))
    unit = pa.array(["p", "nM", "uM"]).take(pa.array(rng.integers(0, 3, rows)))
    return pa.table({**pick, "relation": relation, "value": rng.uniform(3, 10, rows), "unit": unit})


def encoded(table: Any) -> Any:
    """Return the table with its text columns as dictionaries, one for the whole table."""
    for name in TEXTS:
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table.column(name).combine_chunks().dictionary_encode())
    return table


def cpu_seconds() -> float:
    """Return processor seconds of this process and its ended children."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def peak_mib() -> float:
    """Return the largest resident size of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, *, rows: int, work: Callable[[], object]) -> float:
    """Run a piece of work three times, print its best rates, and return rows per CPU second."""
    best_cpu = best_wall = float("inf")
    for _ in range(3):
        cpu, wall = cpu_seconds(), time.perf_counter()
        work()
        best_cpu, best_wall = min(best_cpu, cpu_seconds() - cpu), min(best_wall, time.perf_counter() - wall)
    print(
        f"{name:44s} {rows / best_cpu / 1e6:6.1f} Mrow/s/core {rows / best_wall / 1e6:6.1f} Mrow/s wall",
        flush=True,
    )
    return rows / best_cpu


def drain(batches: Iterable[Any], **options: Any) -> None:
    """Validate a stream to its end."""
    for _ in validate_batches(batches, ACTIVITIES, quarantine_path=None, **options):
        pass


def measure_memory(rows: int) -> None:
    """Print how much resident memory a stream of fresh batches adds to what one batch needs."""

    def stream(n_batches: int) -> Iterator[Any]:
        for number in range(n_batches):
            yield random_activities(BATCH_ROWS, seed=number).combine_chunks().to_batches()[0]

    drain(stream(1))
    before = peak_mib()
    drain(stream(max(rows // BATCH_ROWS, 1)))
    print(
        f"peak above one batch, {rows:,} rows in fresh batches of {BATCH_ROWS:,}: {peak_mib() - before:.0f} MiB"
    )


def pandera_check(table: Any) -> Callable[[], object]:
    """Return the same rules as a lazy ``pandera.pyarrow`` validation of a table."""
    import pandera.pyarrow as pandera

    def text(name: str, *checks: Any) -> Any:
        return pandera.Column(table.schema.field(name).type, list(checks), nullable=False)

    identifier = [pandera.Check.str_length(1, 200), pandera.Check.str_matches(r"^[^\x00-\x1f\x7f]+$")]
    schema = pandera.DataFrameSchema(
        {
            "compound_id": text("compound_id", *identifier),
            "assay_id": text("assay_id", *identifier),
            "relation": text("relation", pandera.Check.isin(list(RELATIONS))),
            "value": text("value", pandera.Check.in_range(-1e30, 1e30)),
            "unit": text("unit", pandera.Check.isin(["p", *MOLAR_UNITS])),
        }
    )
    return lambda: schema.validate(table, lazy=True)


def measure_files(table: Any, *, rows: int) -> None:
    """Print one line for each kind of file that rows may come in."""
    with tempfile.TemporaryDirectory() as home:
        directory = Path(home)
        pq.write_table(table, directory / "a.parquet", compression="zstd")
        pa_csv.write_csv(table, directory / "a.csv")
        write_table(directory / "a.arrow", ACTIVITIES, table)
        for name in ("a.parquet", "a.arrow", "a.csv"):
            path = directory / name
            measure(
                f"read {name} in the child and validate",
                rows=rows,
                work=lambda p=path: drain(open_batches(p, ACTIVITIES)),  # type: ignore[misc]
            )
        measure("write_table", rows=rows, work=lambda: write_table(directory / "b.arrow", ACTIVITIES, table))
        measure("read_table", rows=rows, work=lambda: read_table(directory / "b.arrow", ACTIVITIES))


def main() -> None:
    """Print one line for each path that rows may take, then the ratios."""
    rows = int(float(sys.argv[1]) * 1e6) if len(sys.argv) > 1 else 5_000_000
    measure_memory(rows)
    table = random_activities(rows)
    dictionaries = encoded(table)
    rates = {}
    for name, tables in (("plain", table), ("dictionary", dictionaries)):
        batches = tables.to_batches(max_chunksize=BATCH_ROWS)
        rates[name] = measure(
            f"validate, {name} text",
            rows=rows,
            work=lambda b=batches: drain(b, texts="encoded"),  # type: ignore[misc]
        )
    batches = table.to_batches(max_chunksize=BATCH_ROWS)
    measure("validate with both foreign keys", rows=rows, work=lambda: drain(batches, known_keys=KNOWN))
    if importlib.util.find_spec("pandera") is not None:
        theirs = float("nan")
        for name, tables in (("plain", table), ("dictionary", dictionaries)):
            try:
                theirs = measure(f"pandera.pyarrow, {name} text", rows=rows, work=pandera_check(tables))
            except Exception as exc:  # noqa: BLE001 - what pandera cannot do is a result too
                print(
                    f"pandera.pyarrow, {name} text: cannot ({type(exc).__name__}); its plain rate stands in"
                )
            print(f"  ratio to pandera.pyarrow, {name} text: {rates[name] / theirs:.2f}")
    measure_files(table, rows=rows)


if __name__ == "__main__":
    main()
