"""What remains of a run: MLflow runs, registered models, tables and pictures, and ``result.json``.

Why: the consortium's result holds sums only; each partner's figures go to its own directory and experiment.
Runs: on one machine; on separate sites each party runs its half. Source: own.
"""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.events import emit_event
from prefect.runtime import flow_run

from data_contracts.canonical_json import digest_of
from data_contracts.catalogue import ENDPOINTS, REGRESSION_ENDPOINTS
from data_contracts.plan import Modality
from data_contracts.writing import read_table
from flows import services
from flows.automations import RUN_STARTED
from flows.earlier_runs import NO_RUNS, EarlierRuns
from flows.federated_training import TrainedTrunk
from flows.keeping import calibration_inputs, keep_of_coordinator, keep_of_partner, own_figure
from flows.partner import PartOutcome
from flows.reporting import RoundReport, link_to_mlflow, run_resource
from flows.run_directory import RunDirectory
from flows.settings import RunSettings
from flows.sites import COORDINATOR, Site
from tasks.evaluation.metrics import SELECTION, selection_value
from tasks.evaluation.steps import partner_report
from tasks.evaluation.whole_report import write_nothing
from tasks.exchange.blob_store import BlobStore
from tasks.featurization.preparation_rules import StructureRules
from tasks.model_registration.bundle import DataOrigin, Validation
from tasks.model_registration.registration import CONSORTIUM_MODEL, RegisteredVersion, partner_model
from tasks.model_registration.steps import model_registration
from tasks.studies.phases import MEASURED
from tasks.tracking.runs import TrackedRun, end_run, log_files, log_parameters, log_round, open_run
from tasks.tracking.store import open_store

ARM_ORDER = ("single", "federated", "adapted", "pooled")


logger = logging.getLogger("motet")


@dataclass(frozen=True)
class RunFacts:
    """What everybody knows of a run and every model of it must say.

    Attributes:
        run: The run's directory at this party.
        data: Name of the data set.
        simulated_assays: Whether no activity in it was ever measured.
    """

    run: RunDirectory
    data: str
    simulated_assays: bool

    @property
    def origin(self) -> DataOrigin:
        """What models must say about their labels."""
        control = "permuted-labels" if self.run.settings.permuted_labels else None
        return DataOrigin(synthetic=self.simulated_assays, control=control)

    @property
    def basis(self) -> str:
        """Names what validation metrics were measured on: only those of one basis are compared."""
        public = ("data", "partners", "profile", "seed", "permuted_labels")
        return digest_of(self.run.settings.model_dump(include=set(public), mode="json"))[:32]

    @property
    def modality(self) -> Modality:
        """What the run learns of the assays."""
        return self.run.settings.modality

    @property
    def structure_rules(self) -> StructureRules:
        """How every partner prepared its structures, and every model of the run prepares molecules."""
        return self.run.settings.rules.structures

    @property
    def is_final(self) -> bool:
        """Whether this is a production model, which carries the figure of its report."""
        return self.run.settings.phase == "final"

    def validation(self, value: float | None) -> Validation | None:
        """A model's figure, if it could be measured: on the validation fold, or on its report's test fold."""
        metric = "_and_".join(SELECTION[self.modality])
        basis = f"{self.basis}-report" if self.is_final else self.basis
        return None if value is None else Validation(metric=metric, value=value, basis=basis)


async def track(facts: RunFacts, *, experiment: str, party: str) -> TrackedRun:
    """Open a party's MLflow run in the store under its home; a resumed run finds its own."""
    tags = {
        "motet.data": facts.data,
        "data.synthetic": str(facts.simulated_assays).lower(),
        "data.control": facts.origin.control or "",
        "prefect.flow_run_id": str(flow_run.id or ""),
        "prefect.flow_run_url": f"{services.prefect_address(facts.run.home)}/runs/flow-run/{flow_run.id}",
    }
    return await asyncio.to_thread(_open, facts.run, experiment=experiment, party=party, tags=tags)


def _open(run: RunDirectory, *, experiment: str, party: str, tags: Mapping[str, str]) -> TrackedRun:
    store = open_store(run.home)
    tracked = open_run(store, experiment=experiment, run_id=run.run_id, party=party, tags=tags)
    log_parameters(tracked, _public_parameters(run.settings))
    return tracked


async def track_rounds(facts: RunFacts) -> RoundReport:
    """Open the coordinator's MLflow run and report rounds there and on the Prefect run's page."""
    tracked = await track(facts, experiment="qsar-training", party=COORDINATOR)
    emit_event(RUN_STARTED, resource=run_resource(facts.run.run_id))
    await link_to_mlflow(tracked.url(services.mlflow_address(facts.run.home)))
    return RoundReport(
        run_id=facts.run.run_id,
        tracked=tracked,
        n_rounds=facts.run.settings.rounds + 1 + len(MEASURED[facts.run.settings.phase]),
        directory=facts.run.path / "pictures",
        control=facts.origin.control,
        modality=facts.modality,
        simulated_assays=facts.simulated_assays,
    )


def _public_parameters(settings: RunSettings) -> dict[str, Any]:
    rules = settings.rules
    profile = {"profile": f"{rules.name}@{rules.version}", "profile_sha256": rules.digest}
    return (
        settings.model_dump(mode="json", exclude={"seed", "data"})
        | profile
        | {"baselines": " ".join(settings.baselines)}
    )


async def finish_partner(
    facts: RunFacts, site: Site, outcome: PartOutcome, *, tracked: TrackedRun, earlier: EarlierRuns = NO_RUNS
) -> tuple[RegisteredVersion | None, dict[str, Any]]:
    """Write a partner's report, log it to the partner's own experiment, register the partner's own model.

    Returns:
        The registered version (None in the tuning phase), and the uplift.
    """
    await _report(facts, site, outcome)
    uplift = json.loads((site.results / "uplift.json").read_bytes())
    await asyncio.to_thread(
        _log_partner, tracked, uplift, results=site.results, round_number=outcome.best_round
    )
    chosen, names = outcome.arms[outcome.registered], _endpoint_names(site.prepared, facts.modality)
    keep_of_partner(
        site,
        outcome,
        endpoints=[*names["endpoints"], *names["regression_endpoints"]],
        uplift=uplift,
        rules=facts.structure_rules,
    )
    if (
        facts.run.settings.phase == "tune"
    ):  # it exists to choose settings; what serves comes from the later phases
        await asyncio.to_thread(end_run, tracked, succeeded=True)
        return None, uplift
    version: RegisteredVersion = await model_registration(
        site.name,
        tracked=tracked,
        run_id=facts.run.run_id,
        name=partner_model(site.name),
        trunk=chosen.trunk,
        head=chosen.head,
        places=chosen.places,
        **names,
        data=facts.origin,
        validation=facts.validation(own_figure(outcome, earlier)),
        bundle=site.root / "model",
        rules=facts.structure_rules,
        secret=site.secret_path("consortium_secret"),
        phase=outcome.parameters.phase,
        calibrated_on=calibration_inputs(site, outcome, earlier),
    )
    await asyncio.to_thread(end_run, tracked, succeeded=True)
    return version, uplift


def _endpoint_names(prepared: Path, modality: Modality) -> dict[str, list[str]]:
    """Names of a model's endpoints, classes and numbers apart."""
    classes: list[str] = []
    numbers: list[str] = []
    if modality != "regression":
        classes = read_table(prepared / "endpoints.arrow", ENDPOINTS).column("endpoint_id").to_pylist()
    if modality != "classification":
        found = read_table(prepared / "regression_endpoints.arrow", REGRESSION_ENDPOINTS)
        numbers = found.column("endpoint_id").to_pylist()
    return {"endpoints": classes, "regression_endpoints": numbers}


async def _report(facts: RunFacts, site: Site, outcome: PartOutcome) -> None:
    """Write the partner's report; where nothing was tested, only that nothing was compared."""
    if outcome.scores is None:
        write_nothing(site.results)
        return
    await partner_report(
        site.name,
        outcome.scores,
        arms=sorted(outcome.arms, key=ARM_ORDER.index),
        modality=facts.modality,
        prepared=site.prepared,
        output=site.results,
        seed=facts.run.settings.seed,
        simulated_assays=facts.simulated_assays,
    )


def _log_partner(tracked: TrackedRun, uplift: Mapping[str, Any], *, results: Path, round_number: int) -> None:
    metrics: dict[str, float] = {}
    compared = uplift["metrics"] | uplift.get("regression_metrics", {})
    for metric, found in compared.items():
        metrics |= {f"test/{arm}_{metric}": interval["value"] for arm, interval in found["arms"].items()}
        metrics[f"uplift/{metric}"] = found["uplift"]["value"]
        metrics[f"uplift/riptop_{metric}"] = found["riptop"]["value"]
    log_round(tracked, metrics, round_number=round_number, time_ms=int(time.time() * 1000))
    if not metrics:
        return
    kept = {"report": "report.html"}
    kept |= {f"pictures/{name}": f"{name}.png" for name in ("uplift", "endpoints", "regression")}
    kept |= {f"tables/{name}": f"{name}.parquet" for name in ("endpoints", "regression_endpoints")}
    files = {f"{where.split('/')[0]}/{name}": results / name for where, name in kept.items()}
    log_files(tracked, {where: path for where, path in files.items() if path.exists()})


async def finish_coordinator(
    facts: RunFacts,
    site: Site,
    trained: TrainedTrunk,
    *,
    report: RoundReport,
    blobs: BlobStore,
    models: Mapping[str, str],
    earlier: EarlierRuns = NO_RUNS,
) -> dict[str, Any]:
    """Register the consortium's trunk and write ``result.json``: sums, and where everything lies.

    Args:
        facts: The run.
        site: The coordinator's.
        trained: What the run led to.
        report: Reported its rounds.
        blobs: The mailbox's, with the chosen trunk.
        models: Addresses of further registered models that this party knows of, by party.
        earlier: The coordinator's earlier runs.

    Returns:
        The content of ``result.json``.
    """
    await report.close(validation=trained.validation, test=trained.test)
    blobs.open(trained.trunk, who=site.name)
    settings = facts.run.settings
    best = selection_value(trained.validation.get(trained.best_round, {}), facts.modality)
    if facts.is_final:
        best = earlier.demand(settings.rounds_from, phase="report")[1].figure
    keep_of_coordinator(site, trained, settings, shared=blobs.path(trained.trunk), validation=best)
    registered: dict[str, str] = {}
    if settings.phase != "tune":
        version: RegisteredVersion = await model_registration(
            COORDINATOR,
            tracked=report.tracked,
            run_id=facts.run.run_id,
            name=CONSORTIUM_MODEL,
            trunk=blobs.path(trained.trunk),
            head=None,
            places=None,
            endpoints=(),
            data=facts.origin,
            validation=facts.validation(best),
            bundle=site.root / "model",
            rules=facts.structure_rules,
            phase=settings.phase,
        )
        registered = {COORDINATOR: version.uri}
    await asyncio.to_thread(end_run, report.tracked, succeeded=True)
    single, federated = trained.test.get("test/single/auprc"), trained.test.get("test/federated/auprc")
    result = {
        "run_id": facts.run.run_id,
        "data": {
            "name": facts.data,
            "simulated_assays": facts.simulated_assays,
            "control": facts.origin.control,
        },
        "modality": facts.modality,
        "best_round": trained.best_round,
        "trunk_sha256": trained.trunk.sha256,
        "consortium": {
            "test": trained.test,
            "uplift_auprc": federated - single if federated is not None and single is not None else None,
        },
        "phase": settings.phase,
        "validation_auprc": best if facts.modality == "classification" else None,
        "models": {**registered, **models},
    }
    facts.run.write_result(result)
    return result
