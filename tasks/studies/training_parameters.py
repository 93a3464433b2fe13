"""What a training plan may choose: bounded numbers and names, from which everything of a round follows.

Why: partners, coordinator and whoever repeats a round read the same settings from the plan alone. Runs: anywhere.
Source: own.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from data_contracts.plan import Modality
from data_contracts.references import BlobReference
from tasks.aggregation.server_optimizers import ServerOptimizer
from tasks.evaluation.metrics import METRICS_OF
from tasks.local_training.jobs import RegressionLoss, TrainingSettings
from tasks.local_training.parameters import N_BITS, Layout
from tasks.local_training.shared_model import shared_layout
from tasks.studies.catalogue import CONTRACT as CATALOGUE_CONTRACT
from tasks.studies.catalogue import MAX_BYTES, MAX_ENDPOINTS
from tasks.studies.phases import MEASURED, TRAINING_FOLDS, Phase
from tasks.studies.server_state import CONTRACT as STATE_CONTRACT

LOSS = "loss"
MAX_STATE_BYTES = 2**36
MAX_ROUNDS = 50_000
RUN_OR_NONE = r"^([a-z0-9][a-z0-9-]{2,63})?$"
DIGEST_OR_NONE = r"^([0-9a-f]{64})?$"


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
        evaluate_every: The model is scored on the validation fold after every so many rounds.
        phase: Which folds are trained on, and which measured.
        warm_start: Digest of the shared model of an earlier run that training starts from; empty if it starts anew.
        rounds_from: The run whose choice of rounds this one follows; each partner finds its own part of it. Empty if none.
        search: The search that chose the settings; each partner takes those of its single arm from its own trials.
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
    rounds: int = Field(ge=1, le=MAX_ROUNDS)
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
    evaluate_every: int = Field(default=1, ge=1, le=1000)
    phase: Phase = "standard"
    warm_start: str = Field(default="", pattern=DIGEST_OR_NONE)
    rounds_from: str = Field(default="", pattern=RUN_OR_NONE)
    search: str = Field(default="", pattern=RUN_OR_NONE)

    @property
    def epochs(self) -> int:
        """Passes over the training folds that the whole training makes."""
        return self.rounds * self.local_epochs

    @property
    def epochs_per_rate(self) -> int:
        """Passes at one learning rate."""
        return self.local_epochs

    @property
    def training_folds(self) -> tuple[int, ...]:
        """The folds that are trained on."""
        return TRAINING_FOLDS[self.phase]

    def measures(self, round_number: int) -> bool:
        """Whether partners score in this round, from 1, the model that it starts from."""
        before = round_number - 1
        return before > 0 and before % self.evaluate_every == 0 and "validation" in MEASURED[self.phase]

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
