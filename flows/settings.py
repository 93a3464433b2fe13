"""The settings of a consortium run on one machine.

Why: one frozen object at the edge; everything inside takes plain arguments. Runs: anywhere. Source: own;
defaults as measured in docs/results.md.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_contracts.canonical_json import digest_of
from data_contracts.errors import SettingsError
from data_contracts.plan import Modality, threshold_for
from tasks.aggregation.server_optimizers import ServerOptimizer
from tasks.featurization.preparation_rules import PreparationRules, rules_of
from tasks.local_training.jobs import BaselineName, RegressionLoss
from tasks.studies.phases import Phase
from tasks.studies.training_parameters import DIGEST_OR_NONE, MAX_ROUNDS, RUN_OR_NONE

Algorithm = Literal["fedavg", "fedsgd"]


class RunSettings(BaseModel):
    """What a run computes. Two runs with equal settings and data give the same model.

    Attributes:
        data: ``embedded`` (real molecules, simulated assays), or the directory of an imported dataset.
        partners: Number of simulated companies.
        modality: What is learnt of the assays: classes, numbers (``regression``), or both on one trunk (``hybrid``).
        regression_loss: What a number costs: ``tobit`` or ``one_sided`` (docs/training-and-evaluation.md).
        regression_weight: The numbers' share of the loss in a hybrid run.
        profile: How every partner prepares its data: ``simple``, ``melloddy``, or rules of one's own in full.
        seed: Public seed of the split into companies, of the initial trunk and of the training order.
        algorithm: ``fedavg`` (local epochs, then an average) or ``fedsgd`` (one sum of gradients per minibatch).
        rounds: Rounds of federated training; with ``fedsgd`` one minibatch each.
        local_epochs: Passes over its training data that a partner makes in a round.
        hidden: Width of the trunk.
        layers: Residual layers of the trunk behind the embedding.
        dropout: Share of hidden units dropped while training.
        learning_rate: Adam's, on the partner.
        batch_size: Molecules in a minibatch; with ``fedsgd`` the ratio decides.
        batch_ratio: With ``fedsgd``, share of its training molecules that every partner puts into a minibatch.
        loss_normalizer: With ``fedsgd``, what every partner divides the summed loss of a minibatch by.
        evaluate_every: Score the model on the validation fold after every so many rounds.
        weight_decay: L2 penalty of the local optimizer.
        server_learning_rate: Factor on the server's step; 1 with ``average`` is federated averaging.
        server_optimizer: The server's rule: ``average``, ``momentum``, ``adam`` or ``yogi``.
        proximal: Pull of local training towards the round's shared trunk (FedProx); 0 is none.
        learning_rate_decay: Factor on the learning rate from round to round, for every arm.
        patience: End training after so many rounds without a better validation AUPRC; 0 never ends it early.
        phase: Which folds are trained on and which measured: ``tune``, ``report``, ``final``; ``standard`` trains
            like ``tune`` and measures like ``report``.
        rounds_from: The run that chose the number of rounds: of ``tune`` for a report, of ``report`` for a final model.
        search: The search that chose these settings.
        warm_start: Digest of an earlier shared model to start from; empty starts anew.
        ring_bits: Ring of the masked update: 16 (up to 16 partners) or 32.
        value_bits: Bits of a quantized coordinate, sign included.
        clip_ceiling: Largest coordinate of an update; the clip adapts below it from round to round.
        catalogue_heads: Share the head rows of endpoints that enough companies train (docs/decisions/0016).
        local_trunk: Width of a trunk of its own that each company grows beside the chosen one; 0 for none. A company of
            its own chooses for itself (``local_trunk`` in its site's settings).
        pooled_arm: Also train on all data together, as a reference (possible in simulation only).
        round_deadline_seconds: How long a round waits in each phase for partners that do not answer.
        permuted_labels: Shuffle the labels: a control that must show no uplift.
        baselines: What every partner sets beside the networks, for its own report: ``logistic``, ``boosted``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = "embedded"
    partners: int = Field(default=4, ge=3, le=20)
    profile: Literal["simple", "melloddy"] | PreparationRules = "simple"
    modality: Modality = "classification"
    regression_loss: RegressionLoss = "tobit"
    regression_weight: float = Field(default=0.5, ge=0, le=1)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    algorithm: Algorithm = "fedavg"
    rounds: int = Field(default=24, ge=1, le=MAX_ROUNDS)
    local_epochs: int = Field(default=1, ge=1, le=100)
    hidden: int = Field(default=128, ge=1, le=8192)
    layers: int = Field(default=0, ge=0, le=8)
    dropout: float = Field(default=0.4, ge=0, lt=1)
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    batch_size: int = Field(default=128, ge=1, le=65536)
    batch_ratio: float = Field(default=0.02, ge=1e-4, le=1)
    loss_normalizer: float = Field(default=100_000.0, ge=1, le=1e9)
    evaluate_every: int = Field(default=1, ge=1, le=1000)
    weight_decay: float = Field(default=1e-6, ge=0, le=1)
    server_learning_rate: float = Field(default=1.0, gt=0, le=10)
    server_optimizer: ServerOptimizer = "average"
    proximal: float = Field(default=0.0, ge=0, le=10)
    learning_rate_decay: float = Field(default=1.0, gt=0, le=1)
    patience: int = Field(default=0, ge=0, le=1000)
    phase: Phase = "standard"
    rounds_from: str = Field(default="", pattern=RUN_OR_NONE)
    search: str = Field(default="", pattern=RUN_OR_NONE)
    warm_start: str = Field(default="", pattern=DIGEST_OR_NONE)
    ring_bits: Literal[16, 32] = 16
    value_bits: int = Field(default=12, ge=4, le=24)
    clip_ceiling: float = Field(default=0.25, gt=0, le=1000)
    catalogue_heads: bool = True
    local_trunk: int = Field(default=0, ge=0, le=8192)
    pooled_arm: bool = True
    round_deadline_seconds: float = Field(default=3600.0, ge=1, le=7 * 86400)
    permuted_labels: bool = False
    baselines: tuple[BaselineName, ...] = ("logistic",)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_algorithm(cls, values: Any) -> Any:
        """With one sum per minibatch, MELLODDY's twenty epochs, scored once an epoch, with gradients nearly exact."""
        if not isinstance(values, dict) or values.get("algorithm") != "fedsgd":
            return values
        ratio = values.get("batch_ratio", cls.model_fields["batch_ratio"].default)
        per_epoch = round(1 / ratio) if isinstance(ratio, int | float) and ratio > 0 else 1
        return {
            "rounds": min(20 * per_epoch, MAX_ROUNDS),
            "evaluate_every": min(per_epoch, 1000),
            "ring_bits": 32,
            "value_bits": 24,
        } | values

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.algorithm == "fedsgd" and (self.proximal or self.server_optimizer != "average"):
            raise ValueError(
                "with --algorithm fedsgd the server takes steps of Adam and partners take none: leave out --proximal and "
                "--server-optimizer"
            )
        if self.phase in {"report", "final"} and self.patience:
            raise ValueError(
                f"--phase {self.phase} validates no round, so --patience cannot end it; --rounds-from brings the rounds"
            )
        if self.phase in {"report", "final"} and not self.rounds_from:
            raise ValueError(
                f"--phase {self.phase} needs --rounds-from RUN: a report follows a tuning run, a final model its report"
            )
        return self

    @model_validator(mode="after")
    def _numbers_are_learnt_in_standard_runs(self) -> Self:
        elsewhere = self.algorithm != "fedavg" or self.phase != "standard" or bool(self.warm_start)
        if elsewhere and (self.modality != "classification" or self.local_trunk):
            raise ValueError(
                "--modality regression or hybrid, and --local-trunk, go with --algorithm fedavg and --phase standard, and "
                "start anew"
            )
        return self

    @model_validator(mode="after")
    def _sum_fits_the_ring(self) -> Self:
        if self.partners > 2 ** (self.ring_bits - self.value_bits):
            raise ValueError(
                f"{self.partners} partners of --value-bits {self.value_bits} do not fit --ring-bits {self.ring_bits}; "
                "choose --ring-bits 32, or fewer bits"
            )
        return self

    @property
    def rules(self) -> PreparationRules:
        """The rules of the profile."""
        return rules_of(self.profile) if isinstance(self.profile, str) else self.profile

    @property
    def threshold(self) -> int:
        """Partners that must stay to the end of a round."""
        return threshold_for(self.partners)

    @property
    def digest(self) -> str:
        """SHA-256 of the settings, hexadecimal."""
        return digest_of(self.model_dump(mode="json"))


def settings_from(values: dict[str, object]) -> RunSettings:
    """Build settings from what a user gave, leaving out what was not given (None).

    Raises:
        SettingsError: If a value is out of range; names it and what was expected.
    """
    try:
        return RunSettings.model_validate(
            {name: value for name, value in values.items() if value is not None}
        )
    except ValidationError as exc:
        wrong = "; ".join(
            f"--{str(error['loc'][0]).replace('_', '-')}: {error['msg']}"
            if error["loc"]
            else error["msg"].removeprefix("Value error, ")
            for error in exc.errors()
        )
        raise SettingsError(f"the settings cannot work: {wrong}") from None
