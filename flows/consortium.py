"""A whole consortium on one machine: the coordinator and the partners, each with its own directory and keys.

Why: a person tries motet in one command, and every test of the protocol runs here; the stories are the ones
that separate sites run. Runs: on one machine, in a simulation. Source: own.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.cluster import executor_of
from flows.federated_training import Coordinator, TrainedTrunk, discard_others, lead
from flows.finishing import RunFacts, finish_coordinator, finish_partner, track, track_rounds
from flows.partner import PartOutcome, take_part
from flows.partner_work import Partner
from flows.run_directory import RunDirectory, open_or_create_run
from flows.settings import RunSettings
from flows.sites import derive_key
from flows.training_children import training_children
from tasks.exchange.identity import Roster
from tasks.featurization.executors import Executor
from tasks.local_training.jobs import Centralised, Machine
from tasks.local_training.parameters import initial_trunk, write_parameters
from tasks.simulation.datasets import SimulatedDataset
from tasks.simulation.steps import simulated_companies
from tasks.studies.arms import trained_arm
from tasks.studies.evaluation import Arm
from tasks.studies.steps import train_without_federation
from tasks.studies.training_parameters import TrainingParameters


def _run_name() -> str:
    """Name a run after its directory where it is known before the start, as it is for `motet run`."""
    return flow_run.parameters.get("run_id") or f"scheduled {flow_run.scheduled_start_time:%Y-%m-%d %H:%M}"


@flow(name="consortium", flow_run_name=_run_name, persist_result=False)
async def consortium(
    run_id: str | None = None,
    settings: RunSettings | None = None,
    home: str = "motet-home",
    machine: Machine | None = None,
    dask: str | None = None,
) -> dict[str, Any]:
    """Run a consortium of simulated companies to registered models; an interrupted run resumes.

    Args:
        run_id: Name of the run; None resumes an unfinished run of the same settings, or starts a new one.
        settings: What to compute; None means the embedded data and the defaults.
        home: Directory of runs, models and services.
        machine: What is computed on; None takes CUDA where there is one.
        dask: Scheduler of a Dask cluster to featurize on, or ``local``; None for processes of this machine.

    Returns:
        The consortium's result, as in ``result.json``.
    """
    run = open_or_create_run(home, settings=settings or RunSettings(), run_id=run_id)
    with run.held():
        return await perform(run, machine=machine or Machine(), dask=dask)


async def perform(run: RunDirectory, *, machine: Machine, dask: str | None = None) -> dict[str, Any]:
    """Perform a run whose directory this process holds."""
    settings = run.settings
    dataset: SimulatedDataset = await simulated_companies(
        settings.data,
        partners=settings.partners,
        seed=settings.seed,
        permuted=settings.permuted_labels,
        directory=run.home / "data",
    )
    roster = pin_roster(run, dataset)
    facts = RunFacts(run=run, data=dataset.name, simulated_assays=dataset.card.simulated_assays)
    report = await track_rounds(facts)
    tracked = {
        name: await track(facts, experiment=f"qsar-training/{name}", party=name) for name in dataset.partners
    }
    coordinator = Coordinator(
        board=run.coordinator.board(mailbox=run.mailbox, roster=roster, run_id=run.run_id),
        settings=settings,
        listed=_listed(dataset, settings),
        report=report,
        earlier=run.earlier(),
    )
    trained, parts = await _everybody(
        run, dataset, roster=roster, coordinator=coordinator, machine=machine, executor=executor_of(dask)
    )
    finished = {
        name: await finish_partner(
            facts, run.partner(name), part, tracked=tracked[name], earlier=run.earlier(name)
        )
        for name, part in parts.items()
    }
    result = await finish_coordinator(
        facts,
        run.coordinator,
        trained,
        report=report,
        blobs=coordinator.board.mailbox.blobs,
        models={name: model.uri for name, (model, _) in finished.items() if model is not None},
        earlier=run.earlier(),
    )
    discard_others(coordinator, trained)
    return result


def _listed(dataset: SimulatedDataset, settings: RunSettings) -> tuple[str, ...]:
    """What the companies offer each other, by what the run learns."""
    if not settings.catalogue_heads:
        return ()
    classes = dataset.catalogue if settings.modality != "regression" else ()
    return classes if settings.modality == "classification" else (*classes, *dataset.regression_catalogue)


async def _everybody(
    run: RunDirectory,
    dataset: SimulatedDataset,
    *,
    roster: Roster,
    coordinator: Coordinator,
    machine: Machine,
    executor: Executor,
) -> tuple[TrainedTrunk, dict[str, PartOutcome]]:
    """Play all parts side by side, each by its own story."""
    async with training_children(machine) as run_job:
        partners = [
            Partner(
                site=run.partner(name),
                board=run.partner(name).board(mailbox=run.mailbox, roster=roster, run_id=run.run_id),
                files=dataset.files(name),
                rules=run.settings.rules,
                run_job=run_job,
                local_trunk=run.settings.local_trunk,
                earlier=run.earlier(name),
                baselines=run.settings.baselines,
                executor=executor,
            )
            for name in dataset.partners
        ]
        async with asyncio.TaskGroup() as everybody:
            if run.settings.pooled_arm and run.settings.phase != "final":
                pooled = PooledArm(run, partners, parameters=coordinator.parameters())
                partners = [
                    dataclasses.replace(partner, pooled=pooled.arm_of(place))
                    for place, partner in enumerate(partners)
                ]
                everybody.create_task(pooled.train())
            leading = everybody.create_task(lead(coordinator))
            taking_part = {
                partner.site.name: everybody.create_task(take_part(partner)) for partner in partners
            }
    return leading.result(), {name: task.result() for name, task in taking_part.items()}


def pin_roster(run: RunDirectory, dataset: SimulatedDataset) -> Roster:
    """Make everybody's keys and pin all public keys at every site.

    Signing keys come from the system's generator. The secret behind training seeds is derived from the simulated
    dataset, so that a run of the same settings can be repeated; a real partner makes its own.
    """
    sites = [run.coordinator, *(run.partner(name) for name in dataset.partners)]
    for site in sites:
        site.install_secret(
            "site_secret",
            derive_key(dataset.consortium_secret, f"simulated-site/{run.settings.seed}/{site.name}"),
        )
    for name in dataset.partners:  # what the partners share, and the coordinator never has
        run.partner(name).install_secret("consortium_secret", dataset.consortium_secret)
    return Roster(
        coordinator=run.coordinator.name,
        public_keys={site.name: site.identity.public_key.hex() for site in sites},
    )


class PooledArm:
    """The reference: one model that saw the data of all simulated companies. It exists in simulations only."""

    def __init__(self, run: RunDirectory, partners: list[Partner], *, parameters: TrainingParameters) -> None:
        self._run = run
        self._partners = partners
        self._parameters = parameters
        self._output = run.path / "simulation" / "pooled"
        self._trained = asyncio.Event()

    async def train(self) -> None:
        """Train as soon as every company has prepared its data and knows the catalogue."""
        for partner in self._partners:
            await partner.is_prepared.wait()
        await train_without_federation(
            "simulation",
            "pooled",
            make_job=self._job,
            output=self._output,
            run_job=self._partners[0].run_job,
        )
        self._trained.set()

    def _job(self) -> Centralised:
        start = self._run.path / "simulation" / "first-trunk.safetensors"
        seed = self._run.settings.seed
        first = initial_trunk(
            self._parameters.hidden,
            seed=seed,
            n_layers=self._parameters.layers,
            n_bits=self._parameters.n_bits,
        )
        write_parameters(start, first)
        job = Centralised(
            kind="pooled",
            datasets=tuple(partner.prepared for partner in self._partners),
            modality=self._parameters.modality,
            trunk=start,
            places=tuple(partner.places for partner in self._partners),
            head_seeds=tuple(partner.site.seed("head") for partner in self._partners),
            seed=seed,
            max_epochs=self._parameters.epochs,
            learning_rate_decay=self._parameters.learning_rate_decay,
            decay_epochs=self._parameters.epochs_per_rate,
            folds=self._parameters.training_folds,
            settings=self._parameters.settings,
            output=self._output,
        )
        return job if self._parameters.phase != "report" else job.model_copy(update=self._as_tuned())

    def _as_tuned(self) -> dict[str, Any]:
        """For a report: as many epochs as were best in the tuning run, and no fold held out."""
        tuned = RunDirectory(self._run.path.with_name(self._parameters.rounds_from))
        arm = trained_arm(tuned.path / "simulation" / "pooled")
        return {"validation_folds": ()} | ({} if arm is None else {"max_epochs": arm.best_epoch})

    def arm_of(self, place: int) -> Callable[[], Awaitable[Arm]]:
        """A function that waits for the pooled model and returns the share of the partner at a place."""

        async def wait() -> Arm:
            await self._trained.wait()
            return Arm(
                trunk=self._output / "trunk.safetensors", head=self._output / f"head-{place}.safetensors"
            )

        return wait
