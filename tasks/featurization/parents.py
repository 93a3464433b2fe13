"""Distinct parents of a partner's structures, with their folds and set bits.

Why: the same structure is brought under many names, as salts and as stereoisomers; it is featurized once, and
what was measured on any of them counts for the one parent. Runs: on the partner. Source: MELLODDY-TUNER's
``descriptor_vector_id``, here by a keyed name of the parent instead of by its fingerprint.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.featurization.folds import fold_of_scaffold, structure_key
from tasks.featurization.standardization import REASONS
from tasks.featurization.worker_pool import LOST_REASONS, WorkerPool

CHUNK_STRUCTURES = 500
NO_PARENT = -1
UNUSABLE = (*REASONS, *LOST_REASONS)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Parents:
    """Distinct parents, sorted by their keyed name, and where each structure row went.

    Attributes:
        key: Keyed name of each parent, sorted, shape ``(n_parents,)``; the order tells nothing about the source.
        fold: Fold of each parent.
        bits: ``pa.ListArray`` of uint16, the set bits of each parent.
        of_row: Parent of each structure row, ``NO_PARENT`` where there is none, shape ``(n_rows,)``.
        reason_of_row: ``pa.StringArray``; one of ``UNUSABLE`` where there is no parent, else null.
    """

    key: npt.NDArray[np.object_]
    fold: npt.NDArray[np.int8]
    bits: Any
    of_row: npt.NDArray[np.int64]
    reason_of_row: Any


def find_parents(smiles: Any, *, secret: bytes, workers: int, progress: Progress) -> Parents:
    """Featurize each distinct SMILES once, and merge those that have one parent.

    Args:
        smiles: ``pa.ChunkedArray`` of strings without nulls, n_rows of them.
        secret: The consortium's secret; it does not reach the workers.
        workers: Number of processes.
        progress: Called with the number of distinct SMILES done and their total.

    Returns:
        The parents.

    Raises:
        WorkFailed: If the workers cannot work.
    """
    encoded = smiles.combine_chunks().dictionary_encode()
    row = encoded.indices.to_numpy()
    answers = _answers(encoded.dictionary, workers=workers, progress=progress)
    sound = np.flatnonzero(pc.is_null(answers.column("reason")).to_numpy())
    good = answers.take(pa.array(sound)).combine_chunks()
    parent = good.column("parent").combine_chunks().dictionary_encode()
    texts = parent.dictionary.to_pylist()
    keys = np.array([structure_key(text, secret=secret) for text in texts], dtype=object)
    order = np.argsort(keys)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    _, first = np.unique(parent.indices.to_numpy(), return_index=True)
    of_distinct = np.full(len(encoded.dictionary), NO_PARENT, dtype=np.int64)
    of_distinct[sound] = rank[parent.indices.to_numpy()]
    # Equal parents have equal fingerprints and scaffolds: any of their rows speaks for them.
    return Parents(
        key=keys[order],
        fold=_folds(good.column("scaffold").combine_chunks(), secret=secret)[first][order],
        bits=good.column("bits").combine_chunks().take(pa.array(first[order])),
        of_row=of_distinct[row],
        reason_of_row=answers.column("reason").combine_chunks().take(encoded.indices),
    )


def _answers(smiles: Any, *, workers: int, progress: Progress) -> Any:
    """Have the workers featurize distinct SMILES; a table of ``worker.ANSWER`` in their order."""
    starts = range(0, len(smiles), CHUNK_STRUCTURES)
    answers = []
    with WorkerPool(workers) as pool:
        for done, answer in _counted(pool.map(smiles.slice(start, CHUNK_STRUCTURES) for start in starts)):
            answers.append(answer)
            progress(done, len(smiles))
    return pa.Table.from_batches(answers)


def _counted(answers: Iterator[Any]) -> Iterator[tuple[int, Any]]:
    done = 0
    for answer in answers:
        done += answer.num_rows
        yield done, answer


def _folds(scaffolds: Any, *, secret: bytes) -> npt.NDArray[np.int8]:
    encoded = scaffolds.dictionary_encode()
    folds = [fold_of_scaffold(text, secret=secret) for text in encoded.dictionary.to_pylist()]
    found: npt.NDArray[np.int8] = np.array(folds, dtype=np.int8)[encoded.indices.to_numpy()]
    return found
