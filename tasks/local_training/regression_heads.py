"""Heads with regression endpoints: the scale that each row is learnt on, and rows that answer in the assay's unit.

Why: a head knows its scale, so it means the same wherever it is read: next round, scored, pooled or in a model.
Runs: on the partner. Source: own; docs/decisions/0028 says why rows that are shared have a public scale.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from data_contracts.plan import Modality
from tasks.local_training.dataset import ROWS_AT_A_TIME, PreparedDataset
from tasks.local_training.parameters import FloatArray, Parameters
from tasks.local_training.regression_data import (
    HIGHEST_DEVIATION,
    LOWEST_DEVIATION,
    PUBLIC_CENTRE,
    PUBLIC_SCALE,
    SMALLEST_SCALE,
)
from tasks.local_training.shared_model import Places

FloatVector = npt.NDArray[np.float64]


def with_scales(
    head: Parameters,
    dataset: PreparedDataset,
    rows: npt.NDArray[np.int64],
    *,
    modality: Modality,
    places: Places | None = None,
) -> Parameters:
    """Complete a first head by the scale of its regression endpoints.

    Args:
        head: ``weight`` and ``bias``.
        dataset: The partner's data.
        rows: Training structures: no other fold may decide.
        modality: Which endpoints there are; without numbers the head is complete as it is.
        places: Each endpoint's row in the catalogue head; those that have one get the public scale.
    """
    if modality == "classification":
        return head
    centre, scale = own_scales(dataset, rows)
    if places is not None:
        shared = (places >= 0) & dataset.is_regression
        centre[shared], scale[shared] = PUBLIC_CENTRE, PUBLIC_SCALE
    added = {"centre": centre, "scale": scale, "log_deviation": np.zeros(dataset.n_endpoints)}
    return head | {name: array.astype(np.float32) for name, array in added.items()}


def own_scales(dataset: PreparedDataset, rows: npt.NDArray[np.int64]) -> tuple[FloatVector, FloatVector]:
    """Mean and standard deviation of each regression endpoint's measured values.

    Returns:
        Centre and scale, each of shape ``(n_endpoints,)``; 0 and 1 for classes and where nothing was measured, scale 1
        where nothing varies.
    """
    n = dataset.n_endpoints
    count, total, squares = np.zeros(n), np.zeros(n), np.zeros(n)
    for endpoint, value in _measured(dataset, rows):
        count += np.bincount(endpoint, minlength=n)
        total += np.bincount(endpoint, weights=value, minlength=n)
    centre = total / np.maximum(count, 1)
    for endpoint, value in _measured(dataset, rows):
        squares += np.bincount(endpoint, weights=np.square(value - centre[endpoint]), minlength=n)
    scale = np.sqrt(squares / np.maximum(count, 1))
    return centre, np.where(scale > SMALLEST_SCALE, scale, 1.0)


def _measured(
    dataset: PreparedDataset, rows: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], FloatVector]]:
    """Endpoint and value of what was measured, a part of the structures at a time."""
    for first in range(0, len(rows), ROWS_AT_A_TIME):
        labels = dataset.labels_of(rows[first : first + ROWS_AT_A_TIME])
        free = dataset.is_regression[labels.endpoint] & (labels.censoring == 0)
        yield labels.endpoint[free], labels.value[free].astype(np.float64)


def deviations(head: Mapping[str, FloatArray]) -> FloatVector:
    """Standard deviation of each row's error on the assay's scale, shape ``(n_endpoints,)``; meaningless for classes."""
    bounded = np.clip(np.exp(head["log_deviation"].astype(np.float64)), LOWEST_DEVIATION, HIGHEST_DEVIATION)
    return np.asarray(bounded * head["scale"])


def in_assay_units(head: Mapping[str, FloatArray]) -> Parameters:
    """Let a head's rows answer on the assays' own scales.

    Args:
        head: Any head; one without numbers comes back as it is.

    Returns:
        ``weight`` and ``bias`` alone.
    """
    if "scale" not in head:
        return dict(head)
    return {
        "weight": head["weight"] * head["scale"][:, None],
        "bias": head["bias"] * head["scale"] + head["centre"],
    }
