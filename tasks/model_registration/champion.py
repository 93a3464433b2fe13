"""Who is champion: the rule, apart from the registry.

Why: a person must be able to read why a version serves and another does not. Runs: on the coordinator for the
trunk, on a partner for its own model. Source: own; aliases replace MLflow's stages.
"""

from dataclasses import dataclass

from tasks.model_registration.bundle import DataOrigin, Validation
from tasks.studies.phases import Phase

NEVER_SERVE = frozenset({"tune", "report"})
"""Phases whose models exist to be measured."""


@dataclass(frozen=True)
class Candidate:
    """What the rule looks at in a version."""

    data: DataOrigin
    validation: Validation | None
    phase: Phase = "standard"


@dataclass(frozen=True)
class Decision:
    """Whether a version becomes champion, and why."""

    promoted: bool
    reason: str


def decide(new: Candidate, champion: Candidate | None, *, allow_synthetic_champion: bool = False) -> Decision:
    """Decide whether a new version becomes champion.

    Args:
        new: The new version.
        champion: The present champion; None if there is none.
        allow_synthetic_champion: True in a demonstration registry only.

    Returns:
        Promoted if the version may serve at all, and there is no champion or its validation metric is not worse.
    """
    bar = _bar(new, allow_synthetic_champion=allow_synthetic_champion)
    if bar is not None:
        return Decision(False, bar)
    if champion is None:
        return Decision(True, "there was no champion")
    if new.data.synthetic and not champion.data.synthetic:
        return Decision(False, "a model of simulated assays never replaces one of real data")
    if champion.data.synthetic and not new.data.synthetic:
        return Decision(True, "real data replaces simulated assays")
    if (new.phase == "final") != (champion.phase == "final"):
        return Decision(
            new.phase == "final", "a production model, trained on all folds, goes before one that was not"
        )
    return _compare(new.validation, champion.validation)


def _bar(new: Candidate, *, allow_synthetic_champion: bool) -> str | None:
    """Why a version may not serve at all; None if it may."""
    if new.data.control is not None:
        return f"a control ({new.data.control}) never serves"
    if new.data.synthetic and not allow_synthetic_champion:
        return "trained on simulated assays: champion in a demonstration registry only"
    if new.phase in NEVER_SERVE:
        return f"phase '{new.phase}': its final model serves"
    return None


def _compare(new: Validation | None, old: Validation | None) -> Decision:
    if new is None:
        return Decision(False, "it was not validated")
    if old is None:
        return Decision(True, "the champion was never validated")
    if (new.metric, new.basis) != (old.metric, old.basis):
        return Decision(False, "it was validated on another basis than the champion: compare them by hand")
    words = f"validation {new.metric} {new.value:.4f}, champion {old.value:.4f}"
    if new.value >= old.value:
        return Decision(True, f"{words}: not worse")
    return Decision(False, f"{words}: worse")
