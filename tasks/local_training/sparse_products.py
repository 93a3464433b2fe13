"""Two products of the network on what is there alone: sums of set bits' rows, and logits of observed pairs.

Why: a molecule sets 70 of 32,768 bits and has labels on 1 of 100 endpoints or fewer; torch's own backward pass of
the first sorts row by row, and the dense form of the second computes what nobody observed. Both run here through
torch's embedding-bag kernels in both directions, without a matrix of the size of the pairs.
Runs: on the partner, in the training child. Source: own; sampled dense-dense product and its transposes.
"""

from collections.abc import Iterator
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Parameter
from typing_extensions import override

Index = npt.NDArray[np.int64]
SUM = 0  # torch's number for the mode of a bag


class RowGradient(Protocol):
    """The gradient of a matrix, computed where and when it is needed."""

    def blocks(self, n_rows: int) -> Iterator[Tensor]:
        """The gradient of ``n_rows`` rows after another, shape ``(n_rows, H)`` or less at the end, each in memory of its own."""


class RowwiseMatrix(Parameter):
    """A matrix in training whose gradient the products below leave as a recipe, never as a matrix of its size.

    The optimizer asks for the gradient of a few rows at a time, which then never leaves the processor's cache.
    Other operations treat it as any tensor, with a gradient in ``grad``; all gradients add up.

    Attributes:
        gradients: What has been left since the last step.
    """

    gradients: list[RowGradient]

    @classmethod
    def of(cls, matrix: Tensor) -> Self:
        """Share a matrix's memory, shape ``(n_rows, H)``."""
        made = cls(matrix.detach())
        made.gradients = []
        return made

    def gradient_blocks(self, n_rows: int) -> Iterator[Tensor]:
        """Add up all gradients that were left, ``n_rows`` rows at a time."""
        first, *others = [gradient.blocks(n_rows) for gradient in self.gradients]
        if self.grad is not None:
            others.append(iter(torch.split(self.grad, n_rows)))
        for block in first:
            yield sum((next(other) for other in others), start=block)

    def whole_gradient(self) -> Tensor | None:
        """Add up all gradients that were left; None where there is none."""
        return next(self.gradient_blocks(self.shape[0])) if self.gradients else self.grad


class Pull:
    """The gradient of ``strength / 2 |tensor - start|^2``.

    Args:
        tensor: What is pulled.
        start: Where to; the same shape.
        strength: How strongly.
    """

    def __init__(self, tensor: Tensor, start: Tensor, *, strength: float) -> None:
        self._tensor, self._start, self._strength = tensor.detach(), start, strength

    def blocks(self, n_rows: int) -> Iterator[Tensor]:
        """See ``RowGradient``."""
        for tensor, start in zip(
            torch.split(self._tensor, n_rows), torch.split(self._start, n_rows), strict=True
        ):
            yield (tensor - start).mul_(self._strength)

    def whole(self) -> Tensor:
        """The gradient of all rows."""
        return next(self.blocks(len(self._tensor)))


class _Transposed:
    """Elements of compressed rows, ordered by what they point at.

    Args:
        target: What each element points at, shape ``(n,)``, in ``[0, n_targets)``.
        owner: The row that each element belongs to, shape ``(n,)``.
        n_targets: Number of targets.
        device: Where the products run.
    """

    def __init__(self, target: Index, owner: Index, *, n_targets: int, device: torch.device) -> None:
        narrow = target.astype(np.uint16) if n_targets <= np.iinfo(np.uint16).max + 1 else target
        order = np.argsort(narrow, kind="stable")  # a radix sort for 16 bits
        counts = np.bincount(target, minlength=n_targets)
        self.starts = np.cumsum(counts) - counts
        self.order = torch.from_numpy(order).to(device)
        self.target = torch.from_numpy(target[order]).to(device)
        self.owner = torch.from_numpy(owner[order]).to(device)

    def products(self, targets: Tensor, values: Tensor) -> Tensor:
        """Dot products of each element's target and owner, in the elements' first order, shape ``(n,)``.

        Target after target, so that the long matrix streams past while the short one stays in the cache.
        """
        found = torch.ops.aten._embedding_bag_per_sample_weights_backward(  # noqa: SLF001 - no public name; torch is pinned
            targets, values, self.owner, torch.from_numpy(self.starts).to(values.device), self.target, SUM
        )  # the gradient of a bag by its factors is one dot product an element, which is what is wanted here
        return torch.empty_like(found).index_copy_(0, self.order, found)


class _SumsOverElements:
    """The gradient of a matrix whose rows are the targets: sums over each target's elements.

    Args:
        by_target: The elements.
        values: What an element adds, by its owner, shape ``(n_owners, H)``.
        factors: Factor of each element, in their first order; None for ones.
    """

    def __init__(self, by_target: _Transposed, values: Tensor, *, factors: Tensor | None = None) -> None:
        self._by_target = by_target
        self._values = values
        self._factors = None if factors is None else factors.index_select(0, by_target.order)

    def blocks(self, n_rows: int) -> Iterator[Tensor]:
        """See ``RowGradient``."""
        elements = self._by_target
        first = np.arange(0, len(elements.starts), n_rows)
        begin = elements.starts[first]
        sizes = np.diff(begin, append=len(elements.order)).tolist()
        within = elements.starts - np.repeat(begin, n_rows)[: len(elements.starts)]
        starts = torch.split(torch.from_numpy(within).to(elements.owner.device), n_rows)
        factors = [None] * len(sizes) if self._factors is None else torch.split(self._factors, sizes)
        for owner, start, factor in zip(torch.split(elements.owner, sizes), starts, factors, strict=True):
            yield bags(self._values, owner, start, factors=factor)


def _left_for_later(weight: Tensor, gradient: RowGradient) -> Tensor | None:
    """Leave a gradient as a recipe where the matrix takes one; otherwise compute it for autograd."""
    if isinstance(weight, RowwiseMatrix):
        weight.gradients.append(gradient)
        return None
    return next(gradient.blocks(len(weight)))


class _SumOfRows(torch.autograd.Function):
    """See ``sum_of_rows``."""

    @staticmethod
    @override
    def forward(ctx: Any, weight: Tensor, bits: Index, starts: Index) -> Tensor:
        ctx.structure = (weight, bits, starts)
        return bags(
            weight, torch.from_numpy(bits).to(weight.device), torch.from_numpy(starts).to(weight.device)
        )

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        weight, bits, starts = ctx.structure
        owner = owners(starts, n=len(bits))
        by_row = _Transposed(bits, owner, n_targets=len(weight), device=weight.device)
        return _left_for_later(weight, _SumsOverElements(by_row, gradients[0])), None, None


class _PairLogits(torch.autograd.Function):
    """See ``pair_logits``."""

    @staticmethod
    @override
    def forward(ctx: Any, features: Tensor, weight: Tensor, pairs: tuple[Index, Index, Index]) -> Tensor:
        endpoint, row, starts = pairs
        by_endpoint = _Transposed(endpoint, row, n_targets=len(weight), device=weight.device)
        ctx.structure = (features, weight, endpoint, starts, by_endpoint)
        return by_endpoint.products(weight, features)

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        features, weight, endpoint, starts, by_endpoint = ctx.structure
        by_pair = gradients[0].contiguous()
        of_features = bags(
            weight,
            torch.from_numpy(endpoint).to(weight.device),
            torch.from_numpy(starts).to(weight.device),
            factors=by_pair,
        )
        of_weight = _SumsOverElements(by_endpoint, features.detach(), factors=by_pair)
        return of_features, _left_for_later(weight, of_weight), None


def bags(rows: Tensor, chosen: Tensor, starts: Tensor, *, factors: Tensor | None = None) -> Tensor:
    """Sum chosen rows, times factors, bag after bag; shape ``(n_bags, H)``."""
    return torch.embedding_bag(rows, chosen, starts, False, SUM, False, factors)[0]


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
