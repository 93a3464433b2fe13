"""What remains of a run: MLflow runs, registered models, tables and pictures, and ``result.json``.

Why: the consortium's result holds sums only; each partner's figures go to its own directory and experiment.
Runs: on one machine; on separate sites each party runs its half. Source: own.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.runtime import flow_run

from data_contracts.canonical_json import digest_of
from data_contracts.catalogue import ENDPOINTS
from data_contracts.writing import read_table
from flows import services
from flows.federated_training import TrainedTrunk
from flows.partner import PartOutcome
from flows.reporting import RoundReport, link_to_mlflow
from flows.run_directory import RunDirectory
from flows.settings import RunSettings
from tasks.evaluation.steps import partner_report
from tasks.exchange.blob_store import BlobStore
from tasks.model_registration.bundle import DataOrigin, Validation
from tasks.model_registration.registration import CONSORTIUM_MODEL, RegisteredVersion, partner_model
from tasks.model_registration.reliability import CalibrationInputs
from tasks.model_registration.steps import model_registration
from tasks.simulation.datasets import SimulatedDataset
from tasks.studies.evaluation import CALIBRATION
from tasks.tracking.runs import TrackedRun, end_run, log_files, log_parameters, log_round, open_run
from tasks.tracking.store import TrackingStore, open_store


@dataclass
class Tracking:
    """The MLflow runs of everybody on this machine, and what is needed to finish them.

    Attributes:
        run: The run's directory.
        dataset: The simulated companies.
        coordinator: The coordinator's MLflow run.
        partners: Each partner's own MLflow run, in its own experiment.
        report: Reports the coordinator's rounds.
    """

    run: RunDirectory
    dataset: SimulatedDataset
    coordinator: TrackedRun
    partners: Mapping[str, TrackedRun]
    report: RoundReport

    @property
    def origin(self) -> DataOrigin:
        """What models must say about their labels."""
        control = "permuted-labels" if self.run.settings.permuted_labels else None
        return DataOrigin(synthetic=self.dataset.card.simulated_assays, control=control)

    @property
    def basis(self) -> str:
        """Names what validation metrics were measured on: only those of one basis are compared."""
        public = ("data", "partners", "seed", "permuted_labels")
        return digest_of(self.run.settings.model_dump(include=set(public), mode="json"))[:32]


async def open_tracking(run: RunDirectory, *, dataset: SimulatedDataset) -> Tracking:
    """Open the store and everybody's MLflow run; a resumed run finds its own."""
    store = await asyncio.to_thread(open_store, run.home)
    tags = {
        "motet.data": dataset.name,
        "data.synthetic": str(dataset.card.simulated_assays).lower(),
        "prefect.flow_run_id": str(flow_run.id or ""),
        "prefect.flow_run_url": str(flow_run.ui_url or ""),
    }
    coordinator = await asyncio.to_thread(
        _open, store, run, experiment="qsar-training", party="coordinator", tags=tags
    )
    partners = {
        name: await asyncio.to_thread(
            _open, store, run, experiment=f"qsar-training/{name}", party=name, tags=tags
        )
        for name in dataset.partners
    }
    await link_to_mlflow(coordinator.url(services.mlflow_address(run.home)))
    report = RoundReport(
        tracked=coordinator,
        n_rounds=run.settings.rounds + 3,
        directory=run.path / "pictures",
        simulated_assays=dataset.card.simulated_assays,
    )
    return Tracking(run=run, dataset=dataset, coordinator=coordinator, partners=partners, report=report)


def _open(
    store: TrackingStore, run: RunDirectory, *, experiment: str, party: str, tags: Mapping[str, str]
) -> TrackedRun:
    tracked = open_run(store, experiment=experiment, run_id=run.run_id, party=party, tags=tags)
    log_parameters(tracked, _public_parameters(run.settings))
    return tracked


def _public_parameters(settings: RunSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude={"seed", "data"})


async def finish_partner(
    tracking: Tracking, name: str, outcome: PartOutcome
) -> tuple[RegisteredVersion, dict[str, Any]]:
    """Write a partner's report, log it to the partner's own experiment, register the partner's own model."""
    site = tracking.run.partner(name)
    prepared = site.root / "prepared"
    endpoint_ids = read_table(prepared / "endpoints.arrow", ENDPOINTS).column("endpoint_id").to_pylist()
    await partner_report(
        name,
        {arm: outcome.scores / arm / "metrics.arrow" for arm in outcome.arms},
        endpoint_ids=endpoint_ids,
        output=site.results,
        seed=tracking.run.settings.seed,
        simulated_assays=tracking.dataset.card.simulated_assays,
    )
    uplift = json.loads((site.results / "uplift.json").read_bytes())
    tracked = tracking.partners[name]
    await asyncio.to_thread(
        _log_partner, tracked, uplift, results=site.results, round_number=outcome.best_round
    )
    federated = outcome.arms["federated"]
    version: RegisteredVersion = await model_registration(
        name,
        tracked=tracked,
        run_id=tracking.run.run_id,
        name=partner_model(name),
        trunk=federated.trunk,
        head=federated.head,
        places=federated.places,
        endpoints=endpoint_ids,
        data=tracking.origin,
        validation=Validation(metric="auprc", value=outcome.validation_auprc, basis=tracking.basis)
        if outcome.validation_auprc is not None
        else None,
        bundle=site.root / "model",
        calibrated_on=CalibrationInputs(
            scores=outcome.scores / "federated" / CALIBRATION / "scores.arrow", prepared=prepared
        ),
    )
    await asyncio.to_thread(end_run, tracked, succeeded=True)
    return version, uplift


def _log_partner(tracked: TrackedRun, uplift: Mapping[str, Any], *, results: Path, round_number: int) -> None:
    metrics: dict[str, float] = {}
    for metric, found in uplift["metrics"].items():
        metrics |= {f"test/{arm}_{metric}": interval["value"] for arm, interval in found["arms"].items()}
        metrics[f"uplift/{metric}"] = found["uplift"]["value"]
        metrics[f"uplift/riptop_{metric}"] = found["riptop"]["value"]
    log_round(tracked, metrics, round_number=round_number, time_ms=int(time.time() * 1000))
    log_files(
        tracked,
        {
            "pictures/uplift.png": results / "uplift.png",
            "pictures/endpoints.png": results / "endpoints.png",
            "tables/endpoints.parquet": results / "endpoints.parquet",
        },
    )


async def finish_coordinator(
    tracking: Tracking,
    trained: TrainedTrunk,
    *,
    finished: Mapping[str, tuple[RegisteredVersion, dict[str, Any]]],
) -> dict[str, Any]:
    """Register the consortium's trunk and write ``result.json``: sums, and where everything lies."""
    run = tracking.run
    await tracking.report.close(validation=trained.validation, test=trained.test)
    blobs = BlobStore(run.mailbox / "blobs")
    best = trained.validation.get(trained.best_round, {}).get("auprc")
    version: RegisteredVersion = await model_registration(
        "coordinator",
        tracked=tracking.coordinator,
        run_id=run.run_id,
        name=CONSORTIUM_MODEL,
        trunk=blobs.path(trained.trunk),
        head=None,
        places=None,
        endpoints=(),
        data=tracking.origin,
        validation=Validation(metric="auprc", value=best, basis=tracking.basis) if best is not None else None,
        bundle=run.coordinator.root / "model",
    )
    await asyncio.to_thread(end_run, tracking.coordinator, succeeded=True)
    single, federated = trained.test.get("test/single/auprc"), trained.test.get("test/federated/auprc")
    result = {
        "run_id": run.run_id,
        "data": {"name": tracking.dataset.name, "simulated_assays": tracking.dataset.card.simulated_assays},
        "best_round": trained.best_round,
        "trunk_sha256": trained.trunk.sha256,
        "consortium": {
            "test": trained.test,
            "uplift_auprc": federated - single if federated is not None and single is not None else None,
        },
        "models": {
            "coordinator": version.uri,
            **{name: model.uri for name, (model, _) in finished.items()},
        },
    }
    run.write_result(result)
    return result
