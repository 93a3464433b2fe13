"""Memory of local training while the number of molecules grows: it must not grow with them.

Why: a partner of ten million compounds trains on the machine it has. Runs: by hand, `python
benchmarks/training_memory.py`; each size in a process of its own, on simulated prepared data of 2,000 endpoints.
Anonymous memory is what a job needs; mapped pages of the data are the kernel's to drop. Source: own.
"""

import argparse
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_contracts.catalogue import ENDPOINTS, HASHED_FINGERPRINTS, LABELS
from data_contracts.writing import write_table
from tasks.local_training.jobs import LocalSteps, TrainingSettings
from tasks.local_training.parameters import initial_trunk, write_parameters

N_BITS, BITS_PER_MOLECULE = 32_768, 60
INTERVAL_SECONDS = 0.02


def write_prepared(directory: Path, *, n_structures: int, n_endpoints: int, labels_per_molecule: int) -> None:
    """Write a prepared directory with random bits and labels."""
    rng = np.random.default_rng(0)
    stride = N_BITS // BITS_PER_MOLECULE
    bits = rng.integers(0, stride, (n_structures, BITS_PER_MOLECULE), dtype=np.uint16)
    bits += (np.arange(BITS_PER_MOLECULE) * stride).astype(
        np.uint16
    )  # one in each stretch: sorted and distinct
    starts = pa.array(np.arange(n_structures + 1) * BITS_PER_MOLECULE, pa.int32())
    write_table(
        directory / "fingerprints.arrow",
        HASHED_FINGERPRINTS,
        pa.table(
            {
                "structure_index": pa.array(np.arange(n_structures), pa.int32()),
                "structure_key": pa.array([f"{number:032x}" for number in range(n_structures)]),
                "fold": pa.array(np.arange(n_structures) % 5, pa.int8()),
                "bits": pa.ListArray.from_arrays(starts, pa.array(bits.reshape(-1))),
            }
        ),
    )
    _write_endpoints(directory, n_structures=n_structures, n_endpoints=n_endpoints)
    step = n_endpoints // labels_per_molecule
    endpoint = (
        rng.integers(0, step, (n_structures, labels_per_molecule)) + np.arange(labels_per_molecule) * step
    )
    write_table(
        directory / "labels.arrow",
        LABELS,
        pa.table(
            {
                "structure_index": pa.array(
                    np.repeat(np.arange(n_structures), labels_per_molecule), pa.int32()
                ),
                "endpoint_index": pa.array(endpoint.reshape(-1), pa.int32()),
                "label": pa.array(rng.integers(0, 2, endpoint.size), pa.int8()),
            }
        ),
    )


def _write_endpoints(directory: Path, *, n_structures: int, n_endpoints: int) -> None:
    names = [f"A{number}>=6.5" for number in range(n_endpoints)]
    many = [n_structures] * n_endpoints
    write_table(
        directory / "endpoints.arrow",
        ENDPOINTS,
        pa.table(
            {
                "endpoint_index": pa.array(np.arange(n_endpoints), pa.int32()),
                "endpoint_id": names,
                "assay_id": [name.split(">")[0] for name in names],
                "assay_type": ["OTHER"] * n_endpoints,
                "threshold": [6.5] * n_endpoints,
                "direction": ["high"] * n_endpoints,
                "n_active": pa.array(many, pa.int32()),
                "n_inactive": pa.array(many, pa.int32()),
                "in_training": [True] * n_endpoints,
                "in_evaluation": [True] * n_endpoints,
                "weight": [1.0] * n_endpoints,
            }
        ),
    )


def _memory_bytes() -> tuple[int, int]:
    """Anonymous and mapped resident memory of this process."""
    found = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    anonymous, mapped = (int(found[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))
    return anonymous, mapped


def _train(directory: Path, *, n_steps: int, answer: "multiprocessing.Queue[dict[str, float]]") -> None:
    """Train some steps and report the peak."""
    from tasks.local_training.training import train

    peak, before, done = [0, 0], _memory_bytes(), threading.Event()

    def watch() -> None:
        while not done.wait(INTERVAL_SECONDS):
            for place, size in enumerate(_memory_bytes()):
                peak[place] = max(peak[place], size)

    watching = threading.Thread(target=watch)
    watching.start()
    settings = TrainingSettings(batch_size=512)
    start = time.process_time()
    result = train(
        LocalSteps(
            dataset=directory,
            trunk=directory / "trunk.safetensors",
            head_seed=1,
            seed=2,
            epochs=n_steps * settings.batch_size / _training_structures(directory),
            settings=settings,
            output=directory / "out",
        )
    )
    seconds = time.process_time() - start
    done.set()
    watching.join()
    answer.put(
        {
            "before": before[0],
            "anonymous": peak[0],
            "mapped": peak[1],
            "steps": result.n_steps,
            "labels": result.n_labels,
            "seconds": seconds,
        }
    )


def _training_structures(directory: Path) -> int:
    with pa.memory_map(str(directory / "fingerprints.arrow")) as source:
        return int(pa.ipc.open_file(source).get_batch(0).num_rows * 0.6)


def main() -> None:
    """Train the same number of steps on growing data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--endpoints", type=int, default=2000)
    parser.add_argument("--labels", type=int, default=20, help="labels per molecule")
    parser.add_argument("--hidden", type=int, default=400)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for n_structures in arguments.structures:
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch)
            write_prepared(
                directory,
                n_structures=n_structures,
                n_endpoints=arguments.endpoints,
                labels_per_molecule=arguments.labels,
            )
            write_parameters(directory / "trunk.safetensors", initial_trunk(arguments.hidden, seed=0))
            answer = context.Queue()
            process = context.Process(
                target=_train,
                args=(directory,),
                kwargs={"n_steps": arguments.steps, "answer": answer},
            )
            process.start()
            found = answer.get()
            process.join()
        print(
            f"{n_structures:>9,} structures, {found['labels']:>11,} training labels: peak anonymous "
            f"{found['anonymous'] / 1e6:7.0f} MB (of it {found['before'] / 1e6:.0f} before the job), mapped "
            f"{found['mapped'] / 1e6:6.0f} MB; {found['steps']} steps in {found['seconds']:.1f} CPU s"
        )


if __name__ == "__main__":
    main()
