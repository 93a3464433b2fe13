"""Folds by time: what was measured last is predicted, as in a project that goes on.

Why: a scaffold split asks about new chemistry, a time split about the next months; both are reported. The dates are
agreed by all partners, since a cut by each partner's own quantiles would put one structure on two sides.
Runs: on the partner. Source: Sheridan 2013 (time-split cross-validation); own rule for several partners.
"""

import numpy as np
import numpy.typing as npt

from tasks.featurization.folds import N_FOLDS
from tasks.featurization.preparation_rules import FoldRule

TEST_FOLD, VALIDATION_FOLD = 0, 4
TRAINING_FOLDS = N_FOLDS - 2
UNDATED = np.iinfo(np.int32).max
Days = npt.NDArray[np.int32]


def days_of(dates: npt.NDArray[np.datetime64]) -> Days:
    """Days since 1970; not-a-time becomes ``UNDATED``."""
    days = dates.astype("datetime64[D]").astype(np.int64)
    return np.where(np.isnat(dates), UNDATED, days).astype(np.int32)


def split_by_time(
    scaffold_fold: npt.NDArray[np.int8],
    of_compound: npt.NDArray[np.int64],
    first_day: Days,
    *,
    rule: FoldRule,
) -> npt.NDArray[np.int8]:
    """Split structures by the first day on which any form of them was measured.

    Args:
        scaffold_fold: Fold of each structure by its scaffold, shape ``(n_structures,)``.
        of_compound: Structure of each compound, negative for none.
        first_day: First day of each compound, ``UNDATED`` where there is none.
        rule: With two dates.

    Returns:
        0 (test) from ``test_from`` on, 4 (validation) from ``validation_from`` on, else 1 to 3 by scaffold; by
        scaffold alone if the rule is not about time.
    """
    if rule.validation_from is None or rule.test_from is None:
        return scaffold_fold
    first = np.full(len(scaffold_fold), UNDATED, dtype=np.int32)
    has = of_compound >= 0
    np.minimum.at(first, of_compound[has], first_day[has])
    validation, test = (
        days_of(np.array([day], dtype="datetime64[D]"))[0] for day in (rule.validation_from, rule.test_from)
    )
    training = scaffold_fold % TRAINING_FOLDS + 1
    dated = first != UNDATED
    fold = np.where(dated & (first >= validation), VALIDATION_FOLD, training)
    return np.where(dated & (first >= test), TEST_FOLD, fold).astype(np.int8)
