"""What a partner does for one plan: the work behind each study, its own arms, and what it may forget afterwards.

Why: the story in ``partner.py`` stays short; here stands how each kind of round is answered.
Runs: on the partner. Source: own.
"""

import asyncio
import io
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.catalogue import ENDPOINTS
from data_contracts.errors import AgreementViolation, Equivocation, TooFewPartners, UpdateMismatch
from data_contracts.plan import RoundPlan
from data_contracts.references import BlobReference
from data_contracts.writing import read_table
from flows.adapting import adapt
from flows.earlier_runs import HEAD, NO_RUNS, EarlierRuns, calibrations, warm_head
from flows.single_arm import ALONE, single_arm_job
from flows.sites import Site
from tasks.exchange.board import Board
from tasks.exchange.durable_files import create_once, replace_whole
from tasks.exchange.identity import secret_file
from tasks.featurization.executors import Executor, Processes
from tasks.featurization.preparation import PartnerFiles
from tasks.featurization.preparation_rules import PreparationRules
from tasks.featurization.prepared import REPORT
from tasks.featurization.reference_exchange import PreparationCheck, keyed_digests
from tasks.local_training.baseline import missing
from tasks.local_training.jobs import BaselineName, Centralised, Score
from tasks.local_training.parameters import write_parameters
from tasks.rounds.partner import next_plan
from tasks.rounds.patience import Patience
from tasks.rounds.study import Study
from tasks.rounds.verification import check_outcome, read_round, repeat_sum
from tasks.studies import catalogue as catalogue_study
from tasks.studies import evaluation as evaluation_study
from tasks.studies import minibatch_training as minibatch_study
from tasks.studies import qsar_training as training_study
from tasks.studies.catalogue import CATALOGUE
from tasks.studies.evaluation import ADAPTED, EVALUATION, Arm
from tasks.studies.minibatch_training import QSAR_MINIBATCHES
from tasks.studies.qsar_training import QSAR_TRAINING, RunJob
from tasks.studies.steps import catalogue, evaluation, local_training, train_without_federation
from tasks.studies.training_parameters import TrainingParameters

logger = logging.getLogger("motet")

ONE_PROCESS = Processes(1)
PUBLISHED_SECONDS = 60.0  # a plan of a round that has passed lies there already
OPTIMIZER = "optimizer.safetensors"


@dataclass(frozen=True)
class Training:
    """A study that trains, and how its parameters are read."""

    study: Study[training_study.PartnerInputs, Any, Any]
    parameters_of: Callable[[RoundPlan], TrainingParameters]


TRAINING = {
    QSAR_TRAINING.name: Training(QSAR_TRAINING, training_study.parameters_of),
    QSAR_MINIBATCHES.name: Training(QSAR_MINIBATCHES, minibatch_study.parameters_of),
}


def grant_everything(plan: RoundPlan) -> None:
    """The policy where one person holds all companies: whatever a study allows."""


@dataclass(frozen=True)
class Partner:
    """What a partner brings to a run.

    Attributes:
        site: Its directory and keys.
        board: Its view of the mailbox.
        files: Its assays, activities and structures.
        rules: How the consortium prepares data.
        run_job: Runs a training job in a child process.
        executor: Where its structures are featurized.
        accept: Refuses a plan that this site does not grant, before anything is computed.
        local_trunk: Width of a trunk of its own that it grows beside the chosen one; 0 for none. Nobody else knows.
        pooled: In a simulation, waits for the model that saw all data; None where none exists.
        earlier: Its own earlier runs.
        baselines: What it wants beside the networks in its own report.
        is_prepared: Set once its data lies prepared and the catalogue is agreed on.
    """

    site: Site
    board: Board
    files: PartnerFiles
    rules: PreparationRules
    run_job: RunJob
    executor: Executor = ONE_PROCESS
    accept: Callable[[RoundPlan], None] = grant_everything
    local_trunk: int = 0
    pooled: Callable[[], Awaitable[Arm]] | None = None
    earlier: EarlierRuns = NO_RUNS
    baselines: tuple[BaselineName, ...] = ("logistic",)
    is_prepared: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def prepared(self) -> Path:
        """Where its prepared data lies."""
        return self.site.prepared

    @property
    def places(self) -> Path:
        """Where it keeps which of its endpoints have which row of the catalogue head."""
        return self.site.root / "places.npy"

    @property
    def catalogue_pin(self) -> Path:
        """Where it keeps the digest of the catalogue that it has checked."""
        return self.site.root / "catalogue.sha256"

    @property
    def agreed_catalogue(self) -> str | None:
        """Digest of the catalogue that it has checked; None before."""
        return self.catalogue_pin.read_text() if self.catalogue_pin.exists() else None

    def round_directory(self, round_number: int) -> Path:
        """Where it works on a round."""
        return self.site.root / "rounds" / f"r{round_number:03d}"

    def counted_before(self, round_number: int) -> Path | None:
        """Directory of the newest earlier round that counted this partner; None if none has."""
        rounds = (self.round_directory(number) for number in range(round_number - 1, 0, -1))
        return next((directory for directory in rounds if (directory / HEAD).exists()), None)

    def demand_head(self, *, after_round: int) -> Path:
        """Its head as it stood after a round.

        Raises:
            TooFewPartners: If no round up to that one counted it.
        """
        counted = self.counted_before(after_round + 1)
        if counted is None:
            raise TooFewPartners(
                f"'{self.site.name}' was counted in no round of training up to round {after_round}, so it has no head",
                advice="the others go on without it; start another run to take part in its model",
            )
        return counted / HEAD

    def trunk(self, reference: BlobReference) -> Path:
        """Open a published model after checking its digest."""
        self.board.mailbox.blobs.open(reference, who=self.board.roster.coordinator)
        return self.board.mailbox.blobs.path(reference)


async def find_places(partner: Partner, plan: RoundPlan, outcome: dict[str, Any]) -> None:
    """Keep which of the partner's endpoints the catalogue head serves, once the count is seen to be true.

    A coordinator that announced an endpoint of one partner as common would read that partner's row.
    """
    reference = BlobReference.model_validate(outcome["catalogue"])
    if partner.agreed_catalogue != reference.sha256:
        await asyncio.to_thread(_repeat_count, partner, plan)
        create_once(partner.catalogue_pin, [reference.sha256.encode()])
    if partner.agreed_catalogue != reference.sha256:
        raise Equivocation(
            f"'{partner.board.roster.coordinator}' announced another catalogue than the one this partner has checked; "
            "nothing was shared"
        )
    agreed = catalogue_study.read_catalogue(
        partner.board.mailbox.blobs, reference, who=partner.board.roster.coordinator
    )
    with io.BytesIO() as buffer:
        modality = catalogue_study.modality_of(plan)
        places = catalogue_study.places_of(partner.prepared, agreed.endpoints, modality=modality)
        np.save(buffer, places, allow_pickle=False)
        replace_whole(partner.places, [buffer.getbuffer()])
    partner.is_prepared.set()


def _repeat_count(partner: Partner, plan: RoundPlan) -> None:
    board = partner.board
    found = read_round(board, plan.round)
    total = repeat_sum(found, identities=board.roster.partner_keys)
    check_outcome(found, total, study=CATALOGUE, inputs=board.mailbox.blobs)


async def work_on(
    partner: Partner, plan: RoundPlan, alone: asyncio.Task[Arm] | None, *, directory: Path
) -> None:
    """Compute this partner's contribution to a round."""
    if plan.study == CATALOGUE.name:
        CATALOGUE.accept(plan)
        if plan.parameters["n_partners"] != len(partner.board.roster.partners):
            raise AgreementViolation(
                "the plan of the catalogue counts other partners than the roster; nothing was sent"
            )
        counting = catalogue_study.PartnerInputs(dataset=partner.prepared, blobs=partner.board.mailbox.blobs)
        await catalogue(partner.site.name, plan, inputs=counting, directory=directory)
    elif plan.study in TRAINING:
        study, parameters_of = TRAINING[plan.study].study, TRAINING[plan.study].parameters_of
        study.accept(plan)
        asked = parameters_of(plan)
        if asked.n_catalogue and asked.catalogue_sha256 != partner.agreed_catalogue:
            raise AgreementViolation(
                f"the plan of round {plan.round} shares head rows of a catalogue that this partner has not checked"
            )
        if asked.n_bits != partner.rules.structures.fingerprint.n_bits:
            raise AgreementViolation(
                f"the plan of round {plan.round} trains on {asked.n_bits} bits, the agreed profile makes "
                f"{partner.rules.structures.fingerprint.n_bits}; nothing was computed"
            )
        assert plan.model_in is not None  # noqa: S101 - accept() saw to it
        counted = partner.counted_before(plan.round)
        training = training_study.PartnerInputs(
            name=partner.site.name,
            dataset=partner.prepared,
            trunk=partner.trunk(plan.model_in),
            places=partner.places,
            head=_first_head(partner, asked) if counted is None else counted / HEAD,
            optimizer=None if counted is None else _optimizer_of(partner, counted),
            seed=partner.site.seed,
            run_job=partner.run_job,
        )
        work = local_training if is_shown(plan) else local_training.fn
        await work(partner.site.name, plan, study=study, inputs=training, directory=directory)
    elif plan.study == EVALUATION.name:
        EVALUATION.accept(plan)
        evaluating = evaluation_study.PartnerInputs(
            dataset=partner.prepared,
            arms=await arms_of(partner, plan, alone),
            run_job=partner.run_job,
            baselines=_installed(partner),
        )
        await evaluation(partner.site.name, plan, inputs=evaluating, directory=directory)
    else:
        raise AgreementViolation(
            f"the plan of round {plan.round} asks for an unknown study; nothing was computed"
        )


def _installed(partner: Partner) -> tuple[BaselineName, ...]:
    """The baselines that this machine can fit; what it cannot is named once, and the run goes on."""
    absent = missing(partner.baselines)
    for name in absent:
        logger.warning(
            "%s: baseline '%s' is skipped, its library is not installed: pip install 'motet[baselines]'",
            partner.site.name,
            name,
        )
    return tuple(name for name in partner.baselines if name not in absent)


async def arms_of(partner: Partner, plan: RoundPlan, alone: asyncio.Task[Arm] | None) -> dict[str, Arm]:
    """The partner's models that an evaluation plan asks for."""
    parameters = evaluation_study.parameters_of(plan)
    assert plan.model_in is not None  # noqa: S101 - accept() saw to it
    head = partner.demand_head(after_round=parameters.after_round)
    arms = {"federated": Arm(trunk=partner.trunk(plan.model_in), head=head, places=partner.places)}
    if "single" in parameters.arm_names:
        if alone is None:
            raise AgreementViolation("the plan asks for a model of the partner's own before any training")
        arms["single"] = await alone
    if "pooled" in parameters.arm_names:
        if partner.pooled is None:
            raise AgreementViolation("the plan asks for a pooled model, which exists in simulations only")
        arms["pooled"] = await partner.pooled()
    if partner.local_trunk and parameters.split == "test" and parameters.phase == "standard":
        made_by = await next_plan(partner.board, parameters.after_round, patience=Patience(PUBLISHED_SECONDS))
        arms[ADAPTED] = await adapt(
            partner.site,
            partner.prepared,
            arms["federated"],
            width=partner.local_trunk,
            made_by=made_by,
            run_job=partner.run_job,
        )
    return arms


async def score_held_out(partner: Partner, arms: Mapping[str, Arm]) -> None:
    """Keep what tuning's arms say of the validation fold: a report is calibrated on it."""
    for name, arm in arms.items():
        output = calibrations(partner.site, name).parent
        if not (output / "scores.arrow").exists():
            await partner.run_job(
                Score(
                    dataset=partner.prepared,
                    trunk=arm.trunk,
                    head=arm.head,
                    places=arm.places,
                    folds=training_study.VALIDATION_FOLDS,
                    output=output,
                )
            )


def _first_head(partner: Partner, parameters: TrainingParameters) -> Path | None:
    """The head to start from after a warm start: rows of the partner's earlier head for the endpoints that had one."""
    if not parameters.warm_start:
        return None
    path = partner.site.root / "first-head.safetensors"
    if not path.exists():
        endpoints = read_table(partner.prepared / "endpoints.arrow", ENDPOINTS).column("endpoint_id")
        head = warm_head(
            partner.earlier.of_trunk(parameters.warm_start),
            endpoints.to_pylist(),
            hidden=parameters.hidden,
            seed=partner.site.seed("head"),
        )
        if head is None:
            return None
        write_parameters(path, head)
    return path


async def train_alone(partner: Partner, plan: RoundPlan) -> Arm:
    """Train what the partner has without the others."""
    output = partner.site.root / ALONE

    def make_job() -> Centralised:
        assert plan.model_in is not None  # noqa: S101 - accept() saw to it
        return single_arm_job(
            partner.site,
            partner.prepared,
            TRAINING[plan.study].parameters_of(plan),
            earlier=partner.earlier,
            trunk=partner.trunk(plan.model_in),
        )

    await train_without_federation(
        partner.site.name, "alone", make_job=make_job, output=output, run_job=partner.run_job
    )
    return Arm(trunk=output / "trunk.safetensors", head=output / "head-0.safetensors")


def _optimizer_of(partner: Partner, counted: Path) -> Path:
    """What the optimizer remembers of the round whose head is built upon."""
    if not (counted / OPTIMIZER).exists():
        raise UpdateMismatch(
            f"'{partner.site.name}' has its head of round {int(counted.name[1:])} without what the optimizer remembered: "
            "the run was begun with another version, or a file was removed",
            advice="start another run",
        )
    return counted / OPTIMIZER


def is_shown(plan: RoundPlan) -> bool:
    """Whether a round is a Prefect task of its own: all are, but for minibatches that nobody scores."""
    return plan.study != QSAR_MINIBATCHES.name or minibatch_study.parameters_of(plan).is_shown(plan.round)


def compare_preparation(partner: Partner) -> PreparationCheck:
    """Say, so that only partners can read it, what preparation made of the reference molecules."""
    report = json.loads((partner.prepared / REPORT).read_bytes())
    secret = secret_file(partner.site.secret_path("consortium_secret"))
    digests = keyed_digests(report["reference"], secret=secret, run_id=partner.board.run_id)
    check = PreparationCheck(partner.board, digests)
    check.announce()
    return check
