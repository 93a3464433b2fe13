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
    flatten,
    layout_of,
    read_parameters,
    trunk_layout,
    unflatten,
    vector_length,
)
from tasks.rounds.study import Study, write_contribution
from tasks.secure_aggregation.vector import SecureSum

NAME = "qsar-training"
VALIDATION_FOLDS = (4,)
COUNTS = ("loss", "weight")
"""First integers of the lane ``counts``: summed loss and weight in units of 2**-20."""
COUNT_BITS = 52
TRUNK_CONTRACT = "trunk@1"

RunJob = Callable[[Any], Awaitable[Any]]


class TrainingParameters(BaseModel):
    """What a plan may choose, within bounds that every partner's software fixes.

    Attributes:
        hidden: Width of the trunk.
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
        trunk: The round's trunk as a verified file.
        last_round: Directory of its last round; None in the first.
        seed: Private seed of a purpose.
        run_job: Runs a job in a training child.
    """

    name: str
    dataset: Path
    trunk: Path
    last_round: Path | None
    seed: Callable[[str], int]
    run_job: RunJob


def lanes(
    parameters: TrainingParameters, *, clip: float, ring_bits: int, value_bits: int
) -> tuple[Lane, ...]:
    """The lanes of a training round: the trunk's update, and exact counts."""
    length = vector_length(trunk_layout(parameters.hidden))
    return (
        Lane(name="update", length=length, ring_bits=ring_bits, value_bits=value_bits, clip=clip),
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
        or plan.model_in.contract != TRUNK_CONTRACT
        or plan.model_in.bytes > 4 * plan.lanes[0].length + 4096
    ):
        raise AgreementViolation(
            f"the plan of round {plan.round} does not have the lanes and the trunk of '{NAME}'; nothing was computed"
        )


async def compute(plan: RoundPlan, inputs: PartnerInputs, directory: Path) -> None:
    """Score the round's trunk with the last head, then train it on; leave update and counts in ``directory``."""
    parameters = parameters_of(plan)
    values: dict[str, npt.NDArray[np.float64]] = {}
    if inputs.last_round is not None:
        scored: ScoreResult = await inputs.run_job(
            Score(
                dataset=inputs.dataset,
                trunk=inputs.trunk,
                head=inputs.last_round / "head.safetensors",
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
    write_contribution(directory, {"counts": np.array(counts, dtype=np.int64)})


def counted_values(scored: ScoreResult) -> dict[str, npt.NDArray[np.float64]]:
    """The values of each metric over the endpoints that count."""
    metrics, counted = read_metrics(scored.metrics)
    return {name: getattr(metrics, name)[counted] for name in METRICS}


def combine(plan: RoundPlan, total: SecureSum, blobs: BlobStore) -> dict[str, Any]:
    """Take the server's step and publish the next trunk.

    Returns:
        ``trunk`` (reference), ``clip`` of the next round, and ``metrics`` of the consortium by ``group/name``.
    """
    parameters = parameters_of(plan)
    assert plan.model_in is not None  # noqa: S101 - accept() saw to it
    trunk = trunk_vector(blobs, plan.model_in, who="coordinator")
    n_survivors = len(total.survivors)
    mean: npt.NDArray[np.float64] = np.asarray(total.values["update"], dtype=np.float64) / n_survivors
    following, _ = server_step(trunk, mean, server_learning_rate=parameters.server_learning_rate)
    return {
        "trunk": publish_trunk(blobs, following, hidden=parameters.hidden).model_dump(),
        "clip": clip_for_next_round(mean, n_partners=n_survivors, ceiling=parameters.clip_ceiling),
        "metrics": round_metrics(total, mean=mean),
    }


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


def trunk_vector(blobs: BlobStore, reference: BlobReference, *, who: str) -> npt.NDArray[np.float32]:
    """Read a published trunk as one flat vector, shape ``(n_parameters,)``, after checking its digest."""
    blobs.open(reference, who=who)
    trunk = read_parameters(blobs.path(reference))
    return flatten(trunk, layout_of(trunk))


def publish_trunk(blobs: BlobStore, vector: npt.NDArray[np.float32], *, hidden: int) -> BlobReference:
    """Store a flat trunk as safetensors."""
    arrays = unflatten(np.ascontiguousarray(vector), trunk_layout(hidden))
    return blobs.put([save(arrays)], contract=TRUNK_CONTRACT)


QSAR_TRAINING: Study[PartnerInputs, BlobStore, dict[str, Any]] = Study(
    name=NAME, accept=accept, compute=compute, combine=combine
)
