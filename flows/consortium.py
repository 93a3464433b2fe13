"""A whole consortium on one machine: the coordinator and the partners, each with its own directory and keys.

Why: a person tries motet in one command, and every test of the protocol runs here; the stories are the ones
that separate sites run. Runs: on one machine, in a simulation. Source: own.
"""

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable
from typing import Any

from prefect import flow, tags
from prefect.runtime import flow_run

from flows.federated_training import Coordinator, TrainedTrunk, discard_others, lead
from flows.finishing import RunFacts, finish_coordinator, finish_partner, track, track_rounds
from flows.partner import Partner, PartOutcome, take_part
from flows.run_directory import RunDirectory, open_or_create_run
from flows.settings import RunSettings
from flows.sites import derive_key
from flows.training_children import training_children
from tasks.exchange.identity import Roster
from tasks.local_training.jobs import Centralised
from tasks.local_training.parameters import initial_trunk, write_parameters
from tasks.simulation.datasets import SimulatedDataset
from tasks.simulation.steps import simulated_companies
from tasks.studies.evaluation import Arm
from tasks.studies.qsar_training import TrainingParameters
from tasks.studies.steps import train_without_federation


def _run_name() -> str:
    """Name a run after its directory where it is known before the start, as it is for `motet run`."""
    return flow_run.parameters.get("run_id") or f"scheduled {flow_run.scheduled_start_time:%Y-%m-%d %H:%M}"


@flow(name="consortium", flow_run_name=_run_name, persist_result=False)
async def consortium(
    run_id: str | None = None, settings: RunSettings | None = None, home: str = "motet-home"
) -> dict[str, Any]:
    """Run a consortium of simulated companies to registered models; an interrupted run resumes.

    Args:
        run_id: Name of the run; None resumes an unfinished run of the same settings, or starts a new one.
        settings: What to compute; None means the embedded data and the defaults.
        home: Directory of runs, models and services.

    Returns:
        The consortium's result, as in ``result.json``.
    """
    run = open_or_create_run(home, settings=settings or RunSettings(), run_id=run_id)
    with run.held(), tags(f"run:{run.run_id}"):
        return await perform(run)


async def perform(run: RunDirectory) -> dict[str, Any]:
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
    )
    trained, parts = await _everybody(run, dataset, roster=roster, coordinator=coordinator)
    finished = {
        name: await finish_partner(facts, run.partner(name), part, tracked=tracked[name])
        for name, part in parts.items()
    }
    result = await finish_coordinator(
        facts,
        run.coordinator,
        trained,
        report=report,
        blobs=coordinator.board.mailbox.blobs,
        models={name: model.uri for name, (model, _) in finished.items()},
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
    run: RunDirectory, dataset: SimulatedDataset, *, roster: Roster, coordinator: Coordinator
) -> tuple[TrainedTrunk, dict[str, PartOutcome]]:
    """Play all parts side by side, each by its own story."""
    async with training_children() as run_job:
        partners = [
            Partner(
                site=run.partner(name),
                board=run.partner(name).board(mailbox=run.mailbox, roster=roster, run_id=run.run_id),
                files=dataset.files(name),
                rules=run.settings.rules,
                run_job=run_job,
                workers=max(1, (os.cpu_count() or 1) // 2),
                local_trunk=run.settings.local_trunk,
            )
            for name in dataset.partners
        ]
        async with asyncio.TaskGroup() as everybody:
            if run.settings.pooled_arm:
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
        return Centralised(
            kind="pooled",
            datasets=tuple(partner.prepared for partner in self._partners),
            modality=self._parameters.modality,
            trunk=start,
            places=tuple(partner.places for partner in self._partners),
            head_seeds=tuple(partner.site.seed("head") for partner in self._partners),
            seed=seed,
            max_epochs=self._parameters.rounds * self._parameters.local_epochs,
            learning_rate_decay=self._parameters.learning_rate_decay,
            decay_epochs=self._parameters.local_epochs,
            settings=self._parameters.settings,
            output=self._output,
        )

    def arm_of(self, place: int) -> Callable[[], Awaitable[Arm]]:
        """A function that waits for the pooled model and returns the share of the partner at a place."""

        async def wait() -> Arm:
            await self._trained.wait()
            return Arm(
                trunk=self._output / "trunk.safetensors", head=self._output / f"head-{place}.safetensors"
            )

        return wait
