"""A partner's part in a run, from its files to its own registered model.

Why: read top to bottom, this is all that ever happens inside a partner's firewall.
Runs: on the partner. Source: own.
"""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.errors import AgreementViolation, Equivocation, ProtocolError, TooFewPartners
from data_contracts.plan import RoundPlan, threshold_for
from data_contracts.references import BlobReference
from flows.adapting import adapt
from flows.sites import Site
from tasks.evaluation.metric_tables import selection_of
from tasks.evaluation.score_tables import CALIBRATION
from tasks.exchange.board import Board
from tasks.exchange.durable_files import create_once, replace_whole
from tasks.exchange.identity import secret_file
from tasks.featurization.preparation import PartnerFiles
from tasks.featurization.preparation_rules import PreparationRules
from tasks.featurization.prepared import REPORT
from tasks.featurization.reference_exchange import PreparationCheck, keyed_digests
from tasks.featurization.steps import featurization
from tasks.local_training.jobs import Centralised
from tasks.rounds.partner import Contributor, next_plan
from tasks.rounds.patience import Patience
from tasks.rounds.steps import secure_aggregation
from tasks.rounds.verification import check_outcome, read_round, repeat_sum
from tasks.studies import catalogue as catalogue_study
from tasks.studies import evaluation as evaluation_study
from tasks.studies import qsar_training as training_study
from tasks.studies.catalogue import CATALOGUE
from tasks.studies.evaluation import ADAPTED, EVALUATION, Arm
from tasks.studies.qsar_training import QSAR_TRAINING, RunJob
from tasks.studies.steps import catalogue, evaluation, local_training, train_without_federation

WAIT_FOR_COORDINATOR_SECONDS = 6 * 3600.0
HEAD = "head.safetensors"


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
        workers: Processes for featurization.
        accept: Refuses a plan that this site does not grant, before anything is computed.
        local_trunk: Width of a trunk of its own that it grows beside the chosen one; 0 for none. Nobody else knows.
        pooled: In a simulation, waits for the model that saw all data; None where none exists.
        is_prepared: Set once its data lies prepared and the catalogue is agreed on.
    """

    site: Site
    board: Board
    files: PartnerFiles
    rules: PreparationRules
    run_job: RunJob
    workers: int = 1
    accept: Callable[[RoundPlan], None] = grant_everything
    local_trunk: int = 0
    pooled: Callable[[], Awaitable[Arm]] | None = None
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

    def head_before(self, round_number: int) -> Path | None:
        """Its head as the newest earlier round that counted it left it; None if none has."""
        heads = (self.round_directory(number) / HEAD for number in range(round_number - 1, 0, -1))
        return next((head for head in heads if head.exists()), None)

    def leave_round(self, plan: RoundPlan, outcome: Mapping[str, Any]) -> None:
        """Drop what no later round may build on: the update, and the head of a round that did not count it.

        So a partner's heads, and with them the model, depend on the committed cohorts alone, and not on how far a
        late partner had come.
        """
        directory = self.round_directory(plan.round)
        (directory / "update.npy").unlink(missing_ok=True)
        if self.site.name not in outcome["survivors"]:
            (directory / HEAD).unlink(missing_ok=True)

    def trunk(self, reference: BlobReference) -> Path:
        """Open a published model after checking its digest."""
        self.board.mailbox.blobs.open(reference, who=self.board.roster.coordinator)
        return self.board.mailbox.blobs.path(reference)


@dataclass(frozen=True)
class PartOutcome:
    """How a partner's part ended.

    Attributes:
        best_round: The round whose trunk the consortium chose.
        arms: The partner's models by arm.
        scores: Directory with the tables of each arm on the test fold.
        registered: Which arm is the partner's model: ``federated``, or ``adapted`` where that is better on the
            validation fold.
        validation: The partner's own figure of that arm on its validation fold, ``metrics.selection_value``.
    """

    best_round: int
    arms: dict[str, Arm]
    scores: Path
    registered: str
    validation: float | None


async def take_part(partner: Partner) -> PartOutcome:
    """Take part in a run: prepare the data once, answer every round, keep the chosen model.

    Raises:
        MotetError: If the run cannot go on; finished work is kept, and the same call resumes it.
    """
    await featurization(
        partner.site.name,
        files=partner.files,
        rules=partner.rules,
        secret=partner.site.secret_path("consortium_secret"),
        output=partner.prepared,
        workers=partner.workers,
    )
    contributor = Contributor(
        board=partner.board,
        vault=partner.site.vault,
        rounding_key=partner.site.key("rounding"),
        patience=Patience(WAIT_FOR_COORDINATOR_SECONDS),
        min_threshold=threshold_for(len(partner.board.roster.partners)),
    )
    async with asyncio.TaskGroup() as background:
        alone: asyncio.Task[Arm] | None = None
        round_number, plan, tested = 0, None, False
        prepared = _compare_preparation(partner)
        while (
            found := await next_plan(partner.board, round_number, patience=contributor.patience)
        ) is not None:
            plan = found
            partner.accept(plan)
            await prepared.compare(plan, wait=plan.round == 0 and not contributor.is_over(plan))
            tested = _demand_one_test(plan, tested)
            if plan.study == QSAR_TRAINING.name:
                alone = alone or background.create_task(_train_alone(partner, plan))
            directory = partner.round_directory(plan.round)
            if _is_test(plan) or not contributor.is_over(plan):  # its own figures a late partner wants too
                await _work_on(partner, plan, alone, directory=directory)
            outcome = await secure_aggregation(partner.site.name, plan, directory, contributor=contributor)
            if plan.study == CATALOGUE.name:
                await _find_places(partner, plan, outcome)
            partner.leave_round(plan, outcome)
            round_number += 1
    if plan is None or alone is None:
        raise ProtocolError(f"'{partner.board.roster.coordinator}' closed the run before its first round")
    return await _outcome(partner, plan, alone)


async def _outcome(partner: Partner, plan: RoundPlan, alone: asyncio.Task[Arm]) -> PartOutcome:
    """What a partner takes away from the run whose last plan this was."""
    chosen = evaluation_study.parameters_of(plan)
    scores = partner.round_directory(plan.round)
    arms = await _arms(partner, plan, alone)
    quality = {
        arm: selection_of(scores / arm / CALIBRATION, chosen.modality)
        for arm in (ADAPTED, "federated")
        if arm in arms
    }
    registered = max(sorted(quality, reverse=True), key=lambda arm: quality[arm] or 0.0)
    return PartOutcome(
        best_round=chosen.after_round,
        arms=arms,
        scores=scores,
        registered=registered,
        validation=quality[registered],
    )


def _compare_preparation(partner: Partner) -> PreparationCheck:
    """Say, so that only partners can read it, what preparation made of the reference molecules."""
    report = json.loads((partner.prepared / REPORT).read_bytes())
    secret = secret_file(partner.site.secret_path("consortium_secret"))
    digests = keyed_digests(report["reference"], secret=secret, run_id=partner.board.run_id)
    check = PreparationCheck(partner.board, digests)
    check.announce()
    return check


def _demand_one_test(plan: RoundPlan, tested: bool) -> bool:  # noqa: FBT001 - private
    """Answer one test evaluation a run: two over other cohorts would differ by one partner's figures.

    Returns:
        Whether the run has had its test, this plan included.
    """
    if _is_test(plan) and tested:
        raise AgreementViolation(
            f"the plan of round {plan.round} asks for a second test of the run; one is granted"
        )
    return tested or _is_test(plan)


def _is_test(plan: RoundPlan) -> bool:
    return plan.study == EVALUATION.name and plan.parameters.get("split") == "test"


async def _find_places(partner: Partner, plan: RoundPlan, outcome: dict[str, Any]) -> None:
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


async def _work_on(
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
    elif plan.study == QSAR_TRAINING.name:
        QSAR_TRAINING.accept(plan)
        asked = training_study.parameters_of(plan)
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
        training = training_study.PartnerInputs(
            name=partner.site.name,
            dataset=partner.prepared,
            trunk=partner.trunk(plan.model_in),
            places=partner.places,
            head=partner.head_before(plan.round),
            seed=partner.site.seed,
            run_job=partner.run_job,
        )
        await local_training(partner.site.name, plan, inputs=training, directory=directory)
    elif plan.study == EVALUATION.name:
        EVALUATION.accept(plan)
        evaluating = evaluation_study.PartnerInputs(
            dataset=partner.prepared, arms=await _arms(partner, plan, alone), run_job=partner.run_job
        )
        await evaluation(partner.site.name, plan, inputs=evaluating, directory=directory)
    else:
        raise AgreementViolation(
            f"the plan of round {plan.round} asks for an unknown study; nothing was computed"
        )


async def _arms(partner: Partner, plan: RoundPlan, alone: asyncio.Task[Arm] | None) -> dict[str, Arm]:
    """The partner's models that an evaluation plan asks for."""
    parameters = evaluation_study.parameters_of(plan)
    assert plan.model_in is not None  # noqa: S101 - accept() saw to it
    head = partner.head_before(parameters.after_round + 1)
    if head is None:
        raise TooFewPartners(
            f"'{partner.site.name}' was counted in no round of training up to round {parameters.after_round}, so it has "
            "no head to evaluate",
            advice="the others go on without it; start another run to take part in its model",
        )
    arms = {"federated": Arm(trunk=partner.trunk(plan.model_in), head=head, places=partner.places)}
    if "single" in parameters.arm_names:
        if alone is None:
            raise AgreementViolation("the plan asks for a model of the partner's own before any training")
        arms["single"] = await alone
    if "pooled" in parameters.arm_names:
        if partner.pooled is None:
            raise AgreementViolation("the plan asks for a pooled model, which exists in simulations only")
        arms["pooled"] = await partner.pooled()
    if partner.local_trunk and parameters.split == "test":
        arms[ADAPTED] = await adapt(
            partner.site,
            partner.prepared,
            arms["federated"],
            width=partner.local_trunk,
            made_by=await next_plan(
                partner.board, parameters.after_round, patience=Patience(WAIT_FOR_COORDINATOR_SECONDS)
            ),
            run_job=partner.run_job,
        )
    return arms


async def _train_alone(partner: Partner, plan: RoundPlan) -> Arm:
    """Train what the partner has without the others: same start, same settings, as many epochs."""
    output = partner.site.root / "alone"

    def make_job() -> Centralised:
        parameters = training_study.parameters_of(plan)
        assert plan.model_in is not None  # noqa: S101 - accept() saw to it
        return Centralised(
            kind="alone",
            datasets=(partner.prepared,),
            modality=parameters.modality,
            trunk=partner.trunk(plan.model_in),
            head_seeds=(partner.site.seed("head"),),
            seed=partner.site.seed("alone"),
            max_epochs=parameters.rounds * parameters.local_epochs,
            learning_rate_decay=parameters.learning_rate_decay,
            decay_epochs=parameters.local_epochs,
            settings=parameters.settings,
            output=output,
        )

    await train_without_federation(
        partner.site.name, "alone", make_job=make_job, output=output, run_job=partner.run_job
    )
    return Arm(trunk=output / "trunk.safetensors", head=output / "head-0.safetensors")
