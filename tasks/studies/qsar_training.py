"""QSAR training as a study: local steps at the partner, a server step on the sum.

Why: MELLODDY's network (a shared trunk, private heads) over federated averaging: a round costs one secure sum
instead of one per minibatch. Runs: ``compute`` on the partner, ``combine`` on the coordinator.
Source: McMahan et al. 2017, Algorithm 1; Heyndrickx et al. 2023 for trunk and private heads.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from data_contracts.errors import AgreementViolation, UpdateMismatch
from data_contracts.plan import Lane, Modality, RoundPlan
from data_contracts.references import BlobReference
from tasks.aggregation.server_optimizers import clip_for_next_round, server_step
from tasks.evaluation.metric_tables import counted_values
from tasks.evaluation.metrics import METRICS_OF
from tasks.evaluation.sums import figures_to_means, to_figures
from tasks.exchange.blob_store import BlobStore
from tasks.local_training.jobs import LocalSteps, LocalStepsResult, Score, ScoreResult
from tasks.local_training.parameters import (
    FloatArray,
    read_parameters,
    unflatten,
    vector_length,
)
from tasks.local_training.shared_model import (
    read_shared,
    trunk_length,
)
from tasks.rounds.study import Study, parse_parameters, write_contribution
from tasks.secure_aggregation.vector import SecureSum
from tasks.studies.catalogue import read_catalogue
from tasks.studies.phases import FOLD_OF
from tasks.studies.server_state import publish_state, read_state
from tasks.studies.training_parameters import LOSS, TrainingParameters

NAME = "qsar-training"
VALIDATION_FOLDS = (FOLD_OF["validation"],)
COUNT_BITS = 52
SHARED_CONTRACT = "shared-model@1"

RunJob = Callable[[Any], Awaitable[Any]]
MakeLanes = Callable[..., tuple[Lane, ...]]


@dataclass(frozen=True)
class PartnerInputs:
    """What stays at the partner.

    Attributes:
        name: The partner.
        dataset: Its prepared data.
        trunk: The round's shared model as a verified file.
        places: Each endpoint's row in the catalogue head, as a file.
        head: Its head as the last round that counted it left it, or an earlier run; None draws one.
        optimizer: The state of the local optimizer as that round left it; None starts from zero.
        seed: Private seed of a purpose.
        run_job: Runs a job in a training child.
    """

    name: str
    dataset: Path
    trunk: Path
    places: Path
    head: Path | None
    seed: Callable[[str], int]
    run_job: RunJob
    optimizer: Path | None = None


def lanes(
    parameters: TrainingParameters, *, clip: float, ring_bits: int, value_bits: int, vector: str = "update"
) -> tuple[Lane, ...]:
    """The lanes of a training round: what is made of the shared model, under its name, and each partner's figures."""
    length = vector_length(parameters.layout)
    return (
        Lane(name=vector, length=length, ring_bits=ring_bits, value_bits=value_bits, clip=clip),
        Lane(name="figures", length=len(parameters.figures), ring_bits=64, value_bits=COUNT_BITS),
    )


def parameters_of(plan: RoundPlan) -> TrainingParameters:
    """Parse a plan's parameters.

    Raises:
        AgreementViolation: If one is missing, unknown or out of bounds.
    """
    return parse_parameters(plan, TrainingParameters)


def accept(plan: RoundPlan) -> None:
    """Check a training plan before anything is computed.

    Raises:
        AgreementViolation: If parameters, lanes or model are not those of this study.
    """
    demand_lanes(plan, parameters_of(plan), lanes=lanes)


def demand_lanes(plan: RoundPlan, parameters: TrainingParameters, *, lanes: MakeLanes) -> None:
    """Check that a plan has the lanes and the shared model of a study that trains.

    Args:
        plan: The plan.
        parameters: Its parameters.
        lanes: Makes the study's lanes from them.

    Raises:
        AgreementViolation: If it has not.
    """
    first = plan.lanes[0]
    if (
        first.clip is None
        or first.clip > parameters.clip_ceiling
        or plan.lanes
        != lanes(parameters, clip=first.clip, ring_bits=first.ring_bits, value_bits=first.value_bits)
        or plan.model_in is None
        or plan.model_in.contract != SHARED_CONTRACT
        or plan.model_in.bytes > 4 * first.length + 4096
    ):
        raise AgreementViolation(
            f"the plan of round {plan.round} does not have the lanes and the trunk of '{plan.study}'; nothing was "
            "computed"
        )


async def compute(plan: RoundPlan, inputs: PartnerInputs, directory: Path) -> None:
    """Score the round's trunk with the last head, then train it on; leave update and figures in ``directory``."""
    parameters = parameters_of(plan)
    values = await validation_values(parameters, plan.round, inputs, directory)
    trained: LocalStepsResult = await inputs.run_job(
        LocalSteps(
            dataset=inputs.dataset,
            modality=parameters.modality,
            trunk=inputs.trunk,
            head=inputs.head,
            places=inputs.places,
            optimizer=inputs.optimizer,
            keep_optimizer=True,
            head_seed=inputs.seed("head"),
            seed=inputs.seed(f"round/{plan.round}"),
            epochs=parameters.local_epochs,
            folds=parameters.training_folds,
            settings=parameters.settings_in(plan.round),
            output=directory,
        )
    )
    loss = np.array([trained.loss_sum / trained.weight_sum])
    write_contribution(directory, {"figures": to_figures({LOSS: loss, **values}, names=parameters.figures)})


async def validation_values(
    parameters: TrainingParameters, round_number: int, inputs: PartnerInputs, directory: Path
) -> dict[str, npt.NDArray[np.float64]]:
    """Score the model that a round starts from on the validation fold, where the plan's rhythm asks for it."""
    if not parameters.measures(round_number):
        return {}
    scored: ScoreResult = await inputs.run_job(
        Score(
            dataset=inputs.dataset,
            modality=parameters.modality,
            trunk=inputs.trunk,
            head=inputs.head,
            head_seed=inputs.seed("head"),
            places=inputs.places,
            folds=VALIDATION_FOLDS,
            output=directory / "validation",
        )
    )
    return counted_values(scored.metrics, scored.regression_metrics)


def combine(plan: RoundPlan, total: SecureSum, blobs: BlobStore) -> dict[str, Any]:
    """Take the server's step and publish the next shared model.

    Returns:
        ``trunk`` (reference), ``clip`` of the next round, ``metrics`` of the consortium by ``group/name``, and
        ``server_state`` (reference) where the server optimizer keeps one.
    """
    parameters = parameters_of(plan)
    assert plan.model_in is not None  # noqa: S101 - accept() saw to it
    shared = shared_vector(blobs, plan.model_in, who="coordinator")
    n_survivors = len(total.survivors)
    summed = np.asarray(total.values["update"], dtype=np.float64)
    mean = summed / n_survivors
    step = mean_step(
        summed,
        _trainers(parameters, blobs),
        n_survivors=n_survivors,
        start=trunk_length(parameters.hidden, n_layers=parameters.layers, n_bits=parameters.n_bits),
        hidden=parameters.hidden,
    )
    state = parameters.server_state
    following, kept = server_step(
        shared,
        step,
        server_learning_rate=parameters.server_learning_rate,
        optimizer=parameters.server_optimizer,
        state=None if state is None else read_state(blobs, state, who="coordinator"),
    )
    outcome = {
        "trunk": publish_shared(blobs, following, parameters=parameters).model_dump(),
        "clip": clip_for_next_round(mean, n_partners=n_survivors, ceiling=parameters.clip_ceiling),
        "metrics": round_metrics(total, mean=mean, modality=parameters.modality),
    }
    return outcome if kept is None else {**outcome, "server_state": publish_state(blobs, kept).model_dump()}


def _trainers(parameters: TrainingParameters, blobs: BlobStore) -> npt.NDArray[np.int64]:
    """How many partners train each row of the catalogue head, as round 0 counted them."""
    if not parameters.n_catalogue:
        return np.zeros(0, dtype=np.int64)
    agreed = read_catalogue(blobs, parameters.catalogue, who="coordinator")
    if len(agreed.endpoints) != parameters.n_catalogue:
        raise UpdateMismatch(
            f"the catalogue has {len(agreed.endpoints)} endpoints, the plan says {parameters.n_catalogue}"
        )
    return np.array(agreed.partners, dtype=np.int64)


def mean_step(
    summed: npt.NDArray[np.float64],
    n_trainers: npt.NDArray[np.int64],
    *,
    n_survivors: int,
    start: int,
    hidden: int,
) -> npt.NDArray[np.float64]:
    """Average each parameter over those who train it.

    Args:
        summed: Sum of the survivors' updates, shape ``(n_parameters,)``.
        n_trainers: How many partners train each row of the catalogue head, shape ``(n_catalogue,)``.
        n_survivors: How many train the trunk in this round.
        start: Where the catalogue head begins.
        hidden: Width of the trunk.

    Returns:
        The mean update. Where a partner that trains a catalogue row is missing in this round, that row's step is
        a little short: who trains which row is not known.
    """
    step = summed / n_survivors
    n_catalogue = len(n_trainers)
    factor = n_survivors / n_trainers
    rows = step[start : start + n_catalogue * hidden].reshape(n_catalogue, hidden)
    rows *= factor[:, None]
    step[start + rows.size :] *= factor
    return step


def round_metrics(
    total: SecureSum,
    *,
    mean: npt.NDArray[np.float64],
    lane: str = "update",
    modality: Modality = "classification",
) -> dict[str, float]:
    """The consortium's figures of a round, from sums alone."""
    measured = METRICS_OF[modality]
    figures = figures_to_means(
        np.asarray(total.values["figures"], dtype=np.int64),
        names=(LOSS, *measured),
        n_partners=len(total.survivors),
    )
    validation = {f"validation/{name}": figures[name] for name in measured if any(map(figures.get, measured))}
    loss = "log_loss" if modality == "classification" else "loss"
    return validation | {
        f"train/{loss}": figures[LOSS],
        "update/clipped_fraction": total.n_clipped[lane] / (len(total.survivors) * max(len(mean), 1)),
        "update/root_mean_square": float(np.sqrt(np.mean(np.square(mean)))),
    }


def shared_vector(blobs: BlobStore, reference: BlobReference, *, who: str) -> FloatArray:
    """Read a published shared model as one flat vector, shape ``(n_parameters,)``, after checking its digest."""
    blobs.open(reference, who=who)
    return read_shared(read_parameters(blobs.path(reference)))[1]


def publish_shared(blobs: BlobStore, vector: FloatArray, *, parameters: TrainingParameters) -> BlobReference:
    """Store a flat shared model as safetensors."""
    return blobs.put(
        [save(unflatten(np.ascontiguousarray(vector), parameters.layout))], contract=SHARED_CONTRACT
    )


QSAR_TRAINING: Study[PartnerInputs, BlobStore, dict[str, Any]] = Study(
    name=NAME, accept=accept, compute=compute, combine=combine
)
