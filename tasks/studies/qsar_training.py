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
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.numpy import save

from data_contracts.errors import AgreementViolation
from data_contracts.plan import Lane, RoundPlan
from data_contracts.references import BlobReference
from tasks.aggregation.server_optimizers import clip_for_next_round, server_step
from tasks.evaluation.metric_tables import read_metrics
from tasks.evaluation.metrics import METRICS
from tasks.evaluation.sums import FIXED_POINT, lane_length, to_integers, to_means
from tasks.exchange.blob_store import BlobStore
from tasks.local_training.jobs import LocalSteps, LocalStepsResult, Score, ScoreResult, TrainingSettings
from tasks.local_training.parameters import (
    FloatArray,
    read_parameters,
    unflatten,
    vector_length,
)
from tasks.local_training.shared_model import (
    read_places,
    read_shared,
    shared_layout,
    trunk_length,
)
from tasks.rounds.study import Study, write_contribution
from tasks.secure_aggregation.vector import SecureSum
from tasks.studies.catalogue import FLAG_BITS, MAX_ENDPOINTS, MIN_PARTNERS, presence

NAME = "qsar-training"
VALIDATION_FOLDS = (4,)
COUNTS = ("loss", "weight")
"""First integers of the lane ``counts``: summed loss and weight in units of 2**-20."""
COUNT_BITS = 52
SHARED_CONTRACT = "shared-model@1"

RunJob = Callable[[Any], Awaitable[Any]]


class TrainingParameters(BaseModel):
    """What a plan may choose, within bounds that every partner's software fixes.

    Attributes:
        hidden: Width of the trunk.
        n_catalogue: Rows of the catalogue head; 0 if no endpoint is shared.
        rounds: Rounds of the whole training; the single-partner arm gets as many epochs.
        local_epochs: Passes over the training folds in a round.
        batch_size: Structures in a minibatch.
        learning_rate: Adam's.
        dropout: Share of hidden units dropped.
        weight_decay: L2 penalty.
        server_learning_rate: Factor on the mean update.
        clip_ceiling: Largest clip that later rounds may choose.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    hidden: int = Field(ge=1, le=8192)
    n_catalogue: int = Field(default=0, ge=0, le=MAX_ENDPOINTS)
    rounds: int = Field(ge=1, le=1000)
    local_epochs: int = Field(ge=1, le=100)
    batch_size: int = Field(ge=1, le=65536)
    learning_rate: float = Field(gt=0, le=1)
    dropout: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0, le=1)
    server_learning_rate: float = Field(gt=0, le=10)
    clip_ceiling: float = Field(gt=0, le=1000)

    @property
    def settings(self) -> TrainingSettings:
        """The part that the training child needs."""
        return TrainingSettings(
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            dropout=self.dropout,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class PartnerInputs:
    """What stays at the partner.

    Attributes:
        name: The partner.
        dataset: Its prepared data.
        trunk: The round's shared model as a verified file.
        places: Each endpoint's row in the catalogue head, as a file.
        last_round: Directory of its last round; None in the first.
        seed: Private seed of a purpose.
        run_job: Runs a job in a training child.
    """

    name: str
    dataset: Path
    trunk: Path
    places: Path
    last_round: Path | None
    seed: Callable[[str], int]
    run_job: RunJob


def lanes(
    parameters: TrainingParameters, *, clip: float, ring_bits: int, value_bits: int
) -> tuple[Lane, ...]:
    """The lanes of a training round: the shared model's update, who trains which catalogue row, and exact counts."""
    length = vector_length(shared_layout(parameters.hidden, n_catalogue=parameters.n_catalogue))
    return (
        Lane(name="update", length=length, ring_bits=ring_bits, value_bits=value_bits, clip=clip),
        Lane(name="trained", length=parameters.n_catalogue, ring_bits=64, value_bits=FLAG_BITS),
        Lane(name="counts", length=len(COUNTS) + lane_length(METRICS), ring_bits=64, value_bits=COUNT_BITS),
    )


def parameters_of(plan: RoundPlan) -> TrainingParameters:
    """Parse a plan's parameters.

    Raises:
        AgreementViolation: If one is missing, unknown or out of bounds.
    """
    try:
        return TrainingParameters.model_validate(plan.parameters)
    except ValidationError as exc:
        wrong = sorted({str(error["loc"][0]) if error["loc"] else "parameters" for error in exc.errors()})
        raise AgreementViolation(
            f"the plan of round {plan.round} asks for what is not granted: {', '.join(wrong)[:300]}"
        ) from None


def accept(plan: RoundPlan) -> None:
    """Check a training plan before anything is computed.

    Raises:
        AgreementViolation: If parameters, lanes or model are not those of this study.
    """
    parameters = parameters_of(plan)
    clip = plan.lanes[0].clip
    if (
        clip is None
        or clip > parameters.clip_ceiling
        or plan.lanes
        != lanes(
            parameters, clip=clip, ring_bits=plan.lanes[0].ring_bits, value_bits=plan.lanes[0].value_bits
        )
        or plan.model_in is None
        or plan.model_in.contract != SHARED_CONTRACT
        or plan.model_in.bytes > 4 * plan.lanes[0].length + 4096
    ):
        raise AgreementViolation(
            f"the plan of round {plan.round} does not have the lanes and the trunk of '{NAME}'; nothing was computed"
        )


async def compute(plan: RoundPlan, inputs: PartnerInputs, directory: Path) -> None:
    """Score the round's trunk with the last head, then train it on; leave update and counts in ``directory``."""
    parameters = parameters_of(plan)
    places = read_places(inputs.places)
    assert places is not None  # noqa: S101 - a file was named
    values: dict[str, npt.NDArray[np.float64]] = {}
    if inputs.last_round is not None:
        scored: ScoreResult = await inputs.run_job(
            Score(
                dataset=inputs.dataset,
                trunk=inputs.trunk,
                head=inputs.last_round / "head.safetensors",
                places=inputs.places,
                folds=VALIDATION_FOLDS,
                output=directory / "validation",
            )
        )
        values = counted_values(scored)
    trained: LocalStepsResult = await inputs.run_job(
        LocalSteps(
            dataset=inputs.dataset,
            trunk=inputs.trunk,
            head=inputs.last_round / "head.safetensors" if inputs.last_round else None,
            places=inputs.places,
            optimizer=None,
            head_seed=inputs.seed("head"),
            seed=inputs.seed(f"round/{plan.round}"),
            epochs=parameters.local_epochs,
            settings=parameters.settings,
            output=directory,
        )
    )
    counts = [
        round(trained.loss_sum * FIXED_POINT),
        round(trained.weight_sum * FIXED_POINT),
        *to_integers(values, names=METRICS).tolist(),
    ]
    trained_rows = presence(places, n_catalogue=parameters.n_catalogue)
    write_contribution(directory, {"counts": np.array(counts, dtype=np.int64), "trained": trained_rows})


def counted_values(scored: ScoreResult) -> dict[str, npt.NDArray[np.float64]]:
    """The values of each metric over the endpoints that count."""
    metrics, counted = read_metrics(scored.metrics)
    return {name: getattr(metrics, name)[counted] for name in METRICS}


def combine(plan: RoundPlan, total: SecureSum, blobs: BlobStore) -> dict[str, Any]:
    """Take the server's step and publish the next shared model.

    Returns:
        ``trunk`` (reference), ``clip`` of the next round, and ``metrics`` of the consortium by ``group/name``.
    """
    parameters = parameters_of(plan)
    assert plan.model_in is not None  # noqa: S101 - accept() saw to it
    shared = shared_vector(blobs, plan.model_in, who="coordinator")
    n_survivors = len(total.survivors)
    summed = np.asarray(total.values["update"], dtype=np.float64)
    mean = summed / n_survivors
    step = mean_step(
        summed, np.asarray(total.values["trained"]), n_survivors=n_survivors, parameters=parameters
    )
    following, _ = server_step(shared, step, server_learning_rate=parameters.server_learning_rate)
    return {
        "trunk": publish_shared(blobs, following, parameters=parameters).model_dump(),
        "clip": clip_for_next_round(mean, n_partners=n_survivors, ceiling=parameters.clip_ceiling),
        "metrics": round_metrics(total, mean=mean),
    }


def mean_step(
    summed: npt.NDArray[np.float64],
    n_trained: npt.NDArray[np.int64],
    *,
    n_survivors: int,
    parameters: TrainingParameters,
) -> npt.NDArray[np.float64]:
    """Average each parameter over those who train it.

    Args:
        summed: Sum of the survivors' updates, shape ``(n_parameters,)``.
        n_trained: How many survivors train each row of the catalogue head, shape ``(n_catalogue,)``.
        n_survivors: How many train the trunk.
        parameters: Of the run.

    Returns:
        The mean update. A catalogue row that too few survivors trained in this round stands still.
    """
    step = summed / n_survivors
    start, n_catalogue = trunk_length(parameters.hidden), parameters.n_catalogue
    factor = np.where(n_trained >= MIN_PARTNERS, n_survivors / np.maximum(n_trained, 1), 0.0)
    rows = step[start : start + n_catalogue * parameters.hidden].reshape(n_catalogue, parameters.hidden)
    rows *= factor[:, None]
    step[start + rows.size :] *= factor
    return step


def round_metrics(total: SecureSum, *, mean: npt.NDArray[np.float64]) -> dict[str, float]:
    """The consortium's figures of a round, from sums alone."""
    counts = np.asarray(total.values["counts"], dtype=np.int64)
    loss, weight = counts[: len(COUNTS)].tolist()
    metrics = {
        "train/log_loss": loss / max(weight, 1),
        "update/clipped_fraction": total.n_clipped["update"] / (len(total.survivors) * max(len(mean), 1)),
        "update/root_mean_square": float(np.sqrt(np.mean(np.square(mean)))),
    }
    means = to_means(counts[len(COUNTS) :], names=METRICS)
    return metrics | {f"validation/{name}": value for name, (value, _) in means.items() if value is not None}


def shared_vector(blobs: BlobStore, reference: BlobReference, *, who: str) -> FloatArray:
    """Read a published shared model as one flat vector, shape ``(n_parameters,)``, after checking its digest."""
    blobs.open(reference, who=who)
    return read_shared(read_parameters(blobs.path(reference)))[1]


def publish_shared(blobs: BlobStore, vector: FloatArray, *, parameters: TrainingParameters) -> BlobReference:
    """Store a flat shared model as safetensors."""
    layout = shared_layout(parameters.hidden, n_catalogue=parameters.n_catalogue)
    return blobs.put([save(unflatten(np.ascontiguousarray(vector), layout))], contract=SHARED_CONTRACT)


QSAR_TRAINING: Study[PartnerInputs, BlobStore, dict[str, Any]] = Study(
    name=NAME, accept=accept, compute=compute, combine=combine
)
