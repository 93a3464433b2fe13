"""How good is one network on all of ChEMBL, against the textbook network on the same folds? Epoch by epoch.

Why: uplift means little over a weak model; the published recipe is the bar. Runs: by hand, minutes,
`python benchmarks/quality.py chembl_5thresh.csv.gz --arms textbook motet --key melloddy`, a row of results an epoch.
Source: thresholds 5.5, 6.5, 7.5, quorum 25 and 25, Murcko scaffolds hashed to five folds as MELLODDY-TUNER hashes them; an
endpoint counts with 5 actives and 5 inactives in each fold. Epochs and settings are chosen on fold 4, fold 0 chooses nothing.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds import MurckoScaffold
from training_textbook import Textbook, TextbookTraining, fingerprint_matrix

from tasks.evaluation.calibration import fit_calibration, logits_of_probabilities
from tasks.evaluation.metrics import METRICS, endpoint_metrics
from tasks.evaluation.score_tables import Scores
from tasks.featurization.fingerprints import hashed_bits_of
from tasks.featurization.folds import generic_scaffold
from tasks.featurization.published_folds import ACYCLIC, published_fold
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import TrainingSettings
from tasks.local_training.learner import Learner
from tasks.local_training.parameters import PUBLISHED_HEAD_GAIN, Parameters, initial_head, initial_trunk
from tasks.local_training.scoring import predict
from tasks.simulation.wide_tables import read_wide_table

THRESHOLDS = (5.5, 6.5, 7.5)
QUORUM = 25
MAX_HEAVY_ATOMS = 100
MIN_PER_CLASS = 5
TRAINING, VALIDATION, TEST = (1, 2, 3), (4,), (0,)
PUBLISHED = TrainingSettings(batch_size=279, learning_rate=1e-3, dropout=0.6, weight_decay=1e-6)

Prediction = Callable[[tuple[int, ...]], Scores]


@dataclass(frozen=True)
class Table:
    """The public table on fingerprints."""

    bit_starts: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint16]
    scaffold: npt.NDArray[np.str_]
    row: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]


def read_table(path: Path, *, scaffold: str, merged: bool) -> Table:
    """Read the wide table and hash its structures; where asked, structures of equal fingerprint become one.

    Structures as given and none of 100 heavy atoms: 23,730 in 599 endpoints of chembl_5thresh, as first measured. Not
    merged, stereoisomers may stand in different folds, which flatters every arm alike.
    """
    wide = read_wide_table(path)
    with rdBase.BlockLogs():
        mols = [Chem.MolFromSmiles(smiles) for smiles in wide.smiles]
    small = np.array([mol.GetNumHeavyAtoms() < MAX_HEAVY_ATOMS for mol in mols])
    starts, bits = hashed_bits_of(mols)
    contents = [bits[low:high].tobytes() for low, high in itertools.pairwise(starts)]
    first: dict[object, int] = {}
    for number in np.flatnonzero(small):
        first.setdefault(contents[number] if merged else int(number), int(number))
    kept = list(first.values())
    place = {name: number for number, name in enumerate(first)}
    new = np.array([place.get(contents[k] if merged else k, -1) for k in range(len(mols))])
    usable = small[wide.row]
    n_targets = len(wide.targets)
    pair, inverse = np.unique(new[wide.row[usable]] * n_targets + wide.target[usable], return_inverse=True)
    name_of = generic_scaffold if scaffold == "generic" else _murcko
    return Table(
        bit_starts=np.append(0, np.cumsum([starts[k + 1] - starts[k] for k in kept])),
        bits=np.concatenate([bits[starts[k] : starts[k + 1]] for k in kept]),
        scaffold=np.array([name_of(mols[k]) for k in kept]),
        row=pair // n_targets,
        target=pair % n_targets,
        value=np.bincount(inverse, weights=wide.value[usable]) / np.bincount(inverse),
    )


def _murcko(mol: object) -> str:
    return Chem.MolToSmiles(MurckoScaffold.GetScaffoldForMol(mol)) or ACYCLIC


def dataset_of(table: Table, *, key: str) -> PreparedDataset:
    """Labels of all endpoints that meet the quorum, and folds under a key."""
    scaffolds, inverse = np.unique(table.scaffold, return_inverse=True)
    fold = np.array([published_fold(str(name), key=key.encode()) for name in scaffolds], dtype=np.int8)[
        inverse
    ]
    n_rows, n_targets = len(fold), int(table.target.max()) + 1
    endpoint = np.concatenate([table.target + n_targets * k for k in range(len(THRESHOLDS))])
    label = np.concatenate([table.value >= threshold for threshold in THRESHOLDS]).astype(np.int8)
    row = np.tile(table.row, len(THRESHOLDS))
    n_endpoints = n_targets * len(THRESHOLDS)
    cells = np.stack([np.bincount(endpoint[label == k], minlength=n_endpoints) for k in (0, 1)])
    trained = cells.min(axis=0) >= QUORUM
    number = np.cumsum(trained) - 1
    kept = trained[endpoint]
    row, endpoint, label = row[kept], number[endpoint[kept]], label[kept]
    order = np.lexsort((endpoint, row))
    row, endpoint, label = row[order], endpoint[order], label[order]
    per_fold = np.zeros((5, 2, int(trained.sum())), dtype=np.int64)
    np.add.at(per_fold, (fold[row], label, endpoint), 1)
    return PreparedDataset(
        bit_starts=table.bit_starts,
        bits=table.bits,
        fold=fold,
        label_starts=np.searchsorted(row, np.arange(n_rows + 1)),
        label_endpoint=endpoint.astype(np.int32),
        label_value=label,
        endpoint_weight=np.ones(int(trained.sum()), dtype=np.float32),
        in_evaluation=(per_fold >= MIN_PER_CLASS).all(axis=(0, 1)),
        endpoints_of=(np.arange(int(trained.sum())),),
    )


def figures(
    dataset: PreparedDataset, scores: Scores, probability: npt.NDArray[np.float64]
) -> dict[str, float]:
    """Means over the endpoints that count."""
    found = endpoint_metrics(scores.endpoint, scores.label, probability, n_endpoints=dataset.n_endpoints)
    return {name: float(np.mean(getattr(found, name)[dataset.in_evaluation])) for name in METRICS}


def judged(dataset: PreparedDataset, prediction: Prediction) -> dict[str, dict[str, float]]:
    """Both folds; the test fold also with the calibration that fold 4 gives."""
    known, test = prediction(VALIDATION), prediction(TEST)
    logits = [logits_of_probabilities(part.probability) for part in (known, test)]
    fitted = fit_calibration(known.endpoint, known.label, logits[0], n_endpoints=dataset.n_endpoints)
    return {
        "fold 4": figures(dataset, known, known.probability),
        "fold 0": figures(dataset, test, test.probability),
        "fold 0, calibrated": figures(dataset, test, fitted.apply(test.endpoint, logits[1])),
    }


def motet(
    dataset: PreparedDataset, *, settings: TrainingSettings, hidden: int, epochs: int, decay: float, seed: int
) -> Iterator[tuple[Parameters, Parameters]]:
    """Train; trunk and head after every epoch."""
    rows = dataset.training_rows(TRAINING)
    trunk = initial_trunk(hidden, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    learner = Learner(
        dataset,
        rows,
        trunk=trunk,
        head=initial_head(dataset.n_endpoints, hidden, seed=seed + 1),
        settings=settings,
        generator=generator,
        loss_scale=1 / settings.batch_size,
    )
    for epoch in range(epochs):
        learner.set_learning_rate(settings.learning_rate * decay**epoch)
        order = torch.randperm(len(rows), generator=generator).numpy()
        for batch in np.array_split(rows[order], round(len(rows) / settings.batch_size)):
            learner.step(batch)
        learner.write_trunk(trunk)
        yield trunk, learner.head_arrays()


def textbook(dataset: PreparedDataset, *, hidden: int, epochs: int, seed: int) -> Iterator[Textbook]:
    """Train the textbook's network with the published settings; the network after every epoch."""
    rows = dataset.training_rows(TRAINING)
    training = TextbookTraining(
        dataset,
        trunk=initial_trunk(hidden, seed=seed),
        head=initial_head(dataset.n_endpoints, hidden, seed=seed + 1, gain=PUBLISHED_HEAD_GAIN),
        dropout=PUBLISHED.dropout,
        learning_rate=PUBLISHED.learning_rate,
        weight_decay=PUBLISHED.weight_decay,
        loss_scale=1 / PUBLISHED.batch_size,
        seed=seed,
    )
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        training.network.train()
        for batch in np.array_split(rng.permutation(rows), round(len(rows) / PUBLISHED.batch_size)):
            training.step(batch)
        training.network.eval()
        yield training.network


def textbook_prediction(dataset: PreparedDataset, network: Textbook) -> Prediction:
    """Predict all observed labels of some folds with the textbook's network."""

    @torch.no_grad()
    def prediction(folds: tuple[int, ...]) -> Scores:
        rows = dataset.rows(folds)
        labels = dataset.labels_of(rows)
        logits = network(fingerprint_matrix(dataset, rows))[
            torch.from_numpy(labels.row), torch.from_numpy(labels.endpoint)
        ]
        return Scores(
            structure=rows[labels.row],
            endpoint=labels.endpoint,
            label=labels.value.astype(np.int8),
            probability=torch.sigmoid(logits.double()).numpy(),
        )

    return prediction


class Averaged:
    """Mean of parameters over the last half of the epochs so far: stochastic weight averaging (Izmailov et al. 2018)."""

    def __init__(self) -> None:
        self._kept: list[tuple[Parameters, Parameters]] = []

    def add(self, trunk: Parameters, head: Parameters) -> tuple[Parameters, Parameters]:
        """Add an epoch; the mean."""
        self._kept.append(
            tuple({name: array.copy() for name, array in part.items()} for part in (trunk, head))
        )
        last = self._kept[len(self._kept) // 2 :]
        for place in range(len(self._kept) // 2):
            self._kept[place] = ({}, {})
        return tuple(
            {name: np.mean([kept[part][name] for kept in last], axis=0) for name in last[0][part]}
            for part in (0, 1)
        )


def run(
    arm: str, dataset: PreparedDataset, chosen: argparse.Namespace, *, seed: int
) -> Iterator[tuple[str, Prediction]]:
    """Train an arm; a name and a way to predict after every epoch."""
    if arm == "textbook":
        for network in textbook(dataset, hidden=chosen.hidden, epochs=chosen.epochs, seed=seed):
            yield arm, textbook_prediction(dataset, network)
        return
    settings = TrainingSettings(
        batch_size=chosen.batch_size,
        learning_rate=chosen.learning_rate,
        dropout=chosen.dropout,
        weight_decay=chosen.weight_decay,
    )
    averaged = Averaged()
    trained = motet(
        dataset, settings=settings, hidden=chosen.hidden, epochs=chosen.epochs, decay=chosen.decay, seed=seed
    )
    for trunk, head in trained:
        yield arm, _prediction(dataset, trunk, head)
        yield f"{arm}, averaged", _prediction(dataset, *averaged.add(trunk, head))


def _prediction(dataset: PreparedDataset, trunk: Parameters, head: Parameters) -> Prediction:
    return lambda folds: predict(dataset, folds, trunk=trunk, head=head)


def parser() -> argparse.ArgumentParser:
    """What can be chosen."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("table", type=Path)
    found.add_argument("--arms", nargs="+", choices=("textbook", "motet"), default=["textbook", "motet"])
    found.add_argument("--scaffold", choices=("murcko", "generic"), default="murcko")
    found.add_argument("--merged", action="store_true", help="structures of equal fingerprint become one")
    found.add_argument("--key", nargs="+", default=["melloddy"], help="a split for each key")
    found.add_argument("--seeds", type=int, nargs="+", default=[1])
    found.add_argument("--epochs", type=int, default=10)
    found.add_argument("--hidden", type=int, default=400)
    found.add_argument(
        "--decay", type=float, default=1.0, help="factor on the learning rate after every epoch"
    )
    for name in ("batch_size", "learning_rate", "dropout", "weight_decay"):
        default = getattr(PUBLISHED, name)
        found.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return found


def main() -> None:
    """Train every arm on every split; print one JSON line an epoch."""
    chosen = parser().parse_args()
    torch.set_num_threads(1)
    table = read_table(chosen.table, scaffold=chosen.scaffold, merged=chosen.merged)
    settings = {
        name: value for name, value in vars(chosen).items() if name not in ("table", "arms", "key", "seeds")
    }
    for key in chosen.key:
        dataset = dataset_of(table, key=key)
        data = {
            "structures": dataset.n_structures,
            "endpoints": dataset.n_endpoints,
            "counted": int(dataset.in_evaluation.sum()),
            "labels": len(dataset.label_value),
            "training structures": len(dataset.training_rows(TRAINING)),
        }
        print(json.dumps({"key": key, **data, "settings": settings}), flush=True)
        for arm in chosen.arms:
            for seed in chosen.seeds:
                numbers: dict[str, int] = {}
                start = time.process_time()
                for name, prediction in run(arm, dataset, chosen, seed=seed):
                    numbers[name] = numbers.get(name, 0) + 1
                    line = {"key": key, "arm": name, "seed": seed, "epoch": numbers[name]}
                    seconds = {"cpu_seconds": round(time.process_time() - start, 1)}
                    print(json.dumps(line | judged(dataset, prediction) | seconds), flush=True)


if __name__ == "__main__":
    main()
