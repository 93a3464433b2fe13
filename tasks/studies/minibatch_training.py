"""Training minibatch by minibatch as a study: a gradient from each partner, one step of Adam on their sum.

Why: it is how MELLODDY trained, and the measure of what fewer, longer rounds cost or gain. Every partner cuts an epoch
into as many minibatches, and every label of the consortium weighs the same. Runs: ``compute`` on the partner,
``combine`` on the coordinator. Source: McMahan et al. 2017, FedSGD; Heyndrickx et al. 2023; SparseChem's
``batch_ratio`` and ``normalize_loss``.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from data_contracts.plan import RoundPlan
from tasks.aggregation.server_optimizers import adam_step, clip_for_next_round
from tasks.evaluation.sums import to_figures
from tasks.exchange.blob_store import BlobStore
from tasks.local_training.jobs import MinibatchGradient, MinibatchResult, TrainingSettings
from tasks.rounds.study import Study, parse_parameters, write_contribution
from tasks.secure_aggregation.vector import SecureSum
from tasks.studies.qsar_training import (
    PartnerInputs,
    demand_lanes,
    publish_shared,
    round_metrics,
    shared_vector,
    validation_values,
)
from tasks.studies.qsar_training import lanes as training_lanes
from tasks.studies.server_state import publish_state, read_state
from tasks.studies.training_parameters import LOSS, TrainingParameters

NAME = "qsar-minibatches"
GRADIENT = "gradient"
CLIP_HEADROOM = 4.0
"""How much larger than the last sum's largest coordinate a partner's may be: minibatches differ, and the lane's bits
leave room."""


class MinibatchParameters(TrainingParameters):
    """What a plan may choose, beyond what all training plans may.

    Attributes:
        modality: Classes alone: numbers are learnt in rounds of local steps.
        batch_ratio: Share of its training structures that a partner puts into a minibatch.
        loss_normalizer: What every partner divides the summed loss of a minibatch by.
    """

    modality: Literal["classification"] = "classification"
    batch_ratio: float = Field(ge=1e-4, le=1)
    loss_normalizer: float = Field(ge=1, le=1e9)

    @property
    def batches_per_epoch(self) -> int:
        """Minibatches of an epoch, the same at every partner whatever its size."""
        return round(1 / self.batch_ratio)

    @property
    @override
    def epochs(self) -> int:
        """Passes over the training folds that the whole training makes, the last one perhaps in part."""
        return math.ceil(self.rounds / self.batches_per_epoch)

    @property
    @override
    def epochs_per_rate(self) -> int:
        """The learning rate falls from epoch to epoch."""
        return 1

    @override
    def settings_in(self, round_number: int) -> TrainingSettings:
        """What the training child needs in a round, from 1."""
        rate = self.learning_rate * self.learning_rate_decay ** self.place_of(round_number)[0]
        return self.settings.model_copy(update={"learning_rate": rate})

    @property
    @override
    def settings(self) -> TrainingSettings:
        """What the training child needs without federation, before the learning rate falls."""
        return super().settings.model_copy(update={"batches_per_epoch": self.batches_per_epoch})

    def is_shown(self, round_number: int) -> bool:
        """Whether a round is worth a line: the last before a model is scored, and the one that scores it."""
        return round_number == 1 or round_number % self.evaluate_every in {0, 1 % self.evaluate_every}

    def place_of(self, round_number: int) -> tuple[int, int]:
        """Which epoch a round, from 1, belongs to, and which minibatch of it; both from 0."""
        return divmod(round_number - 1, self.batches_per_epoch)


lanes = partial(training_lanes, vector=GRADIENT)
"""The lanes of a round: the shared model's gradient, and each partner's figures."""


def parameters_of(plan: RoundPlan) -> MinibatchParameters:
    """Parse a plan's parameters.

    Raises:
        AgreementViolation: If one is missing, unknown or out of bounds.
    """
    return parse_parameters(plan, MinibatchParameters)


def accept(plan: RoundPlan) -> None:
    """Check a plan before anything is computed.

    Raises:
        AgreementViolation: If parameters, lanes or model are not those of this study.
    """
    demand_lanes(plan, parameters_of(plan), lanes=lanes)


async def compute(plan: RoundPlan, inputs: PartnerInputs, directory: Path) -> None:
    """Leave a minibatch's gradient and figures in ``directory``, and step the partner's own head."""
    parameters = parameters_of(plan)
    values = await validation_values(parameters, plan.round, inputs, directory)
    epoch, batch = parameters.place_of(plan.round)
    found: MinibatchResult = await inputs.run_job(
        MinibatchGradient(
            dataset=inputs.dataset,
            trunk=inputs.trunk,
            head=inputs.head,
            places=inputs.places,
            optimizer=inputs.optimizer,
            head_seed=inputs.seed("head"),
            order_seed=inputs.seed(f"epoch/{epoch}"),
            seed=inputs.seed(f"round/{plan.round}"),
            batch=batch,
            loss_normalizer=parameters.loss_normalizer,
            folds=parameters.training_folds,
            settings=parameters.settings_in(plan.round),
            output=directory,
        )
    )
    loss = np.array([found.loss_sum / found.weight_sum if found.weight_sum else 0.0])
    write_contribution(directory, {"figures": to_figures({LOSS: loss, **values}, names=parameters.figures)})


def combine(plan: RoundPlan, total: SecureSum, blobs: BlobStore) -> dict[str, Any]:
    """Take one step of Adam along the sum and publish the next shared model.

    Returns:
        ``trunk`` (reference), ``clip`` of the next round, ``metrics`` of the consortium by ``group/name``, and
        ``server_state`` (reference).
    """
    parameters = parameters_of(plan)
    assert plan.model_in is not None  # noqa: S101 - accept() saw to it
    summed = np.asarray(total.values[GRADIENT], dtype=np.float64)
    state = parameters.server_state
    following, kept = adam_step(
        shared_vector(blobs, plan.model_in, who="coordinator"),
        summed,
        learning_rate=parameters.settings_in(plan.round).learning_rate,
        weight_decay=parameters.weight_decay,
        step=plan.round,
        state=None if state is None else read_state(blobs, state, who="coordinator"),
    )
    n_survivors = len(total.survivors)
    mean = summed / n_survivors
    return {
        "trunk": publish_shared(blobs, following, parameters=parameters).model_dump(),
        "clip": clip_for_next_round(
            CLIP_HEADROOM * mean, n_partners=n_survivors, ceiling=parameters.clip_ceiling
        ),
        "metrics": round_metrics(total, mean=mean, lane=GRADIENT),
        "server_state": publish_state(blobs, kept).model_dump(),
    }


QSAR_MINIBATCHES: Study[PartnerInputs, BlobStore, dict[str, Any]] = Study(
    name=NAME, accept=accept, compute=compute, combine=combine
)
