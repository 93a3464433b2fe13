"""A partner's head as a file: the first one, the last one, and one for each partner of a pooled model.

Why: whoever reads a head checks that it fits the data it is for. Runs: on the partner, in the training child. Source: own.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_contracts.plan import Modality
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import Centralised, LocalSteps, MinibatchGradient, Score
from tasks.local_training.parameters import (
    Parameters,
    check_layout,
    head_layout,
    initial_head,
    read_parameters,
    write_parameters,
)
from tasks.local_training.regression_heads import with_scales
from tasks.local_training.shared_model import Places

Rows = npt.NDArray[np.int64]


def last_or_first_head(
    job: LocalSteps | MinibatchGradient | Score,
    dataset: PreparedDataset,
    rows: Rows,
    *,
    hidden: int,
    places: Places | None,
) -> Parameters:
    """Read the partner's last head, or draw its first one, whose scales the training rows decide."""
    if job.head is not None:
        return read_head(job.head, dataset, hidden=hidden, modality=job.modality)
    head = initial_head(dataset.n_endpoints, hidden, seed=job.head_seed)
    return with_scales(head, dataset, rows, modality=job.modality, places=places)


def read_head(path: Path, dataset: PreparedDataset, *, hidden: int, modality: Modality) -> Parameters:
    """Read a head.

    Raises:
        UpdateMismatch: If it is damaged, or does not fit the data set.
    """
    head = read_parameters(path)
    check_layout(head, head_layout(dataset.n_endpoints, hidden, modality=modality))
    return head


def joined_heads(job: Centralised, dataset: PreparedDataset, rows: Rows, *, hidden: int) -> Parameters:
    """Draw the first heads of all partners as one head, each from its own seed."""
    joined = initial_head(dataset.n_endpoints, hidden, seed=0)
    for numbers, seed in zip(dataset.endpoints_of, job.head_seeds, strict=True):
        for name, array in initial_head(len(numbers), hidden, seed=seed).items():
            joined[name][numbers] = array
    return with_scales(joined, dataset, rows, modality=job.modality)


def head_path(output: Path, number: int) -> Path:
    """Where the head of a partner lies, by its place among the data sets."""
    return output / f"head-{number}.safetensors"


def write_arm(output: Path, trunk: Parameters, head: Parameters, *, dataset: PreparedDataset) -> None:
    """Write a trunk, and each partner's rows of the head."""
    write_parameters(output / "trunk.safetensors", trunk)
    for number, rows in enumerate(dataset.endpoints_of):
        write_parameters(head_path(output, number), {name: array[rows] for name, array in head.items()})
