"""A prepared data set as memory-mapped compressed sparse rows.

Why: a batch is assembled by a few numpy calls instead of Python per row, and a data set larger than memory
still opens at once. Runs: on the partner, inside the training child. Source: own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.catalogue import ENDPOINTS, HASHED_FINGERPRINTS, LABELS
from data_contracts.errors import ContractViolation
from data_contracts.writing import read_table

ROWS_AT_A_TIME = 65_536
"""Structures whose labels or bits are unpacked together: bounds memory whatever the number of structures."""
TRAINING_FOLDS = (1, 2, 3)
VALIDATION_FOLDS = (4,)
TEST_FOLDS = (0,)


@dataclass(frozen=True)
class Labels:
    """Observed labels of a run of rows.

    ``row`` counts from 0 within that run; ``value`` is 0.0 or 1.0; all have shape ``(n_labels,)``.
    """

    row: npt.NDArray[np.int64]
    endpoint: npt.NDArray[np.int64]
    value: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class PreparedDataset:
    """Fingerprints, folds and labels of one or more partners' prepared directories.

    Args:
        bit_starts: Row pointer into ``bits``, shape ``(n_structures + 1,)``.
        bits: Set bits of all fingerprints, uint16, row after row.
        fold: Fold of each structure, shape ``(n_structures,)``.
        label_starts: Row pointer into the labels, shape ``(n_structures + 1,)``.
        label_endpoint: Endpoint index of each label.
        label_value: 1 for active, 0 for inactive.
        endpoint_weight: Weight of each endpoint in the loss; 0 where it is not trained, shape ``(n_endpoints,)``.
        in_evaluation: Which endpoints enter means, shape ``(n_endpoints,)``.
        endpoints_of: For each partner, in order, where its endpoints stand here; one entry unless pooled.
    """

    bit_starts: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint16]
    fold: npt.NDArray[np.int8]
    label_starts: npt.NDArray[np.int64]
    label_endpoint: npt.NDArray[np.int32]
    label_value: npt.NDArray[np.int8]
    endpoint_weight: npt.NDArray[np.float32]
    in_evaluation: npt.NDArray[np.bool_]
    endpoints_of: tuple[npt.NDArray[np.int64], ...]

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Map ``fingerprints.arrow``, ``endpoints.arrow`` and ``labels.arrow`` of a prepared directory.

        Raises:
            ContractViolation: If a file is missing, damaged, breaks its contract, or labels point outside.
        """
        fingerprints = read_table(directory / "fingerprints.arrow", HASHED_FINGERPRINTS)
        endpoints = read_table(directory / "endpoints.arrow", ENDPOINTS)
        labels = read_table(directory / "labels.arrow", LABELS)
        n_structures, n_endpoints = fingerprints.num_rows, endpoints.num_rows
        bit_starts, bits = _list_column(fingerprints.column("bits"))
        structure = _numbers(labels, "structure_index")
        dataset = cls(
            bit_starts=bit_starts,
            bits=bits,
            fold=_numbers(fingerprints, "fold"),
            label_starts=np.searchsorted(structure, np.arange(n_structures + 1)).astype(np.int64),
            label_endpoint=_numbers(labels, "endpoint_index"),
            label_value=_numbers(labels, "label"),
            endpoint_weight=np.where(
                _flags(endpoints, "in_training"), _numbers(endpoints, "weight"), 0.0
            ).astype(np.float32),
            in_evaluation=_flags(endpoints, "in_evaluation"),
            endpoints_of=(np.arange(n_endpoints),),
        )
        unknown = (
            dataset.label_endpoint.max(initial=-1) >= n_endpoints or structure.max(initial=-1) >= n_structures
        )
        if unknown:
            raise ContractViolation(
                f"labels of prepared data set '{directory.name}' name structures or endpoints it does not have; "
                "prepare the data again"
            )
        return dataset

    @classmethod
    def pool(
        cls, datasets: Sequence["PreparedDataset"], *, places: Sequence[npt.NDArray[np.int32]] = ()
    ) -> "PreparedDataset":
        """Put several partners' data one behind the other (simulation only).

        Args:
            datasets: One of each partner.
            places: For each of them its endpoints' rows in the catalogue, or -1. Endpoints with one row become one
                endpoint; without places every partner's endpoints stay apart.
        """
        if len(datasets) == 1:
            return datasets[0]
        endpoints_of = _joint_numbering([dataset.n_endpoints for dataset in datasets], places)
        n_endpoints = 1 + max(int(numbers.max(initial=-1)) for numbers in endpoints_of)
        weight = np.zeros(n_endpoints, dtype=np.float32)
        evaluated = np.zeros(n_endpoints, dtype=np.bool_)
        for dataset, numbers in zip(datasets, endpoints_of, strict=True):
            weight[numbers] = np.maximum(weight[numbers], dataset.endpoint_weight)
            evaluated[numbers] |= dataset.in_evaluation
        return cls(
            bit_starts=_join_starts([dataset.bit_starts for dataset in datasets]),
            bits=np.concatenate([dataset.bits for dataset in datasets]),
            fold=np.concatenate([dataset.fold for dataset in datasets]),
            label_starts=_join_starts([dataset.label_starts for dataset in datasets]),
            label_endpoint=np.concatenate(
                [
                    numbers[dataset.label_endpoint].astype(np.int32)
                    for dataset, numbers in zip(datasets, endpoints_of, strict=True)
                ]
            ),
            label_value=np.concatenate([dataset.label_value for dataset in datasets]),
            endpoint_weight=weight,
            in_evaluation=evaluated,
            endpoints_of=endpoints_of,
        )

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return len(self.fold)

    @property
    def n_endpoints(self) -> int:
        """Number of endpoints, trained or not."""
        return len(self.endpoint_weight)

    def rows(self, folds: Sequence[int]) -> npt.NDArray[np.int64]:
        """List the structures of some folds that have at least one label, in order."""
        labelled = np.diff(self.label_starts) > 0
        return np.flatnonzero(np.isin(self.fold, folds) & labelled)

    def training_rows(self, folds: Sequence[int]) -> npt.NDArray[np.int64]:
        """List the structures of some folds that have at least one label of non-zero weight, in order."""
        return np.flatnonzero(np.isin(self.fold, folds) & (self.trained_labels[0] > 0))

    @cached_property
    def trained_labels(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """For each structure how many labels are trained, and their summed weight; each of shape ``(n_structures,)``.

        The labels, which may be more than memory holds, are read once, a part at a time.
        """
        count, weight = np.zeros(self.n_structures, dtype=np.int64), np.zeros(self.n_structures)
        for first in range(0, self.n_structures, ROWS_AT_A_TIME):
            starts = self.label_starts[first : first + ROWS_AT_A_TIME + 1]
            found = self.endpoint_weight[self.label_endpoint[starts[0] : starts[-1]]]
            owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
            part = slice(first, first + len(starts) - 1)
            count[part] = np.bincount(owner[found > 0], minlength=len(starts) - 1)
            weight[part] = np.bincount(owner, weights=found, minlength=len(starts) - 1)
        return count, weight

    def used_bits(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """List the fingerprint bits that some structures set, ascending, reading a part of them at a time."""
        used = np.zeros(int(np.iinfo(np.uint16).max) + 1, dtype=np.bool_)
        for first in range(0, len(rows), ROWS_AT_A_TIME):
            used[self.fingerprints_of(rows[first : first + ROWS_AT_A_TIME])[0]] = True
        return np.flatnonzero(used)

    def fingerprints_of(
        self, rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
        """Gather fingerprints.

        Args:
            rows: Structure indices, shape ``(n_rows,)``, any order, repetition allowed.

        Returns:
            The set bits, row after row, and where each row starts, shape ``(n_rows,)``.
        """
        positions, starts = _ranges(self.bit_starts, rows)
        return self.bits[positions], starts

    def labels_of(self, rows: npt.NDArray[np.int64]) -> Labels:
        """Gather all observed labels of some structures, row after row."""
        positions, _ = _ranges(self.label_starts, rows)
        return Labels(
            row=np.repeat(np.arange(len(rows)), np.diff(self.label_starts)[rows]),
            endpoint=self.label_endpoint[positions].astype(np.int64),
            value=self.label_value[positions].astype(np.float32),
        )


def _joint_numbering(
    counts: Sequence[int], places: Sequence[npt.NDArray[np.int32]]
) -> tuple[npt.NDArray[np.int64], ...]:
    """Number the endpoints of several partners: the catalogue first, then each partner's own."""
    found = places or [np.full(count, -1, dtype=np.int32) for count in counts]
    following = 1 + max(int(rows.max(initial=-1)) for rows in found)
    numbered = []
    for rows in found:
        numbers = rows.astype(np.int64)
        own = numbers < 0
        numbers[own] = following + np.arange(int(own.sum()))
        following += int(own.sum())
        numbered.append(numbers)
    return tuple(numbered)


def _ranges(
    row_starts: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of all elements of some compressed rows, and where each row starts among them."""
    lengths = row_starts[rows + 1] - row_starts[rows]
    ends = np.cumsum(lengths)
    starts = ends - lengths
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(row_starts[rows] - starts, lengths), starts


def _join_starts(starts: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part) for part in starts]))])


def _one_chunk(column: Any) -> Any:
    return (
        column.chunk(0)
        if column.num_chunks == 1
        else pa.concat_arrays(column.chunks or [pa.array([], column.type)])
    )


def _numbers(table: Any, name: str) -> Any:
    return _one_chunk(table.column(name)).to_numpy(zero_copy_only=True)


def _flags(table: Any, name: str) -> npt.NDArray[np.bool_]:
    flags: npt.NDArray[np.bool_] = _one_chunk(table.column(name)).to_numpy(zero_copy_only=False)
    return flags


def _list_column(column: Any) -> tuple[npt.NDArray[np.int64], Any]:
    lists = _one_chunk(column)
    starts = lists.offsets.to_numpy().astype(np.int64)
    return starts - starts[0], lists.flatten().to_numpy(zero_copy_only=True)
