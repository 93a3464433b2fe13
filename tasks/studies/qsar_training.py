"""QSAR training as a study: local steps at the partner, a server step on the sum.

Why: MELLODDY's network (a shared trunk, private heads) over federated averaging: a round costs one secure sum
instead of one per minibatch. Runs: ``compute`` on the partner, ``combine`` on the coordinator.
Source: McMahan et al. 2017, Algorithm 1; Heyndrickx et al. 2023 for trunk and private heads.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import save

from data_contracts.errors import AgreementViolation, UpdateMismatch
from data_contracts.plan import Lane, Modality, RoundPlan
from data_contracts.references import BlobReference
from tasks.aggregation.server_optimizers import ServerOptimizer, clip_for_next_round, server_step
from tasks.evaluation.metric_tables import counted_values
from tasks.evaluation.metrics import METRICS_OF
from tasks.evaluation.sums import figures_to_means, to_figures
from tasks.exchange.blob_store import BlobStore
from tasks.local_training.jobs import (
    LocalSteps,
    LocalStepsResult,
    RegressionLoss,
    Score,
    ScoreResult,
    TrainingSettings,
)
from tasks.local_training.parameters import (
    N_BITS,
    FloatArray,
    Layout,
    read_parameters,
    unflatten,
    vector_length,
)
from tasks.local_training.shared_model import (
    read_shared,
    shared_layout,
    trunk_length,
)
from tasks.rounds.study import Study, parse_parameters, write_contribution
from tasks.secure_aggregation.vector import SecureSum
from tasks.studies.catalogue import CONTRACT as CATALOGUE_CONTRACT
from tasks.studies.catalogue import MAX_BYTES, MAX_ENDPOINTS, read_catalogue
from tasks.studies.server_state import CONTRACT as STATE_CONTRACT
from tasks.studies.server_state import publish_state, read_state

NAME = "qsar-training"
VALIDATION_FOLDS = (4,)
LOSS = "loss"
COUNT_BITS = 52
MAX_STATE_BYTES = 2**36
SHARED_CONTRACT = "shared-model@1"

RunJob = Callable[[Any], Awaitable[Any]]


class TrainingParameters(BaseModel):
    """What a plan may choose, within bounds that every partner's software fixes.

    Attributes:
        modality: What is learnt of the assays: classes, numbers, or both.
        regression_loss: What a regression endpoint costs.
        regression_weight: The numbers' share of the loss where both are learnt.
        n_bits: Length of the hashed fingerprints that the trunk reads.
        hidden: Width of the trunk.
        layers: Residual layers of the trunk behind the embedding.
        n_catalogue: Rows of the catalogue head; 0 if no endpoint is shared.
        catalogue_sha256: Digest of the list of these rows, as round 0 announced it; empty without one.
        catalogue_bytes: Size of that list.
        rounds: Rounds of the whole training; the single-partner arm gets as many epochs.
        local_epochs: Passes over the training folds in a round.
        batch_size: Structures in a minibatch.
        learning_rate: Adam's.
        dropout: Share of hidden units dropped.
        weight_decay: L2 penalty.
        server_learning_rate: Factor on the server's step.
        server_optimizer: The server's rule; ``average`` with rate 1 is federated averaging.
        server_state_sha256: Digest of what that rule kept of the last round; empty in the first, or if it keeps nothing.
        server_state_bytes: Size of it.
        proximal: Pull of local training towards the round's shared trunk (FedProx).
        learning_rate_decay: Factor on Adam's learning rate from round to round.
        clip_ceiling: Largest clip that later rounds may choose.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    modality: Modality = "classification"
    regression_loss: RegressionLoss = "tobit"
    regression_weight: float = Field(default=0.5, ge=0, le=1)
    n_bits: int = Field(default=N_BITS, ge=1, le=N_BITS)
    hidden: int = Field(ge=1, le=8192)
    layers: int = Field(default=0, ge=0, le=8)
    n_catalogue: int = Field(default=0, ge=0, le=MAX_ENDPOINTS)
    catalogue_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    catalogue_bytes: int = Field(default=0, ge=0, le=MAX_BYTES)
    rounds: int = Field(ge=1, le=1000)
    local_epochs: int = Field(ge=1, le=100)
    batch_size: int = Field(ge=1, le=65536)
    learning_rate: float = Field(gt=0, le=1)
    dropout: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0, le=1)
    server_learning_rate: float = Field(gt=0, le=10)
    server_optimizer: ServerOptimizer = "average"
    server_state_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    server_state_bytes: int = Field(default=0, ge=0, le=MAX_STATE_BYTES)
    proximal: float = Field(default=0.0, ge=0, le=10)
    learning_rate_decay: float = Field(default=1.0, gt=0, le=1)
    clip_ceiling: float = Field(gt=0, le=1000)

    @property
    def layout(self) -> Layout:
        """Names and shapes of the shared model's arrays, in the order of the flat vector."""
        return shared_layout(
            self.hidden, n_catalogue=self.n_catalogue, n_layers=self.layers, n_bits=self.n_bits
        )

    @property
    def catalogue(self) -> BlobReference:
        """Where the list of the catalogue head's rows lies."""
        return BlobReference(
            sha256=self.catalogue_sha256, bytes=self.catalogue_bytes, contract=CATALOGUE_CONTRACT
        )

    @property
    def server_state(self) -> BlobReference | None:
        """Where the server optimizer's state of the last round lies, if there is one."""
        if not self.server_state_sha256:
            return None
        return BlobReference(
            sha256=self.server_state_sha256, bytes=self.server_state_bytes, contract=STATE_CONTRACT
        )

    def after(self, outcome: Mapping[str, Any]) -> Self:
        """The parameters of the next round."""
        if "server_state" not in outcome:
            return self
        state = BlobReference.model_validate(outcome["server_state"])
        return self.model_copy(
            update={"server_state_sha256": state.sha256, "server_state_bytes": state.bytes}
        )

    def settings_in(self, round_number: int) -> TrainingSettings:
        """What the training child needs in a round, from 1."""
        rate = self.learning_rate * self.learning_rate_decay ** (round_number - 1)
        return self.settings.model_copy(update={"learning_rate": rate, "proximal": self.proximal})

    @property
    def settings(self) -> TrainingSettings:
        """What the training child needs without federation, before the learning rate falls."""
        return TrainingSettings(
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            dropout=self.dropout,
            weight_decay=self.weight_decay,
            regression_loss=self.regression_loss,
            regression_weight=self.regression_weight,
        )

    @property
    def figures(self) -> tuple[str, ...]:
        """Each partner's mean training loss and validation metrics.

        No lane of a training round holds a number that stays the same from round to round: with one partner missing,
        the difference would be that partner's.
        """
        return (LOSS, *METRICS_OF[self.modality])


@dataclass(frozen=True)
class PartnerInputs:
    """What stays at the partner.

    Attributes:
        name: The partner.
        dataset: Its prepared data.
        trunk: The round's shared model as a verified file.
        places: Each endpoint's row in the catalogue head, as a file.
        head: Its head as the last round that counted it left it; None if none has.
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


def lanes(
    parameters: TrainingParameters, *, clip: float, ring_bits: int, value_bits: int
) -> tuple[Lane, ...]:
    """The lanes of a training round: the shared model's update, and each partner's figures."""
    length = vector_length(parameters.layout)
    return (
        Lane(name="update", length=length, ring_bits=ring_bits, value_bits=value_bits, clip=clip),
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
    """Score the round's trunk with the last head, then train it on; leave update and figures in ``directory``."""
    parameters = parameters_of(plan)
    values: dict[str, npt.NDArray[np.float64]] = {}
    if plan.round > 1:
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
        values = counted_values(scored.metrics, scored.regression_metrics)
    trained: LocalStepsResult = await inputs.run_job(
        LocalSteps(
            dataset=inputs.dataset,
            modality=parameters.modality,
            trunk=inputs.trunk,
            head=inputs.head,
            places=inputs.places,
            optimizer=None,
            head_seed=inputs.seed("head"),
            seed=inputs.seed(f"round/{plan.round}"),
            epochs=parameters.local_epochs,
            settings=parameters.settings_in(plan.round),
            output=directory,
        )
    )
    loss = np.array([trained.loss_sum / trained.weight_sum])
    write_contribution(directory, {"figures": to_figures({LOSS: loss, **values}, names=parameters.figures)})


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
    total: SecureSum, *, mean: npt.NDArray[np.float64], modality: Modality = "classification"
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
        "update/clipped_fraction": total.n_clipped["update"] / (len(total.survivors) * max(len(mean), 1)),
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
