"""Two products of the network on what is there alone: sums of set bits' rows, and logits of observed pairs.

Why: a molecule sets 70 of 32,768 bits and has labels on 1 of 100 endpoints or fewer; torch's own backward pass of
the first sorts row by row, and the dense form of the second computes what nobody observed. Both run here through
torch's embedding-bag kernels in both directions, without a matrix of the size of the pairs.
Runs: on the partner, in the training child. Source: own; sampled dense-dense product and its transposes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from typing_extensions import override

Index = npt.NDArray[np.int64]
SUM = 0  # torch's number for the mode of a bag


class _Transposed:
    """Elements of compressed rows, ordered by what they point at.

    Args:
        target: What each element points at, shape ``(n,)``, in ``[0, n_targets)``.
        owner: The row that each element belongs to, shape ``(n,)``.
        n_targets: Number of targets.
    """

    def __init__(self, target: Index, owner: Index, *, n_targets: int) -> None:
        narrow = target.astype(np.uint16) if n_targets <= np.iinfo(np.uint16).max + 1 else target
        order = np.argsort(narrow, kind="stable")  # a radix sort for 16 bits
        counts = np.bincount(target, minlength=n_targets)
        self.order = torch.from_numpy(order)
        self.target = torch.from_numpy(target[order])
        self.owner = torch.from_numpy(owner[order])
        self.starts = torch.from_numpy(np.cumsum(counts) - counts)

    def sums(self, values: Tensor, *, factors: Tensor | None = None) -> Tensor:
        """Sum over each target's elements the values of their owners, times factors; ``(n_targets, H)``."""
        chosen = None if factors is None else factors.index_select(0, self.order)
        return functional.embedding_bag(
            self.owner, values, self.starts, mode="sum", per_sample_weights=chosen
        )

    def products(self, targets: Tensor, values: Tensor) -> Tensor:
        """Dot products of each element's target and owner, in the elements' first order, shape ``(n,)``.

        Target after target, so that the long matrix streams past while the short one stays in the cache.
        """
        found = torch.ops.aten._embedding_bag_per_sample_weights_backward(  # noqa: SLF001 - no public name; torch is pinned
            targets, values, self.owner, self.starts, self.target, SUM
        )  # the gradient of a bag by its factors is one dot product an element, which is what is wanted here
        return torch.empty_like(found).index_copy_(0, self.order, found)


class _SumOfRows(torch.autograd.Function):
    """See ``sum_of_rows``."""

    @staticmethod
    @override
    def forward(ctx: Any, weight: Tensor, bits: Index, starts: Index) -> Tensor:
        ctx.structure = (bits, starts, len(weight))
        return functional.embedding_bag(torch.from_numpy(bits), weight, torch.from_numpy(starts), mode="sum")

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        bits, starts, n_rows = ctx.structure
        owner = owners(starts, n=len(bits))
        return _Transposed(bits, owner, n_targets=n_rows).sums(gradients[0]), None, None


class _PairLogits(torch.autograd.Function):
    """See ``pair_logits``."""

    @staticmethod
    @override
    def forward(ctx: Any, features: Tensor, weight: Tensor, pairs: tuple[Index, Index, Index]) -> Tensor:
        endpoint, row, starts = pairs
        by_endpoint = _Transposed(endpoint, row, n_targets=len(weight))
        ctx.save_for_backward(features, weight)
        ctx.structure = (endpoint, starts, by_endpoint)
        return by_endpoint.products(weight, features)

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        features, weight = ctx.saved_tensors
        endpoint, starts, by_endpoint = ctx.structure
        by_pair = gradients[0].contiguous()
        of_features = functional.embedding_bag(
            torch.from_numpy(endpoint),
            weight,
            torch.from_numpy(starts),
            mode="sum",
            per_sample_weights=by_pair,
        )
        return of_features, by_endpoint.sums(features, factors=by_pair), None


def sum_of_rows(weight: Tensor, *, bits: Index, starts: Index) -> Tensor:
    """Sum the rows of the set bits of each molecule.

    Args:
        weight: Shape ``(n_rows, H)``.
        bits: Row of each set bit, molecule after molecule.
        starts: Where each molecule starts in ``bits``, shape ``(n_molecules,)``.

    Returns:
        Shape ``(n_molecules, H)``; differentiable once by ``weight``.
    """
    return _SumOfRows.apply(weight, bits, starts)  # type: ignore[no-any-return, no-untyped-call]


def pair_logits(features: Tensor, weight: Tensor, *, endpoint: Index, row: Index, starts: Index) -> Tensor:
    """Multiply features and head on observed pairs alone.

    Args:
        features: Shape ``(n_molecules, H)``.
        weight: Head rows, shape ``(n_endpoints, H)``.
        endpoint: Head row of each pair, molecule after molecule, shape ``(n_pairs,)``.
        row: Molecule of each pair, ascending.
        starts: Where each molecule's pairs start, shape ``(n_molecules,)``.

    Returns:
        Shape ``(n_pairs,)``, without bias; differentiable once by ``features`` and ``weight``.
    """
    return _PairLogits.apply(features, weight, (endpoint, row, starts))  # type: ignore[no-any-return, no-untyped-call]


def owners(starts: Index, *, n: int) -> Index:
    """The row that each of n elements of compressed rows belongs to."""
    return np.repeat(np.arange(len(starts)), np.diff(starts, append=n))
