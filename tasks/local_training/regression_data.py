"""The numbers of a prepared data set: values with their censoring, and the scale each endpoint is learnt on.

Why: assays have scales of their own; a network learns them side by side only where each has spread one. Runs: on the
partner. Source: SparseChem (``normalize_regression``); a shared row's public scale is own (docs/decisions/0028).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from data_contracts.catalogue import REGRESSION_ENDPOINTS, REGRESSION_VALUES
from data_contracts.errors import ContractViolation
from data_contracts.writing import read_table
from tasks.local_training.arrow_columns import flags, join_starts, numbers, ranges, starts_of

PUBLIC_CENTRE, PUBLIC_SCALE = 6.5, 1.0
"""Scale of shared rows, the same at every partner: -log10(M), near the middle of what is measured, one decade a unit."""
LOWEST_DEVIATION, HIGHEST_DEVIATION = 0.05, 20.0
"""Bounds of the learnt deviation, in units of an endpoint's scale: one molecule by heart must not end in zero."""
SMALLEST_SCALE = 1e-6
"""A smaller spread is none: such an endpoint keeps its own unit."""

IntVector = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RegressionValues:
    """Values of all structures as compressed sparse rows.

    Attributes:
        starts: Row pointer, shape ``(n_structures + 1,)``.
        endpoint: Regression endpoint of each value, from 0.
        value: Measured value or bound, on the assay's scale.
        censoring: 0 measured, 1 the truth lies above the value, -1 below.
        head_row: Row in the head of each regression endpoint, shape ``(n_regression,)``.
        censored_weight: Further weight of each regression endpoint's bounds, shape ``(n_regression,)``.
    """

    starts: IntVector
    endpoint: npt.NDArray[np.int32]
    value: npt.NDArray[np.float64]
    censoring: npt.NDArray[np.int8]
    head_row: IntVector
    censored_weight: npt.NDArray[np.float32]

    def of(
        self, rows: IntVector
    ) -> tuple[IntVector, IntVector, npt.NDArray[np.float32], npt.NDArray[np.int8]]:
        """Gather some structures' values: row from 0, head row, value, censoring; row after row."""
        positions, _ = ranges(self.starts, rows)
        return (
            np.repeat(np.arange(len(rows)), np.diff(self.starts)[rows]),
            self.head_row[self.endpoint[positions]],
            self.value[positions].astype(np.float32),
            self.censoring[positions],
        )

    def moved(self, head_row: IntVector) -> Self:
        """The same values at other rows of a head; ``head_row`` maps the present ones."""
        return dataclasses.replace(self, head_row=head_row[self.head_row])


@dataclass(frozen=True)
class RegressionTables:
    """What the two regression files of a prepared directory hold."""

    values: RegressionValues
    weight: npt.NDArray[np.float64]
    in_evaluation: npt.NDArray[np.bool_]

    @classmethod
    def open(cls, directory: Path, *, n_structures: int, first_row: int) -> Self:
        """Map ``regression_endpoints.arrow`` and ``regression_values.arrow``.

        Args:
            directory: Prepared directory.
            n_structures: Rows of its fingerprints.
            first_row: Head row of its first regression endpoint.

        Raises:
            ContractViolation: If a file is missing, damaged, breaks its contract, or points outside.
        """
        endpoints = read_table(directory / "regression_endpoints.arrow", REGRESSION_ENDPOINTS)
        table = read_table(directory / "regression_values.arrow", REGRESSION_VALUES)
        structure, endpoint = numbers(table, "structure_index"), numbers(table, "endpoint_index")
        if endpoint.max(initial=-1) >= endpoints.num_rows or structure.max(initial=-1) >= n_structures:
            raise ContractViolation(
                f"values of prepared data set '{directory.name}' name structures or endpoints it does not have; "
                "prepare the data again"
            )
        return cls(
            values=RegressionValues(
                starts=starts_of(structure, n_structures),
                endpoint=endpoint,
                value=numbers(table, "value"),
                censoring=numbers(table, "censoring"),
                head_row=first_row + np.arange(endpoints.num_rows),
                censored_weight=numbers(endpoints, "censored_weight").astype(np.float32),
            ),
            weight=numbers(endpoints, "weight"),
            in_evaluation=flags(endpoints, "in_evaluation"),
        )


def joined(parts: Sequence[RegressionValues]) -> RegressionValues:
    """Put the values of several data sets one behind the other, at the head rows they have."""
    head_row = np.unique(np.concatenate([part.head_row for part in parts]))
    censored_weight = np.zeros(len(head_row), dtype=np.float32)
    for part in parts:
        at = np.searchsorted(head_row, part.head_row)
        censored_weight[at] = np.maximum(censored_weight[at], part.censored_weight)
    return RegressionValues(
        starts=join_starts([part.starts for part in parts]),
        endpoint=np.concatenate(
            [np.searchsorted(head_row, part.head_row)[part.endpoint] for part in parts]
        ).astype(np.int32),
        value=np.concatenate([part.value for part in parts]),
        censoring=np.concatenate([part.censoring for part in parts]),
        head_row=head_row,
        censored_weight=censored_weight,
    )
