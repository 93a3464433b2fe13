"""The logits of a head in training: all endpoints of a batch at once, or only the pairs that were observed.

Why: with 20,000 endpoints and 100 labels a molecule a dense head wastes 99.5 % of its work; with 200 endpoints and
4 labels a matrix product is still the faster way. Runs: on the partner, in the training child.
Source: own; the choice and the constants behind it are measured by benchmarks/training_endpoints.py.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tasks.local_training.dataset import Labels
from tasks.local_training.network import logits_of, observed
from tasks.local_training.sparse_products import pair_logits

HeadWork = Literal["dense", "pairs"]

PAIR_COST = 10.0
"""Time of one observed pair in units of one cell of the dense head, both with backward pass and optimizer."""


def head_work(*, n_endpoints: int, labels_per_molecule: float) -> HeadWork:
    """Choose how a head is computed; a function of the data alone, so that a job repeats to the bit.

    Args:
        n_endpoints: Rows of the head.
        labels_per_molecule: Mean number of observed labels of a training molecule.
    """
    return "pairs" if labels_per_molecule * PAIR_COST < n_endpoints else "dense"


def all_logits(features: Tensor, head: Mapping[str, Tensor], labels: Labels, *, n_molecules: int) -> Tensor:
    """Compute every cell of (molecule, endpoint), then pick the observed ones.

    Args:
        features: Shape ``(n_molecules, H)``.
        head: ``weight (n_endpoints, H)`` and ``bias (n_endpoints,)``.
        labels: Observed labels of the molecules.
        n_molecules: Number of molecules.

    Returns:
        Shape ``(n_labels,)``.
    """
    del n_molecules
    device = features.device
    row, endpoint = torch.from_numpy(labels.row).to(device), torch.from_numpy(labels.endpoint).to(device)
    return observed(logits_of(features, head), row=row, endpoint=endpoint)


def observed_logits(
    features: Tensor, head: Mapping[str, Tensor], labels: Labels, *, n_molecules: int
) -> Tensor:
    """As ``all_logits``, but only observed pairs are multiplied, forward and backward."""
    counts = np.bincount(labels.row, minlength=n_molecules)
    products = pair_logits(
        features,
        head["weight"],
        endpoint=labels.endpoint,
        row=labels.row,
        starts=np.cumsum(counts) - counts,
    )
    endpoint = torch.from_numpy(labels.endpoint).to(features.device)
    return products + head["bias"].index_select(0, endpoint)


LOGITS = {"dense": all_logits, "pairs": observed_logits}
"""What computes a head, by its work."""
