"""The coordinator's part in a run, from the first trunk to the registered one.

Why: read top to bottom, this is all that the coordinator does; it sees sums, never an update.
Runs: on the coordinator. Source: own.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from data_contracts.envelope import Kind
from data_contracts.plan import Lane, Modality, RoundPlan
from data_contracts.references import BlobReference
from flows.earlier_runs import NO_RUNS, EarlierRuns, warm_shared
from flows.settings import Algorithm, RunSettings
from tasks.evaluation.metrics import selection_value
from tasks.exchange.blob_store import BlobStore
from tasks.exchange.board import Board
from tasks.local_training.parameters import flatten, unflatten
from tasks.local_training.shared_model import PREFIX as CATALOGUE_PREFIX
from tasks.local_training.shared_model import initial_shared
from tasks.rounds.coordinator import publish_plan
from tasks.rounds.steps import open_sum, unwalked
from tasks.rounds.study import Study
from tasks.studies import catalogue as catalogue_study
from tasks.studies import evaluation as evaluation_study
from tasks.studies import minibatch_training as minibatch_study
from tasks.studies import qsar_training as training_study
from tasks.studies.catalogue import CATALOGUE
from tasks.studies.evaluation import EVALUATION, EvaluationParameters
from tasks.studies.minibatch_training import QSAR_MINIBATCHES, MinibatchParameters
from tasks.studies.phases import MEASURED
from tasks.studies.qsar_training import QSAR_TRAINING
from tasks.studies.training_parameters import TrainingParameters

PREFIX = "validation/"
ROUNDS_KEPT = 3
"""Models and server states of the newest rounds that stay where a run has very many."""


@dataclass(frozen=True)
class Training:
    """How a run trains: a study, its parameters and its lanes."""

    study: Study[Any, BlobStore, dict[str, Any]]
    parameters: type[TrainingParameters]
    lanes: Callable[..., tuple[Lane, ...]]


ALGORITHMS: Mapping[Algorithm, Training] = {
    "fedavg": Training(QSAR_TRAINING, TrainingParameters, training_study.lanes),
    "fedsgd": Training(QSAR_MINIBATCHES, MinibatchParameters, minibatch_study.lanes),
}

ReportRound = Callable[[RoundPlan, dict[str, Any]], Awaitable[None]]


def training_parameters(settings: RunSettings) -> TrainingParameters:
    """The training parameters that follow from a run's settings, before anything was agreed on."""
    model = ALGORITHMS[settings.algorithm].parameters
    given = settings.model_dump(include=set(model.model_fields) & set(RunSettings.model_fields))
    return model(**given, n_bits=settings.rules.structures.fingerprint.n_bits)


@dataclass(frozen=True)
class Coordinator:
    """What leads a run.

    Attributes:
        board: The coordinator's view of the mailbox.
        settings: What the run computes.
        listed: Endpoints that the agreement offers for the catalogue; public.
        report: Called with the plan and the public outcome of every round.
        earlier: The coordinator's earlier runs.
    """

    board: Board
    settings: RunSettings
    listed: tuple[str, ...]
    report: ReportRound
    earlier: EarlierRuns = NO_RUNS

    @property
    def training(self) -> Training:
        """The study that trains."""
        return ALGORITHMS[self.settings.algorithm]

    def parameters(self, agreed: Mapping[str, Any] | None = None) -> TrainingParameters:
        """The training parameters that every plan of the run carries, with the catalogue that round 0 announced."""
        chosen = training_parameters(self.settings)
        if agreed is None or not agreed["n_catalogue"]:
            return chosen
        listed = BlobReference.model_validate(agreed["catalogue"])
        catalogue = {
            "n_catalogue": agreed["n_catalogue"],
            "catalogue_sha256": listed.sha256,
            "catalogue_bytes": listed.bytes,
        }
        return chosen.model_copy(update=catalogue)


@dataclass(frozen=True)
class TrainedTrunk:
    """What the consortium trained.

    Attributes:
        trunk: The chosen shared model: trunk and catalogue head.
        best_round: The round after which it stood.
        validation: The validation metrics of every round, by round.
        test: The consortium's means on the test fold, by ``test/<arm>/<metric>``.
        catalogue: Names of the catalogue head's rows.
        others: The models of the other rounds and the server optimizer's states, still in the mailbox.
    """

    trunk: BlobReference
    best_round: int
    validation: dict[int, dict[str, float]]
    test: dict[str, float]
    catalogue: tuple[str, ...]
    others: tuple[BlobReference, ...]


async def lead(coordinator: Coordinator) -> TrainedTrunk:
    """Lead a run: agree on the catalogue, train, choose the best round by the securely summed metric, test it.

    Raises:
        TooFewPartners: If a round fell below the threshold; the same call resumes with a new attempt.
    """
    agreed = await _agree_on_catalogue(coordinator)
    parameters = coordinator.parameters(agreed)
    course = await _train(coordinator, parameters, _first_model(coordinator, parameters))
    last, trunks, validation = max(course.trunks), course.trunks, course.validation
    following, best, test = last + 1, last, {}
    measured = MEASURED[parameters.phase]
    if "validation" in measured:
        asked = EvaluationParameters(split="validation", after_round=last, arms=1, phase=parameters.phase)
        outcome = await _evaluate(coordinator, following, asked, trunks[last])
        validation[last] = _validation(coordinator, outcome)
        following, best = following + 1, _best_round(validation, last=last, modality=parameters.modality)
    if "test" in measured:
        arms = len(evaluation_study.ARMS) - (not coordinator.settings.pooled_arm)
        asked = EvaluationParameters(split="test", after_round=best, arms=arms, phase=parameters.phase)
        test = (await _evaluate(coordinator, following, asked, trunks[best]))["metrics"]
    coordinator.board.post_json(Kind.RUN_CLOSED, {"best_round": best, "trunk": trunks[best].model_dump()})
    return TrainedTrunk(
        trunk=trunks[best],
        best_round=best,
        validation=validation,
        test=test,
        catalogue=_agreed_endpoints(coordinator, parameters),
        others=(*(set(trunks.values()) - {trunks[best]}), *course.states),
    )


@dataclass
class _Course:
    """What training has led to so far: models by round, validation figures by round, and the server's states."""

    trunks: dict[int, BlobReference]
    validation: dict[int, dict[str, float]] = field(default_factory=dict)
    states: list[BlobReference] = field(default_factory=list)


async def _train(coordinator: Coordinator, parameters: TrainingParameters, first: BlobReference) -> _Course:
    """Train round after round, to the last one or until patience ends."""
    course, clip, training = _Course({0: first}), parameters.clip_ceiling, coordinator.training
    for round_number in range(1, parameters.rounds + 1):
        outcome = await _round(
            coordinator,
            round_number,
            study=training.study,
            lanes=training.lanes(
                parameters,
                clip=clip,
                ring_bits=coordinator.settings.ring_bits,
                value_bits=coordinator.settings.value_bits,
            ),
            parameters=parameters.model_dump(),
            trunk=course.trunks[round_number - 1],
        )
        clip = outcome["clip"]
        course.trunks[round_number] = BlobReference.model_validate(outcome["trunk"])
        if parameters.measures(round_number):
            course.validation[round_number - 1] = _validation(coordinator, outcome)
        parameters = parameters.after(outcome)
        if parameters.server_state is not None:
            course.states.append(parameters.server_state)
        _discard_passed(coordinator, parameters, course, round_number)
        if _is_over(course.validation, patience=coordinator.settings.patience, modality=parameters.modality):
            break
    return course


def _discard_passed(
    coordinator: Coordinator, parameters: TrainingParameters, course: _Course, round_number: int
) -> None:
    """Where a run has thousands of rounds, drop what neither a later round nor the choice of the best one needs.

    The newest rounds stay, so that they can be verified; a model may return, and then stays too.
    """
    passed = round_number - ROUNDS_KEPT
    if parameters.evaluate_every == 1 or passed < 1:
        return
    blobs, trunks = coordinator.board.mailbox.blobs, course.trunks
    evaluated = range(0, passed + 1, parameters.evaluate_every)
    needed = {trunks[number] for number in (*evaluated, *range(passed + 1, round_number + 1))}
    if trunks[passed] not in needed:
        blobs.discard(trunks[passed])
    if (
        len(course.states) > ROUNDS_KEPT
        and course.states[-ROUNDS_KEPT - 1] not in course.states[-ROUNDS_KEPT:]
    ):
        blobs.discard(course.states[-ROUNDS_KEPT - 1])


def discard_others(coordinator: Coordinator, trained: TrainedTrunk) -> None:
    """Drop the models that nobody needs any more; to be called last, because a resumed run reads them all."""
    for trunk in trained.others:
        coordinator.board.mailbox.blobs.discard(trunk)


async def _agree_on_catalogue(coordinator: Coordinator) -> dict[str, Any]:
    """Count who trains the listed endpoints, and keep those that enough partners train."""
    listed = catalogue_study.publish_list(coordinator.board.mailbox.blobs, coordinator.listed)
    lanes = catalogue_study.lanes(len(coordinator.listed))
    parameters = {
        "n_partners": len(coordinator.board.roster.partners),
        "modality": coordinator.settings.modality,
    }
    return await _round(coordinator, 0, study=CATALOGUE, lanes=lanes, parameters=parameters, trunk=listed)


def _agreed_endpoints(coordinator: Coordinator, parameters: TrainingParameters) -> tuple[str, ...]:
    """Names of the catalogue head's rows."""
    if not parameters.n_catalogue:
        return ()
    me, blobs = coordinator.board.roster.coordinator, coordinator.board.mailbox.blobs
    return catalogue_study.read_catalogue(blobs, parameters.catalogue, who=me).endpoints


def _first_model(coordinator: Coordinator, parameters: TrainingParameters) -> BlobReference:
    """The first shared model: drawn from the public seed, or that of an earlier run as far as it fits."""
    vector = initial_shared(
        parameters.hidden,
        n_catalogue=parameters.n_catalogue,
        seed=coordinator.settings.seed,
        n_layers=parameters.layers,
        n_bits=parameters.n_bits,
    )
    if parameters.warm_start:
        started = warm_shared(
            coordinator.earlier,
            parameters.warm_start,
            fresh=unflatten(vector, parameters.layout),
            names=_agreed_endpoints(coordinator, parameters),
            prefix=CATALOGUE_PREFIX,
        )
        vector = flatten(started, parameters.layout)
    return training_study.publish_shared(coordinator.board.mailbox.blobs, vector, parameters=parameters)


async def _evaluate(
    coordinator: Coordinator, round_number: int, parameters: EvaluationParameters, trunk: BlobReference
) -> dict[str, Any]:
    parameters = parameters.model_copy(update={"modality": coordinator.settings.modality})
    return await _round(
        coordinator,
        round_number,
        study=EVALUATION,
        lanes=evaluation_study.lanes(parameters),
        parameters=parameters.model_dump(),
        trunk=trunk,
    )


async def _round(
    coordinator: Coordinator,
    round_number: int,
    *,
    study: Study[Any, BlobStore, dict[str, Any]],
    lanes: tuple[Lane, ...],
    parameters: dict[str, Any],
    trunk: BlobReference,
) -> dict[str, Any]:
    """Publish a plan, open the sum, report the outcome."""
    draft = RoundPlan(
        run_id=coordinator.board.run_id,
        round=round_number,
        study=study.name,
        cohort=coordinator.board.roster.partners,
        threshold=coordinator.settings.threshold,
        lanes=lanes,
        model_in=trunk,
        parameters=parameters,
        deadline_seconds=coordinator.settings.round_deadline_seconds,
    )
    plan = publish_plan(coordinator.board, draft)
    outcome: dict[str, Any] = await open_sum(
        unwalked(plan),
        board=unwalked(coordinator.board),
        study=unwalked(study),
        inputs=unwalked(coordinator.board.mailbox.blobs),
    )
    await coordinator.report(plan, outcome)
    return outcome


def _validation(coordinator: Coordinator, outcome: Mapping[str, Any]) -> dict[str, float]:
    """A round's validation figures; none where a partner was missing, for they would be another mean."""
    if tuple(outcome["survivors"]) != coordinator.board.roster.partners:
        return {}
    return {
        name.removeprefix(PREFIX): value
        for name, value in outcome["metrics"].items()
        if name.startswith(PREFIX)
    }


def _is_over(
    validation: Mapping[int, Mapping[str, float]], *, patience: int, modality: Modality = "classification"
) -> bool:
    """Whether so many measured rounds in a row brought no better validation figure; never with a patience of 0."""
    measured = list(_measured(validation, modality=modality).values())
    return 0 < patience < len(measured) and max(measured[-patience:]) <= max(measured[:-patience])


def _best_round(
    validation: Mapping[int, Mapping[str, float]], *, last: int, modality: Modality = "classification"
) -> int:
    """The round after which the summed validation figure was highest; the last one if nothing could be measured."""
    measured = _measured(validation, modality=modality)
    return max(measured, key=lambda number: (measured[number], -number)) if measured else last


def _measured(validation: Mapping[int, Mapping[str, float]], *, modality: Modality) -> dict[int, float]:
    """The figure that chooses the round, of each round in which it was measured, in order."""
    found = {number: selection_value(metrics, modality) for number, metrics in sorted(validation.items())}
    return {number: value for number, value in found.items() if number and value is not None}
