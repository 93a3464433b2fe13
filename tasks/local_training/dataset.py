"""A prepared data set as memory-mapped compressed sparse rows.

Why: a batch is assembled by a few numpy calls instead of Python per row, and a data set larger than memory
still opens at once. Runs: on the partner, inside the training child. Source: own.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from data_contracts.catalogue import ENDPOINTS, HASHED_FINGERPRINTS, LABELS
from data_contracts.errors import ContractViolation
from data_contracts.plan import Modality
from data_contracts.writing import read_table
from tasks.local_training.arrow_columns import flags, join_starts, lists, numbers, ranges, starts_of
from tasks.local_training.regression_data import RegressionTables, RegressionValues, joined

ROWS_AT_A_TIME = 65_536
"""Structures whose labels or bits are unpacked together: bounds memory whatever the number of structures."""
TRAINING_FOLDS = (1, 2, 3)
VALIDATION_FOLDS = (4,)
TEST_FOLDS = (0,)


@dataclass(frozen=True)
class Labels:
    """Observed labels of a run of rows, row after row; all have shape ``(n_labels,)``.

    ``row`` counts from 0 within that run; ``value`` is 0.0 or 1.0 on a classification endpoint, on the assay's scale on
    a regression endpoint; ``censoring`` is 0, or 1 and -1 where the truth lies above or below the value.
    """

    row: npt.NDArray[np.int64]
    endpoint: npt.NDArray[np.int64]
    value: npt.NDArray[np.float32]
    censoring: npt.NDArray[np.int8]

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
        regression: Values of the regression endpoints; None where there are none by the modality. In one partner's
            data these endpoints are the last.
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
    regression: RegressionValues | None = None

    @classmethod
    def open(cls, directory: Path, *, modality: Modality = "classification") -> Self:
        """Map the files of a prepared directory.

        Args:
            directory: Holds ``fingerprints.arrow`` and, by modality, ``endpoints.arrow`` with ``labels.arrow``,
                ``regression_endpoints.arrow`` with ``regression_values.arrow``, or all of them.
            modality: Which endpoints there are: classes, numbers, or both.

        Raises:
            ContractViolation: If a file is missing, damaged, breaks its contract, or labels point outside.
        """
        classes = cls._open_classification(directory)
        if modality == "classification":
            return classes
        if modality == "regression":
            classes = classes.without_classes()
        return classes.with_regression(directory)

    @classmethod
    def _open_classification(cls, directory: Path) -> Self:
        fingerprints = read_table(directory / "fingerprints.arrow", HASHED_FINGERPRINTS)
        endpoints = read_table(directory / "endpoints.arrow", ENDPOINTS)
        labels = read_table(directory / "labels.arrow", LABELS)
        n_structures, n_endpoints = fingerprints.num_rows, endpoints.num_rows
        bit_starts, bits = lists(fingerprints, "bits")
        structure = numbers(labels, "structure_index")
        dataset = cls(
            bit_starts=bit_starts,
            bits=bits,
            fold=numbers(fingerprints, "fold"),
            label_starts=starts_of(structure, n_structures),
            label_endpoint=numbers(labels, "endpoint_index"),
            label_value=numbers(labels, "label"),
            endpoint_weight=np.where(
                flags(endpoints, "in_training"), numbers(endpoints, "weight"), 0.0
            ).astype(np.float32),
            in_evaluation=flags(endpoints, "in_evaluation"),
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

    def without_classes(self) -> Self:
        """The same structures without any classification endpoint."""
        return dataclasses.replace(
            self,
            label_starts=np.zeros_like(self.label_starts),
            label_endpoint=self.label_endpoint[:0],
            label_value=self.label_value[:0],
            endpoint_weight=self.endpoint_weight[:0],
            in_evaluation=self.in_evaluation[:0],
            endpoints_of=(np.arange(0),),
        )

    def with_regression(self, directory: Path) -> Self:
        """The same data with the directory's regression endpoints behind the others."""
        found = RegressionTables.open(directory, n_structures=self.n_structures, first_row=self.n_endpoints)
        n_added = len(found.weight)
        return dataclasses.replace(
            self,
            endpoint_weight=np.append(self.endpoint_weight, found.weight).astype(np.float32),
            in_evaluation=np.append(self.in_evaluation, found.in_evaluation),
            endpoints_of=(np.arange(self.n_endpoints + n_added),),
            regression=found.values,
        )

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
        for dataset, places_here in zip(datasets, endpoints_of, strict=True):
            weight[places_here] = np.maximum(weight[places_here], dataset.endpoint_weight)
            evaluated[places_here] |= dataset.in_evaluation
        values = [
            dataset.regression.moved(places_here)
            for dataset, places_here in zip(datasets, endpoints_of, strict=True)
            if dataset.regression is not None
        ]
        return cls(
            bit_starts=join_starts([dataset.bit_starts for dataset in datasets]),
            bits=np.concatenate([dataset.bits for dataset in datasets]),
            fold=np.concatenate([dataset.fold for dataset in datasets]),
            label_starts=join_starts([dataset.label_starts for dataset in datasets]),
            label_endpoint=np.concatenate(
                [
                    places_here[dataset.label_endpoint].astype(np.int32)
                    for dataset, places_here in zip(datasets, endpoints_of, strict=True)
                ]
            ),
            label_value=np.concatenate([dataset.label_value for dataset in datasets]),
            endpoint_weight=weight,
            in_evaluation=evaluated,
            endpoints_of=endpoints_of,
            regression=joined(values) if values else None,
        )

    def balanced(self, regression_weight: float) -> Self:
        """The same data where, of classes and numbers, the numbers have a share of the loss.

        Args:
            regression_weight: The share r: classes weigh 2 (1 - r) and numbers 2 r, 1 and 1 at one half. Without both
                kinds there is nothing to balance.
        """
        numeric = self.is_regression
        if numeric.all() or not numeric.any():
            return self
        factor = np.where(numeric, 2 * regression_weight, 2 * (1 - regression_weight))
        return dataclasses.replace(self, endpoint_weight=(self.endpoint_weight * factor).astype(np.float32))

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return len(self.fold)

    @property
    def n_endpoints(self) -> int:
        """Number of endpoints, trained or not."""
        return len(self.endpoint_weight)

    @cached_property
    def is_regression(self) -> npt.NDArray[np.bool_]:
        """Which endpoints are numbers, shape ``(n_endpoints,)``."""
        found = np.zeros(self.n_endpoints, dtype=np.bool_)
        if self.regression is not None:
            found[self.regression.head_row] = True
        return found

    def rows(self, folds: Sequence[int]) -> npt.NDArray[np.int64]:
        """List the structures of some folds that have at least one label, in order."""
        return np.flatnonzero(np.isin(self.fold, folds) & (self.n_labels > 0))

    def training_rows(self, folds: Sequence[int]) -> npt.NDArray[np.int64]:
        """List the structures of some folds that have at least one label of non-zero weight, in order."""
        return np.flatnonzero(np.isin(self.fold, folds) & (self.trained_labels[0] > 0))

    @cached_property
    def n_labels(self) -> npt.NDArray[np.int64]:
        """Number of labels of each structure, shape ``(n_structures,)``."""
        of_classes = np.diff(self.label_starts)
        return of_classes if self.regression is None else of_classes + np.diff(self.regression.starts)

    @cached_property
    def trained_labels(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """For each structure how many labels are trained, and their summed weight; each of shape ``(n_structures,)``.

        The labels, which may be more than memory holds, are read once, a part at a time.
        """
        count, weight = np.zeros(self.n_structures, dtype=np.int64), np.zeros(self.n_structures)
        for first in range(0, self.n_structures, ROWS_AT_A_TIME):
            part = np.arange(first, min(first + ROWS_AT_A_TIME, self.n_structures))
            labels = self.labels_of(part)
            found = self.weights_of(labels)
            count[part] = np.bincount(labels.row[found > 0], minlength=len(part))
            weight[part] = np.bincount(labels.row, weights=found, minlength=len(part))
        return count, weight

    def weights_of(self, labels: Labels) -> npt.NDArray[np.float32]:
        """Weight of each label in the loss: its endpoint's, and for a bound the endpoint's further one."""
        weight = self.endpoint_weight[labels.endpoint]
        if self.regression is not None:
            of_bounds = np.ones(self.n_endpoints, dtype=np.float32)
            of_bounds[self.regression.head_row] = self.regression.censored_weight
            weight = np.where(labels.censoring == 0, weight, weight * of_bounds[labels.endpoint])
        return weight

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
        positions, starts = ranges(self.bit_starts, rows)
        return self.bits[positions], starts

    def labels_of(self, rows: npt.NDArray[np.int64]) -> Labels:
        """Gather all observed labels of some structures, row after row."""
        positions, _ = ranges(self.label_starts, rows)
        classes = Labels(
            row=np.repeat(np.arange(len(rows)), np.diff(self.label_starts)[rows]),
            endpoint=self.label_endpoint[positions].astype(np.int64),
            value=self.label_value[positions].astype(np.float32),
            censoring=np.zeros(len(positions), dtype=np.int8),
        )
        if self.regression is None:
            return classes
        row, endpoint, value, censoring = self.regression.of(rows)
        order = np.argsort(np.append(classes.row, row), kind="stable")
        return Labels(
            row=np.append(classes.row, row)[order],
            endpoint=np.append(classes.endpoint, endpoint)[order],
            value=np.append(classes.value, value)[order],
            censoring=np.append(classes.censoring, censoring)[order],
        )


def _joint_numbering(
    counts: Sequence[int], places: Sequence[npt.NDArray[np.int32]]
) -> tuple[npt.NDArray[np.int64], ...]:
    """Number the endpoints of several partners: the catalogue first, then each partner's own."""
    found = places or [np.full(count, -1, dtype=np.int32) for count in counts]
    following = 1 + max(int(rows.max(initial=-1)) for rows in found)
    numbered = []
    for rows in found:
        numbering = rows.astype(np.int64)
        own = numbering < 0
        numbering[own] = following + np.arange(int(own.sum()))
        following += int(own.sum())
        numbered.append(numbering)
    return tuple(numbered)
