"""The phases of a model: tuning, report, production; which folds each trains on, and what it may measure.

Why: a setting must be chosen on data that no figure is reported on, and the model that serves should have seen all
data. Runs: anywhere. Source: MELLODDY's PH1 (trains without folds 0 and 4, chooses on 4), PH2 (trains on all but 0,
reports on 0) and PH3 (trains on all).
"""

from typing import Literal

Phase = Literal["standard", "tune", "report", "final"]
Split = Literal["validation", "test"]

TRAINING_FOLDS: dict[Phase, tuple[int, ...]] = {
    "standard": (1, 2, 3),
    "tune": (1, 2, 3),
    "report": (1, 2, 3, 4),
    "final": (0, 1, 2, 3, 4),
}
FOLD_OF: dict[Split, int] = {"validation": 4, "test": 0}
MEASURED: dict[Phase, frozenset[Split]] = {
    "standard": frozenset({"validation", "test"}),
    "tune": frozenset({"validation"}),
    "report": frozenset({"test"}),
    "final": frozenset(),
}
"""What of a phase's model may be measured: never a fold that it was trained on, and while tuning never the test."""


def spoilt_folds(start: Phase, phase: Phase) -> tuple[int, ...]:
    """Folds that a run of ``phase`` measures although the model of phase ``start`` that it starts from was trained on them."""
    measured = {FOLD_OF[split] for split in MEASURED[phase]}
    return tuple(sorted(measured & set(TRAINING_FOLDS[start])))
