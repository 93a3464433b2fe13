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

from tasks.local_training.adam import Adam
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.heads import PAIR_COST, HeadWork
from tasks.local_training.jobs import TrainingSettings
from tasks.local_training.learner import Learner
from tasks.local_training.parameters import initial_head, initial_trunk

N_BITS = 32_768
BITS_PER_MOLECULE = 70
N_STRUCTURES = 20_000


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


def learner_of(dataset: PreparedDataset, *, hidden: int, batch_size: int, work: HeadWork | None) -> Learner:
    """Our network in training, on all of a data set."""
    return Learner(
        dataset,
        np.arange(dataset.n_structures),
        trunk=initial_trunk(hidden, seed=1),
        head=initial_head(dataset.n_endpoints, hidden, seed=2),
        settings=TrainingSettings(batch_size=batch_size),
        generator=torch.Generator().manual_seed(3),
        loss_scale=1e-4,
        work=work,
    )


def textbook_of(dataset: PreparedDataset, *, hidden: int) -> TextbookTraining:
    """The textbook's network, with the same weights and settings."""
    settings = TrainingSettings()
    return TextbookTraining(
        dataset,
        trunk=initial_trunk(hidden, seed=1),
        head=initial_head(dataset.n_endpoints, hidden, seed=2),
        dropout=settings.dropout,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        loss_scale=1e-4,
        seed=3,
    )


def milliseconds(
    dataset: PreparedDataset, *, hidden: int, batch_size: int, work: HeadWork, n_steps: int
) -> float:
    """Best time of a step of ours."""
    learner = learner_of(dataset, hidden=hidden, batch_size=batch_size, work=work)
    best = np.inf
    for number in range(n_steps):
        start = time.thread_time()
        learner.step(np.arange(number * batch_size, (number + 1) * batch_size))
        best = min(best, time.thread_time() - start)
    return 1e3 * best


def adam_milliseconds(n_parameters: int) -> float:
    """Best time of Adam alone, its gradient given: no exact step can be faster than this."""
    parameters, gradient = torch.zeros(n_parameters).requires_grad_(), torch.full((n_parameters,), 1e-3)
    adam = Adam({"all": parameters}, learning_rate=1e-3, weight_decay=1e-6)
    best = np.inf
    for _ in range(5):
        parameters.grad = gradient
        start = time.thread_time()
        adam.step()
        best = min(best, time.thread_time() - start)
    return 1e3 * best


def compare_many_endpoints(*, hidden: int, batch_size: int, n_steps: int) -> None:
    """20,000 endpoints, 100 labels a molecule, against the textbook, in turn.

    The data set is large enough that nearly all bits take part: with few molecules the trunk would be small.
    """
    dataset = simulated_dataset(
        n_structures=max(N_STRUCTURES, batch_size * n_steps), n_endpoints=20_000, labels_per_molecule=100
    )
    sides = {
        "motet": learner_of(dataset, hidden=hidden, batch_size=batch_size, work=None),
        "motet with a dense head": learner_of(dataset, hidden=hidden, batch_size=batch_size, work="dense"),
        "textbook": textbook_of(dataset, hidden=hidden),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(n_steps):
        rows = np.arange(number * batch_size, (number + 1) * batch_size)
        for name, side in sides.items():
            start = time.thread_time()
            told = side.step(rows)
            times[name].append(1e3 * (time.thread_time() - start))
            losses[name].append(told if isinstance(told, float) else told[0])
    gaps = [abs(a - b) for a, b in zip(losses["motet"], losses["textbook"], strict=True)]
    n_parameters = sum(tensor.numel() for tensor in sides["motet"].tensors.values())
    print(f"20,000 endpoints x 100 labels a molecule, hidden {hidden}, batches of {batch_size}")
    for name, found in times.items():
        print(f"  {name:<24} best {min(found):6.1f} ms a step, median {np.median(found):6.1f}")
    best, median = (
        how(times["textbook"]) / how(times["motet"]) for how in (min, lambda found: float(np.median(found)))
    )
    print(f"  ratio to the textbook    best {best:6.1f}, median {median:.1f}")
    print(f"  Adam alone on the {n_parameters / 1e6:.1f} million parameters that take part: ", end="")
    print(f"{adam_milliseconds(n_parameters):.1f} ms")
    gap = max(gaps) / (100 * batch_size)
    print(f"  largest difference of a step's mean loss {gap:.1e}")
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
                work: milliseconds(dataset, hidden=hidden, batch_size=batch_size, work=work, n_steps=n_steps)
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
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--crossover", action="store_true", help="also find where pairs become faster")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for batch_size in arguments.batch_size:
        compare_many_endpoints(hidden=arguments.hidden, batch_size=batch_size, n_steps=arguments.steps)
        if arguments.crossover:
            find_crossover(hidden=arguments.hidden, batch_size=batch_size, n_steps=arguments.steps)


if __name__ == "__main__":
    main()
