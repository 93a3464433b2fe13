"""Gradient-boosted trees per endpoint: the outside baseline that a modeller would name first.

Why: a linear model is one straw man less than two. Needs the extra ``baselines``; a run without it says so and goes on.
Runs: on the partner, in the training child. Source: LightGBM (Ke et al. 2017) on sparse fingerprints; why not another
library, and the settings: docs/decisions/0032.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from data_contracts.errors import SettingsError
from tasks.evaluation.score_tables import Scores
from tasks.local_training.baseline import (
    FloatVector,
    Matrix,
    endpoints_of,
    mean_auprc,
    rate_logit,
    scores_of,
)
from tasks.local_training.dataset import PreparedDataset

TREES = (25, 50, 100, 200)
"""How many trees, chosen on the validation folds: as much tuning as the network gets by early stopping."""
FEWEST_OCCURRENCES = 3
"""A bit that fewer training structures of an endpoint set can split off next to nothing."""
SETTINGS: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 8,
    "min_data_in_leaf": 5,
    "min_data_in_bin": 1,
    "feature_fraction": 0.2,
    "lambda_l2": 1.0,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
    "verbosity": -1,
}


@dataclass(frozen=True)
class BoostedTrees:
    """One ensemble per endpoint.

    Attributes:
        dataset: The data.
        trees: Per endpoint with both classes its booster and the bits that it sees.
        offsets: The logit of every other endpoint, shape ``(n_endpoints,)``.
        n_trees: How many trees of each ensemble count.
    """

    dataset: PreparedDataset
    trees: dict[int, tuple[Any, npt.NDArray[np.int64]]]
    offsets: FloatVector
    n_trees: int

    @classmethod
    def fit(cls, dataset: PreparedDataset, folds: Sequence[int]) -> Self:
        """Fit on some folds, with as many trees as ``TREES`` ends with.

        Raises:
            SettingsError: If LightGBM is not installed.
        """
        lightgbm = _library()
        trees = {}
        offsets = np.zeros(dataset.n_endpoints)
        for number, matrix, truth in endpoints_of(dataset, folds):
            kept = np.flatnonzero(np.asarray(matrix.sum(axis=0))[0] >= FEWEST_OCCURRENCES)
            if not 0 < truth.sum() < len(truth) or not len(kept):
                offsets[number] = rate_logit(truth)
                continue
            data = lightgbm.Dataset(matrix[:, kept], truth, params=SETTINGS)
            trees[number] = (lightgbm.train(SETTINGS, data, TREES[-1]), kept)
        return cls(dataset=dataset, trees=trees, offsets=offsets, n_trees=TREES[-1])

    def scores(self, folds: Sequence[int]) -> Scores:
        """Predict all observed labels of some folds."""

        def logit(number: int, matrix: Matrix) -> FloatVector:
            if number not in self.trees:
                return np.full(matrix.shape[0], self.offsets[number])
            booster, kept = self.trees[number]
            found = booster.predict(matrix[:, kept], raw_score=True, num_iteration=self.n_trees)
            return np.asarray(found, dtype=np.float64)

        return scores_of(self.dataset, folds, logit)


def best_boosted(
    dataset: PreparedDataset, folds: Sequence[int], *, validation_folds: Sequence[int], min_per_class: int
) -> BoostedTrees:
    """Fit one ensemble per endpoint, and keep the number of trees with the highest mean validation AUPRC.

    Raises:
        SettingsError: If LightGBM is not installed.
    """
    fitted = BoostedTrees.fit(dataset, folds)
    candidates = [
        BoostedTrees(dataset=dataset, trees=fitted.trees, offsets=fitted.offsets, n_trees=n_trees)
        for n_trees in TREES
    ]
    return max(
        candidates, key=lambda found: mean_auprc(dataset, found.scores(validation_folds), min_per_class)
    )


def _library() -> Any:
    try:
        import lightgbm
    except (ImportError, OSError):  # the latter where a shared library of the system is missing
        raise SettingsError(
            "boosted trees need LightGBM, which is not installed here",
            advice="install it with `pip install 'motet[baselines]'`, or leave out `boosted`",
        ) from None
    return lightgbm
