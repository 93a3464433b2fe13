"""Who is champion: the rule, apart from the registry.

Why: a person must be able to read why a version serves and another does not. Runs: on the coordinator for the
trunk, on a partner for its own model. Source: own; aliases replace MLflow's stages.
"""

from dataclasses import dataclass

from tasks.model_registration.bundle import DataOrigin, Validation


@dataclass(frozen=True)
class Candidate:
    """What the rule looks at in a version."""

    data: DataOrigin
    validation: Validation | None


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
    if new.data.control is not None:
        return Decision(False, f"a control ({new.data.control}) never serves")
    if new.data.synthetic and not allow_synthetic_champion:
        return Decision(False, "trained on simulated assays: champion in a demonstration registry only")
    if champion is None:
        return Decision(True, "there was no champion")
    if new.data.synthetic and not champion.data.synthetic:
        return Decision(False, "a model of simulated assays never replaces one of real data")
    if champion.data.synthetic and not new.data.synthetic:
        return Decision(True, "real data replaces simulated assays")
    return _compare(new.validation, champion.validation)


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
