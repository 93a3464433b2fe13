"""What the training child is asked to do, and what it answers: paths and numbers only.

Why: a job crosses a process boundary as one line of JSON; data stays in files. Runs: on the partner.
Source: own. This module imports no torch.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from data_contracts.plan import Modality

Fold = Annotated[int, Field(ge=0, le=4)]
Folds = Annotated[tuple[Fold, ...], Field(min_length=1, max_length=5)]
RegressionLoss = Literal["one_sided", "tobit"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]

BaselineName = Literal["logistic", "boosted"]
BASELINES: tuple[BaselineName, ...] = ("logistic", "boosted")
"""Models that a partner may set beside the network: a logistic regression, or boosted trees, per endpoint."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]


class Machine(_Frozen):
    """What a partner's own machine computes on. A local matter: no plan names it and no message carries it.

    Args:
        device: ``auto`` takes CUDA where there is one.
        precision: Of matrix products; parameters, moments, losses and all that leaves the child stay float32.
    """

    device: Device = "auto"
    precision: Precision = "float32"


class TrainingSettings(_Frozen):
    """Hyperparameters that all partners share.

    Args:
        batch_size: Structures in a batch.
        learning_rate: Step size of Adam.
        dropout: Probability of silencing a trunk feature in front of every linear layer.
        weight_decay: L2 coefficient in Adam (coupled, as in SparseChem); a trunk row that a batch
            never touches is not decayed.
        proximal: Strength mu of the pull towards the shared model that the round began with (FedProx, Li et al.
            2020); on the trunk, which all partners share. 0 is none.
        regression_loss: What a regression endpoint costs; see ``losses``.
        regression_weight: Where classes and numbers are learnt together, the numbers' share r of the loss: classes
            weigh 2 (1 - r) and numbers 2 r (SparseChem).
        batches_per_epoch: Cut an epoch into so many batches, whatever their size; 0 cuts by ``batch_size``.
    """

    batch_size: int = Field(default=128, ge=1, le=65_536)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    dropout: float = Field(default=0.6, ge=0, lt=1)
    weight_decay: float = Field(default=1e-6, ge=0, le=1)
    proximal: float = Field(default=0, ge=0, le=10)
    regression_loss: RegressionLoss = "tobit"
    regression_weight: float = Field(default=0.5, ge=0, le=1)
    batches_per_epoch: int = Field(default=0, ge=0, le=100_000)


class LocalSteps(_Frozen):
    """One round at one partner: train from the round's trunk and the partner's own head.

    Args:
        dataset: Prepared directory.
        modality: Which endpoints there are.
        trunk: The round's shared model (trunk and catalogue head), safetensors.
        head: The partner's last head; None draws one from ``head_seed``.
        places: Each endpoint's row in the catalogue head, ``.npy``; None if the partner shares no endpoint.
        optimizer: Adam's state as the last round left it; None starts from zero.
        head_seed: The partner's own seed for a first head.
        seed: Shuffling and dropout of this round; derive it from (run, round, partner).
        epochs: Passes over the training folds; a fraction is a random part of one.
        folds: Training folds.
        keep_optimizer: Also leave Adam's state, which is twice as large as the trained parameters.
        output: Directory for ``update.npy``, ``head.safetensors`` and, if kept, ``optimizer.safetensors``.
    """

    kind: Literal["local_steps"] = "local_steps"
    dataset: Path
    modality: Modality = "classification"
    trunk: Path
    head: Path | None = None
    places: Path | None = None
    optimizer: Path | None = None
    head_seed: Seed
    seed: Seed
    epochs: float = Field(default=1.0, gt=0, le=1000)
    folds: Folds = (1, 2, 3)
    settings: TrainingSettings = TrainingSettings()
    keep_optimizer: bool = False
    output: Path


class MinibatchGradient(_Frozen):
    """One minibatch at one partner: the gradient of the shared parameters, and a step of the partner's own head.

    Args:
        dataset: Prepared directory.
        modality: Classes; numbers are learnt in rounds of local steps alone.
        trunk: The round's shared model, safetensors.
        head: The partner's last head; None draws one from ``head_seed``.
        places: As in ``LocalSteps``.
        optimizer: Adam's state of the head as the last round left it; None starts from zero.
        head_seed: The partner's own seed for a first head.
        order_seed: Shuffling of this epoch; the same for all its minibatches.
        seed: Dropout of this minibatch.
        batch: Number of the minibatch in its epoch, from 0; an epoch has ``settings.batches_per_epoch``.
        loss_normalizer: What the summed loss is divided by; the same at every partner.
        folds: Training folds.
        output: Directory for ``gradient.npy``, ``head.safetensors`` and ``optimizer.safetensors``.
    """

    kind: Literal["minibatch_gradient"] = "minibatch_gradient"
    dataset: Path
    modality: Literal["classification"] = "classification"
    trunk: Path
    head: Path | None = None
    places: Path | None = None
    optimizer: Path | None = None
    head_seed: Seed
    order_seed: Seed
    seed: Seed
    batch: int = Field(ge=0)
    loss_normalizer: float = Field(gt=0)
    folds: Folds = (1, 2, 3)
    settings: TrainingSettings
    output: Path


class Centralised(_Frozen):
    """Train without federation and keep the best epoch: ``alone`` with one data set, ``pooled`` with several.

    Args:
        kind: Which arm this is; ``pooled`` exists in simulations only, where one machine has all the data.
        datasets: Prepared directories; all share the trunk, and each keeps a head of its own.
        modality: Which endpoints there are.
        trunk: The initial trunk, safetensors; the one that the federation starts from.
        places: For each data set its endpoints' rows in the catalogue; endpoints with one row are trained as one.
            Empty shares none.
        head_seeds: One seed per data set.
        seed: Shuffling and dropout.
        max_epochs: Passes over the training folds at most.
        patience: Stop after this many epochs without a better one; None never stops early.
        folds: Training folds.
        validation_folds: Folds that choose the epoch by ``metrics.selection_value``. Empty keeps the last.
        min_per_class: Fewest labels of each class in the validation folds for an endpoint to count.
        min_values: Fewest measured values there for a regression endpoint to count.
        learning_rate_decay: Factor on the learning rate after every ``decay_epochs`` epochs.
        decay_epochs: Epochs at one learning rate: as many as a round has.
        output: Directory for ``trunk.safetensors`` and ``head-K.safetensors`` of the best epoch.
    """

    kind: Literal["alone", "pooled"]
    datasets: tuple[Path, ...] = Field(min_length=1, max_length=1024)
    modality: Modality = "classification"
    trunk: Path
    places: tuple[Path, ...] = ()
    head_seeds: tuple[Seed, ...]
    seed: Seed
    max_epochs: int = Field(default=20, ge=1, le=1000)
    patience: int | None = Field(default=None, ge=1)
    folds: Folds = (1, 2, 3)
    validation_folds: Annotated[tuple[Fold, ...], Field(max_length=5)] = (4,)
    min_per_class: int = Field(default=5, ge=1)
    min_values: int = Field(default=10, ge=2)
    learning_rate_decay: float = Field(default=1, gt=0, le=1)
    decay_epochs: int = Field(default=1, ge=1)
    settings: TrainingSettings = TrainingSettings()
    output: Path


class Adapt(_Frozen):
    """Grow a trunk of the partner's own beside the finished shared one, and fit the whole head to both.

    Args:
        dataset: Prepared directory.
        modality: Which endpoints there are.
        trunk: The chosen shared model, safetensors; it is not trained any more.
        head: The partner's head of that round.
        places: As in ``LocalSteps``: rows of the catalogue head begin as the consortium's and end as the partner's.
        width: Features of the partner's own trunk.
        seed: First weights, shuffling and dropout.
        max_epochs: Passes over the training folds at most.
        patience: Stop after this many epochs without a better one.
        folds: Training folds.
        validation_folds: Folds that choose the epoch; epoch 0 is the model as it came.
        min_per_class: As in ``Centralised``.
        min_values: As in ``Centralised``.
        output: Directory for ``trunk.safetensors`` and ``head-0.safetensors``: one wider network.
    """

    kind: Literal["adapt"] = "adapt"
    dataset: Path
    modality: Modality = "classification"
    trunk: Path
    head: Path
    places: Path | None = None
    width: int = Field(ge=1, le=8192)
    seed: Seed
    max_epochs: int = Field(default=20, ge=1, le=1000)
    patience: int = Field(default=3, ge=1)
    folds: Folds = (1, 2, 3)
    validation_folds: Folds = (4,)
    min_per_class: int = Field(default=5, ge=1)
    min_values: int = Field(default=10, ge=2)
    learning_rate_decay: Literal[1] = 1
    decay_epochs: Literal[1] = 1
    settings: TrainingSettings = TrainingSettings()
    output: Path


class Score(_Frozen):
    """Predict all observed labels of some folds and measure.

    Args:
        dataset: Prepared directory.
        modality: Which endpoints there are.
        trunk: Trunk or shared model, safetensors.
        head: The partner's head, safetensors; None draws the first one from ``head_seed``, as ``LocalSteps`` does.
        head_seed: The partner's own seed for a first head.
        places: As in ``LocalSteps``: rows of the shared model's catalogue head replace those of ``head``.
        folds: Folds to score.
        min_per_class: Fewest labels of each class for an endpoint to count in the means.
        min_values: Fewest measured values for a regression endpoint to count.
        output: Directory for ``metrics.arrow`` and ``scores.arrow`` of the classification endpoints, and
            ``regression_metrics.arrow`` and ``regression_scores.arrow`` of the others, as the modality has them.
    """

    kind: Literal["score"] = "score"
    dataset: Path
    modality: Modality = "classification"
    trunk: Path
    head: Path | None
    head_seed: Seed = 0
    places: Path | None = None
    folds: Folds
    min_per_class: int = Field(default=5, ge=1)
    min_values: int = Field(default=10, ge=2)
    output: Path


class ScoreBaseline(_Frozen):
    """Fit an outside baseline and score it: one model per endpoint, nothing shared.

    Args:
        dataset: Prepared directory.
        baseline: Which one.
        training_folds: What it is fitted on.
        validation_folds: What tunes it; scored into ``output/calibration``.
        folds: Folds to score.
        min_per_class: Fewest labels of each class for an endpoint to count in the means.
        output: Directory for ``metrics.arrow`` and ``scores.arrow``, and ``calibration`` with the same files.
    """

    kind: Literal["score_baseline"] = "score_baseline"
    dataset: Path
    baseline: BaselineName = "logistic"
    training_folds: Folds = (1, 2, 3)
    validation_folds: Folds = (4,)
    folds: Folds = (0,)
    min_per_class: int = Field(default=5, ge=1)
    min_values: Literal[10] = 10
    output: Path


TrainingJob = Annotated[
    LocalSteps | MinibatchGradient | Centralised | Adapt | Score | ScoreBaseline, Field(discriminator="kind")
]


class Usage(_Frozen):
    """What a job cost; the only part of a result that differs between repetitions."""

    cpu_seconds: float
    wall_seconds: float
    peak_rss_bytes: int


class Means(_Frozen):
    """Means over counted endpoints; None where nothing counts."""

    n_endpoints: int
    auroc: float | None
    auprc: float | None
    log_loss: float | None
    n_regression: int = 0
    rmse: float | None = None
    rmse_censored: float | None = None
    r2: float | None = None
    spearman: float | None = None
    concordance: float | None = None


class LocalStepsResult(_Frozen):
    """The outcome of ``LocalSteps``.

    ``n_labels`` counts the distinct training labels of the partner, ``labels_seen`` those visited over the epochs
    of this round; ``loss_sum`` is their summed, endpoint-weighted loss and ``weight_sum`` their summed weight.
    """

    kind: Literal["local_steps"] = "local_steps"
    update: Path
    head: Path
    optimizer: Path | None
    n_structures: int
    n_labels: int
    labels_seen: int
    weight_sum: float
    loss_sum: float
    n_steps: int
    usage: Usage


class MinibatchResult(_Frozen):
    """The outcome of ``MinibatchGradient``: files, and the batch's summed loss and weight."""

    kind: Literal["minibatch_gradient"] = "minibatch_gradient"
    gradient: Path
    head: Path
    optimizer: Path
    loss_sum: float
    weight_sum: float
    n_labels: int
    usage: Usage


class Epoch(_Frozen):
    """One line of a training history."""

    epoch: int
    training_loss: float
    validation: Means


class CentralisedResult(_Frozen):
    """The outcome of ``Centralised``: the parameters of the best epoch, and the history of all."""

    kind: Literal["alone", "pooled", "adapt"]
    trunk: Path
    heads: tuple[Path, ...]
    best_epoch: int
    history: tuple[Epoch, ...]
    usage: Usage


class ScoreResult(_Frozen):
    """The outcome of ``Score``: one table per endpoint, one per label, and the means."""

    kind: Literal["score"] = "score"
    metrics: Path | None
    scores: Path | None = None
    regression_metrics: Path | None = None
    means: Means
    usage: Usage


TrainingResult = Annotated[
    LocalStepsResult | MinibatchResult | CentralisedResult | ScoreResult, Field(discriminator="kind")
]

JOB: TypeAdapter[TrainingJob] = TypeAdapter(TrainingJob)
RESULT: TypeAdapter[TrainingResult] = TypeAdapter(TrainingResult)
