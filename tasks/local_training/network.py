"""The sparse multi-endpoint network: trunk (embedding bag, residual layers) and head, as functions.

Why: parameters stay plain named tensors, so that trunk and head can live apart and be summed, saved and
audited without a module tree. Runs: on the partner. Source: SparseChem (Arany et al.), ``SparseInputNet``,
``MiddleNet`` and ``LastNet``; ``embedding_bag`` instead of its sparse matrix product.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

Tensors = Mapping[str, Tensor]
Dropout = Callable[[Tensor], Tensor]
DRAWS = 2**31
"""Values that a random int32 of torch takes, from 0 up."""


def dropout_with(probability: float, generator: torch.Generator) -> Dropout:
    """Make inverted dropout that draws from a private generator."""
    if probability == 0:
        return lambda features: features
    keep = 1 - probability
    below = round(keep * DRAWS)

    def drop(features: Tensor) -> Tensor:
        draws = torch.empty(features.shape, dtype=torch.int32, device=features.device)
        kept = draws.random_(generator=generator) < below  # a quarter of the time of bernoulli_
        return features * kept.to(features.dtype).mul_(1 / keep)

    return drop


def without_dropout(features: Tensor) -> Tensor:
    """Let every feature pass; for prediction."""
    return features


def embed(weight: Tensor, bias: Tensor, *, bits: Tensor, starts: Tensor) -> Tensor:
    """Sum the rows of the set bits of each molecule.

    Args:
        weight: Shape ``(n_rows, H)``.
        bias: Shape ``(H,)``.
        bits: Row of each set bit, molecule after molecule.
        starts: Where each molecule starts in ``bits``, shape ``(n_molecules,)``.

    Returns:
        Shape ``(n_molecules, H)``.
    """
    return functional.embedding_bag(bits, weight, starts, mode="sum") + bias


def features_behind(embedded: Tensor, trunk: Tensors, *, dropout: Dropout) -> Tensor:
    """Send embedded molecules, shape ``(n_molecules, H)``, through the residual layers and the last ReLU."""
    features = embedded
    layer = 0
    while f"layers.{layer}.weight" in trunk:
        weight, bias = trunk[f"layers.{layer}.weight"], trunk[f"layers.{layer}.bias"]
        features = features + functional.linear(dropout(torch.relu(features)), weight, bias)
        layer += 1
    return dropout(torch.relu(features))


def logits_of(features: Tensor, head: Tensors) -> Tensor:
    """Apply a head: shape ``(n_molecules, H)`` to ``(n_molecules, n_endpoints)``."""
    return functional.linear(features, head["weight"], head["bias"])


def observed(logits: Tensor, *, row: Tensor, endpoint: Tensor) -> Tensor:
    """Pick the logits that have a label, shape ``(n_labels,)``."""
    return logits.reshape(-1).index_select(0, row * logits.shape[1] + endpoint)
