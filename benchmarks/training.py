"""Training and evaluation against the textbook implementation, on real data: samples and endpoints per CPU second.

Why: "faster than SparseChem" is a claim that anybody must be able to repeat, with the loss equal to four decimals.
Runs: by hand, `python benchmarks/training.py TABLE.csv.gz` with a wide table of activities such as chembl_5thresh.
CPU seconds of one thread, best of a few; both sides run in turn, so that another process disturbs both.
Source: own; the other side is benchmarks/training_textbook.py.
"""

import argparse
import cProfile
import pstats
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from training_textbook import TextbookTraining, textbook_metrics

from data_contracts.catalogue import ENDPOINTS
from data_contracts.writing import read_table
from tasks.evaluation.metrics import METRICS, endpoint_metrics
from tasks.featurization.preparation import prepare_dataset
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import TrainingSettings
from tasks.local_training.learner import Learner
from tasks.local_training.parameters import initial_head, initial_trunk
from tasks.simulation.wide_import import import_wide_table

HIDDEN = 400
STEPS_AT_A_TIME = 10


def pooled_dataset(table: Path, home: Path) -> PreparedDataset:
    """Import a wide table as simulated companies, prepare them, and put their data together again."""
    companies = import_wide_table(table, directory=home / "data", partners=4)
    prepared = []
    for name in companies.partners:
        output = home / "prepared" / name
        prepare_dataset(
            companies.files(name), consortium_secret=companies.consortium_secret, output=output, workers=1
        )
        prepared.append(output)
    ids = [
        read_table(path / "endpoints.arrow", ENDPOINTS).column("endpoint_id").to_pylist() for path in prepared
    ]
    place = {name: number for number, name in enumerate(sorted({name for part in ids for name in part}))}
    places = [np.array([place[name] for name in part], dtype=np.int32) for part in ids]
    return PreparedDataset.pool([PreparedDataset.open(path) for path in prepared], places=places)


def _both(dataset: PreparedDataset, rows: np.ndarray, *, batch_size: int) -> tuple[Learner, TextbookTraining]:
    """Both networks with the same weights, settings and source of dropout."""
    settings = TrainingSettings(batch_size=batch_size)
    trunk = initial_trunk(HIDDEN, seed=1)
    head = initial_head(dataset.n_endpoints, HIDDEN, seed=2)
    scale = 1 / batch_size
    ours = Learner(
        dataset,
        rows,
        trunk=trunk,
        head=head,
        settings=settings,
        generator=torch.Generator().manual_seed(3),
        loss_scale=scale,
    )
    theirs = TextbookTraining(
        dataset,
        trunk=trunk,
        head=head,
        dropout=settings.dropout,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        loss_scale=scale,
        seed=3,
    )
    return ours, theirs


def compare_training(dataset: PreparedDataset, *, batch_size: int, n_turns: int) -> None:
    """Train both networks on the same batches, in turn."""
    rows = dataset.training_rows((1, 2, 3))
    ours, theirs = _both(dataset, rows, batch_size=batch_size)
    order = np.random.default_rng(0).permutation(rows)
    batches = iter(np.array_split(order, max(1, len(rows) // batch_size)))
    seconds = {"motet": [], "textbook": []}
    losses = {"motet": 0.0, "textbook": 0.0}
    weight, n_molecules = 0.0, 0
    for _ in range(n_turns):
        turn = [next(batches) for _ in range(STEPS_AT_A_TIME)]
        n_molecules = sum(len(batch) for batch in turn)
        start = time.thread_time()
        found = [ours.step(batch) for batch in turn]
        seconds["motet"].append(time.thread_time() - start)
        start = time.thread_time()
        losses["textbook"] += sum(theirs.step(batch) for batch in turn)
        seconds["textbook"].append(time.thread_time() - start)
        losses["motet"] += sum(loss for loss, _, _ in found)
        weight += sum(part for _, part, _ in found)
    rate = {name: n_molecules / min(times) for name, times in seconds.items()}
    print(
        f"\ntraining, 32,768 x {HIDDEN}, {dataset.n_endpoints} endpoints, batches of {batch_size}, head: {ours.work}"
    )
    for name in seconds:
        print(
            f"  {name:<9} {rate[name]:8.0f} samples per CPU second, mean log-loss {losses[name] / weight:.6f}"
        )
    print(f"  ratio     {rate['motet'] / rate['textbook']:8.1f}")
    assert round(losses["motet"] / weight, 4) == round(losses["textbook"] / weight, 4)
    _profile(ours, list(batches)[:STEPS_AT_A_TIME])


def _profile(learner: Learner, batches: list[np.ndarray]) -> None:
    """Where the time of a step goes, and how far the memory bus is from limiting it."""
    profile = cProfile.Profile(time.thread_time)
    profile.enable()
    for batch in batches:
        learner.step(batch)
    profile.disable()
    times = pstats.Stats(profile).stats
    total = sum(entry[2] for entry in times.values())
    print("  where a step's time goes:")
    for (_, _, name), entry in sorted(times.items(), key=lambda item: -item[1][2])[:7]:
        print(f"    {100 * entry[2] / total:5.1f} %  {name}")
    n_parameters = learner.tensors["embedding.weight"].numel()
    per_step = 7 * 4 * n_parameters  # read weight, gradient and two moments, write three of them
    a, b = torch.empty(2**24), torch.ones(2**24)
    copies = []
    for _ in range(5):
        start = time.thread_time()
        a.copy_(b)
        copies.append(time.thread_time() - start)
    bandwidth = 2 * 4 * 2**24 / min(copies)
    bound = per_step / bandwidth
    print(
        f"  memory: Adam alone moves {per_step / 1e6:.0f} MB a step, at {bandwidth / 1e9:.1f} GB/s of a plain copy "
        f"{1e3 * bound:.1f} ms; a step takes {1e3 * total / len(batches):.1f} ms under the profiler"
    )


def compare_evaluation(dataset: PreparedDataset) -> None:
    """Measure all endpoints of the test fold with one pass and with one call per endpoint."""
    labels = dataset.labels_of(dataset.rows((0, 4)))
    probability = np.random.default_rng(1).random(len(labels))
    label = labels.value.astype(np.int8)
    n_endpoints = dataset.n_endpoints
    best = np.inf
    for _ in range(5):
        start = time.thread_time()
        ours = endpoint_metrics(labels.endpoint, label, probability, n_endpoints=n_endpoints)
        best = min(best, time.thread_time() - start)
    start = time.thread_time()
    theirs = textbook_metrics(labels.endpoint, label, probability, n_endpoints=n_endpoints)
    slow = time.thread_time() - start
    difference = 0.0
    for column, name in enumerate(METRICS[:3]):
        defined = np.isfinite(theirs[:, column]) & np.isfinite(getattr(ours, name))
        gap = np.abs(getattr(ours, name)[defined] - theirs[defined, column])
        difference = max(difference, float(gap.max(initial=0)))
    print(f"\nevaluation, {n_endpoints} endpoints, {len(labels)} labels")
    print(
        f"  motet {1e3 * best:.2f} ms, scikit-learn per endpoint {1e3 * slow:.0f} ms, ratio {slow / best:.0f}"
    )
    print(f"  largest difference {difference:.1e}")


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="wide table of activities, such as chembl_5thresh.csv.gz")
    parser.add_argument("--home", type=Path, help="keep the prepared data here for the next time")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[279, 64])
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        dataset = pooled_dataset(arguments.table, arguments.home or Path(scratch))
        print(f"{dataset.n_structures} structures, {len(dataset.label_value)} labels")
        for batch_size in arguments.batch_size:
            compare_training(dataset, batch_size=batch_size, n_turns=arguments.turns)
        compare_evaluation(dataset)


if __name__ == "__main__":
    main()
