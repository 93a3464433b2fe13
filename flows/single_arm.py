"""The arm that a partner trains alone: the measure of what the federation brings.

Why: the comparison is fair only if it starts, is tuned and is stopped as the federation is: as many epochs, its best
epoch on the same fold, its own best of as many trials, and no layer that others have trained. Runs: on the partner.
Source: own; equal budgets as in MELLODDY's comparison (Heyndrickx et al. 2023).
"""

from dataclasses import dataclass
from pathlib import Path

from flows.earlier_runs import EarlierRuns
from flows.search_names import trials_of
from flows.sites import Site
from tasks.local_training.jobs import Centralised
from tasks.local_training.parameters import initial_trunk, layout_of, read_parameters, write_parameters
from tasks.studies.arms import TrainedArm, trained_arm
from tasks.studies.training_parameters import TrainingParameters

ALONE = "alone"


@dataclass(frozen=True)
class Tuned:
    """What an earlier run found out about the single arm: how it was trained, and the width and depth of its network."""

    arm: TrainedArm
    hidden: int
    layers: int


def single_arm_job(
    site: Site, prepared: Path, parameters: TrainingParameters, *, earlier: EarlierRuns, trunk: Path
) -> Centralised:
    """Say how a partner's single arm is trained in a run.

    Args:
        site: The partner in this run.
        prepared: Its prepared data.
        parameters: Of the run's first training plan.
        earlier: Its own earlier runs.
        trunk: The run's first shared model.
    """
    tuned = tuned_arm(parameters, earlier)
    output = site.root / ALONE
    job = Centralised(
        kind="alone",
        datasets=(prepared,),
        modality=parameters.modality,
        trunk=_start(site, parameters, tuned, trunk=trunk),
        head_seeds=(site.seed("head"),),
        seed=site.seed("alone"),
        max_epochs=parameters.epochs,
        folds=parameters.training_folds,
        learning_rate_decay=parameters.learning_rate_decay,
        decay_epochs=parameters.epochs_per_rate,
        settings=parameters.settings,
        output=output,
    )
    if parameters.phase != "report":
        return job
    changed: dict[str, object] = {"validation_folds": ()}
    if tuned is not None:
        changed |= {
            "max_epochs": tuned.arm.best_epoch,
            "settings": tuned.arm.settings,
            "learning_rate_decay": tuned.arm.learning_rate_decay,
            "decay_epochs": tuned.arm.decay_epochs,
        }
    return job.model_copy(update=changed)


def tuned_arm(parameters: TrainingParameters, earlier: EarlierRuns) -> Tuned | None:
    """The partner's own best single arm of the search that chose the settings, or that of the tuning run.

    Of equals the first trial counts; a trial in which nothing could be measured counts only if none could.
    """
    if parameters.phase != "report":
        return None
    runs = trials_of(parameters.search, earlier.names()) or [parameters.rounds_from]
    found = [tuned for run_id in runs if (tuned := _tuned_in(earlier.site(run_id))) is not None]
    return max(found, key=lambda one: -1.0 if one.arm.auprc is None else one.arm.auprc, default=None)


def _tuned_in(site: Site) -> Tuned | None:
    arm = trained_arm(site.root / ALONE)
    if arm is None:
        return None
    layout = dict(layout_of(read_parameters(site.root / ALONE / "trunk.safetensors")))
    n_layers = sum(name.startswith("layers.") for name in layout) // 2
    return Tuned(arm, hidden=layout["embedding.bias"][0], layers=n_layers)


def _start(site: Site, parameters: TrainingParameters, tuned: Tuned | None, *, trunk: Path) -> Path:
    """The run's first shared model, unless others trained it or the arm's network has another shape."""
    hidden, layers = (parameters.hidden, parameters.layers) if tuned is None else (tuned.hidden, tuned.layers)
    if not parameters.warm_start and (hidden, layers) == (parameters.hidden, parameters.layers):
        return trunk
    path = site.root / ALONE / "first-trunk.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parameters(path, initial_trunk(hidden, seed=site.seed("alone-trunk"), n_layers=layers))
    return path
