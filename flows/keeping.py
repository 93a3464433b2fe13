"""What a finished run leaves for later ones, and what a model's reliability and figure rest on in each phase.

Why: a report stops where tuning was best, and a production model, which no data is left to judge, carries figure and
calibration of its report. Runs: on every site, for itself. Source: own; docs/decisions/0031.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.earlier_runs import HEAD, SHARED, EarlierRuns, KeptModel, calibrations, keep, recipe
from flows.federated_training import TrainedTrunk
from flows.partner import PartOutcome
from flows.settings import RunSettings
from flows.sites import Site
from tasks.evaluation.score_tables import CALIBRATION
from tasks.featurization.preparation_rules import StructureRules
from tasks.local_training.parameters import read_parameters
from tasks.model_registration.bundle import read_parts
from tasks.model_registration.reliability import CalibrationInputs
from tasks.studies.phases import FOLD_OF, TRAINING_FOLDS


def keep_of_partner(
    site: Site,
    outcome: PartOutcome,
    *,
    endpoints: Sequence[str],
    uplift: Mapping[str, Any],
    rules: StructureRules,
) -> None:
    """Keep a partner's own head and figure."""
    federated, parameters = outcome.arms["federated"], outcome.parameters
    _, head = read_parts(federated.trunk, federated.head, federated.places)
    assert head is not None  # noqa: S101 - a partner has one
    tested = uplift["metrics"].get("auprc", {"arms": {}})["arms"].get("federated")
    record = KeptModel(
        trunk_sha256=federated.trunk.name,
        best_round=outcome.best_round,
        phase=parameters.phase,
        hidden=parameters.hidden,
        layers=parameters.layers,
        recipe=recipe(rules),
        endpoints=tuple(endpoints),
        figure=tested["value"] if tested and parameters.phase == "report" else outcome.validation,
    )
    keep(site, record, {HEAD: head})


def keep_of_coordinator(
    site: Site, trained: TrainedTrunk, settings: RunSettings, *, shared: Path, validation: float | None
) -> None:
    """Keep the shared model and the names of its catalogue rows."""
    record = KeptModel(
        trunk_sha256=trained.trunk.sha256,
        best_round=trained.best_round,
        phase=settings.phase,
        hidden=settings.hidden,
        layers=settings.layers,
        recipe=recipe(settings.rules.structures),
        endpoints=trained.catalogue,
        figure=trained.test.get("test/federated/auprc") if settings.phase == "report" else validation,
    )
    keep(site, record, {SHARED: read_parameters(shared)})


def own_figure(outcome: PartOutcome, earlier: EarlierRuns) -> float | None:
    """The partner's own AUPRC that its model is judged by: of the validation fold, or of its report."""
    if outcome.parameters.phase != "final":
        return outcome.validation
    return earlier.demand(outcome.parameters.rounds_from, phase="report")[1].figure


def calibration_inputs(site: Site, outcome: PartOutcome, earlier: EarlierRuns) -> CalibrationInputs:
    """What a partner's model of this run is calibrated on: what the model itself, or that of the phase before, held out."""
    phase, rounds_from = outcome.parameters.phase, outcome.parameters.rounds_from
    if phase == "standard":
        assert outcome.scores is not None  # noqa: S101 - it has a test
        return CalibrationInputs(
            scores=outcome.scores / outcome.registered / CALIBRATION / "scores.arrow",
            prepared=site.prepared,
            modality=outcome.parameters.modality,
            head=outcome.arms[outcome.registered].head,
            n_bits=outcome.parameters.n_bits,
        )
    before = "tune" if phase == "report" else "report"
    tuned, _ = earlier.demand(rounds_from, phase="tune" if phase == "report" else "report")
    held_out = (FOLD_OF["validation" if phase == "report" else "test"],)
    return CalibrationInputs(
        scores=calibrations(tuned, "federated"),
        prepared=site.prepared,
        n_bits=outcome.parameters.n_bits,
        scored_folds=held_out,
        scorer_folds=TRAINING_FOLDS["tune" if phase == "report" else "report"],
        model_folds=TRAINING_FOLDS[phase],
        described=f"fold {held_out[0]}, which the model of run {rounds_from} (phase {before}) had held out",
    )
