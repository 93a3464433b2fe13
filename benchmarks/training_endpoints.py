"""Training with 20,000 endpoints: heads on observed pairs only, and where the choice between both ways lies.

Why: a real consortium has tens of thousands of endpoints and a hundred labels a molecule; a dense head then
wastes almost all of its work. Runs: by hand, `python benchmarks/training_endpoints.py`, about two minutes.
CPU seconds of one thread, best of a few. Source: own; data are simulated, only their shape matters.
"""

import argparse
import time

import numpy as np
import torch
from training_textbook import TextbookTraining

from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.heads import PAIR_COST, HeadWork
from tasks.local_training.jobs import TrainingSettings
from tasks.local_training.learner import Learner
from tasks.local_training.parameters import initial_head, initial_trunk

N_BITS = 32_768
BITS_PER_MOLECULE = 70


def simulated_dataset(
    *, n_structures: int, n_endpoints: int, labels_per_molecule: int, seed: int = 0
) -> PreparedDataset:
    """Molecules whose bits are as unevenly frequent as real ones, with random labels."""
    rng = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, N_BITS + 1)
    popularity /= popularity.sum()
    bits = rng.choice(N_BITS, size=(n_structures, BITS_PER_MOLECULE), p=popularity).astype(np.uint16)
    endpoint = np.stack(
        [rng.choice(n_endpoints, size=labels_per_molecule, replace=False) for _ in range(n_structures)]
    )
    return PreparedDataset(
        bit_starts=np.arange(n_structures + 1) * BITS_PER_MOLECULE,
        bits=bits.reshape(-1),
        fold=np.ones(n_structures, dtype=np.int8),
        label_starts=np.arange(n_structures + 1) * labels_per_molecule,
        label_endpoint=endpoint.reshape(-1).astype(np.int32),
        label_value=rng.integers(0, 2, endpoint.size).astype(np.int8),
        endpoint_weight=np.ones(n_endpoints, dtype=np.float32),
        in_evaluation=np.ones(n_endpoints, dtype=bool),
        endpoints_of=(np.arange(n_endpoints),),
    )


def milliseconds(
    dataset: PreparedDataset, *, hidden: int, batch_size: int, work: HeadWork | None, n_steps: int
) -> tuple[float, list[float], HeadWork]:
    """Best time of a step of ours, the losses, and how the head was computed."""
    learner = Learner(
        dataset,
        np.arange(dataset.n_structures),
        trunk=initial_trunk(hidden, seed=1),
        head=initial_head(dataset.n_endpoints, hidden, seed=2),
        settings=TrainingSettings(batch_size=batch_size),
        generator=torch.Generator().manual_seed(3),
        loss_scale=1e-4,
        work=work,
    )
    best, losses = np.inf, []
    for number in range(n_steps):
        start = time.thread_time()
        losses.append(learner.step(np.arange(number * batch_size, (number + 1) * batch_size))[0])
        best = min(best, time.thread_time() - start)
    return 1e3 * best, losses, learner.work


def textbook_milliseconds(
    dataset: PreparedDataset, *, hidden: int, batch_size: int, n_steps: int
) -> tuple[float, list[float]]:
    """Best time of a step of the textbook's, and the losses."""
    settings = TrainingSettings()
    training = TextbookTraining(
        dataset,
        trunk=initial_trunk(hidden, seed=1),
        head=initial_head(dataset.n_endpoints, hidden, seed=2),
        dropout=settings.dropout,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        loss_scale=1e-4,
        seed=3,
    )
    best, losses = np.inf, []
    for number in range(n_steps):
        start = time.thread_time()
        losses.append(training.step(np.arange(number * batch_size, (number + 1) * batch_size)))
        best = min(best, time.thread_time() - start)
    return 1e3 * best, losses


def compare_many_endpoints(*, hidden: int, batch_size: int, n_steps: int) -> None:
    """20,000 endpoints, 100 labels a molecule, against the textbook."""
    dataset = simulated_dataset(
        n_structures=batch_size * n_steps, n_endpoints=20_000, labels_per_molecule=100
    )
    ours, losses, work = milliseconds(
        dataset, hidden=hidden, batch_size=batch_size, work=None, n_steps=n_steps
    )
    dense, _, _ = milliseconds(dataset, hidden=hidden, batch_size=batch_size, work="dense", n_steps=n_steps)
    theirs, expected = textbook_milliseconds(dataset, hidden=hidden, batch_size=batch_size, n_steps=n_steps)
    n_labels = 100 * batch_size
    gap = max(abs(a - b) / n_labels for a, b in zip(losses, expected, strict=True))
    print(f"20,000 endpoints x 100 labels a molecule, hidden {hidden}, batches of {batch_size}")
    print(
        f"  motet ({work}) {ours:.1f} ms a step, motet with a dense head {dense:.1f}, textbook {theirs:.1f}"
    )
    print(f"  ratio to the textbook {theirs / ours:.1f}; largest difference of a step's mean loss {gap:.1e}")
    assert gap < 5e-5


def find_crossover(*, hidden: int, batch_size: int, n_steps: int) -> None:
    """For growing label density, both ways; the ratio at which they meet is ``PAIR_COST``."""
    print(f"\nhead on pairs against dense head, hidden {hidden}, batches of {batch_size}")
    print("  endpoints  labels/molecule  endpoints per label  dense ms  pairs ms")
    for n_endpoints in (250, 1000, 4000):
        for share in (10, 20, 40, 80):
            labels = max(1, n_endpoints // share)
            dataset = simulated_dataset(
                n_structures=batch_size * n_steps, n_endpoints=n_endpoints, labels_per_molecule=labels
            )
            times = {
                work: milliseconds(dataset, hidden=hidden, batch_size=batch_size, work=work, n_steps=n_steps)[
                    0
                ]
                for work in ("dense", "pairs")
            }
            print(
                f"  {n_endpoints:9d}  {labels:15d}  {share:19d}  {times['dense']:8.1f}  {times['pairs']:8.1f}"
            )
    print(f"  chosen: pairs where there are more than {PAIR_COST:g} endpoints per label")


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=400)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[279])
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for batch_size in arguments.batch_size:
        compare_many_endpoints(hidden=arguments.hidden, batch_size=batch_size, n_steps=arguments.steps)
        find_crossover(hidden=arguments.hidden, batch_size=batch_size, n_steps=arguments.steps)


if __name__ == "__main__":
    main()
