"""Evaluation as a study: metric sums of each arm from the partners, means for the consortium.

Why: nobody but its owner may see a partner's metric, yet the consortium must know whether joining pays.
Runs: ``compute`` on the partner, ``combine`` on the coordinator. Source: own; arms as in MELLODDY's
single- against multi-partner evaluation (Heyndrickx et al. 2023).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from data_contracts.errors import AgreementViolation
from data_contracts.plan import Lane, RoundPlan
from tasks.evaluation.comparison import SHARES, shares
from tasks.evaluation.metrics import METRICS, PERFECT
from tasks.evaluation.score_tables import CALIBRATION
from tasks.evaluation.sums import figures_to_means, lane_length, to_figures, to_integers, to_means
from tasks.evaluation.uplift import riptop
from tasks.exchange.blob_store import BlobStore
from tasks.local_training.jobs import BaselineName, Score, ScoreBaseline, ScoreResult
from tasks.rounds.study import Study, parse_parameters, write_contribution
from tasks.secure_aggregation.vector import SecureSum
from tasks.studies.phases import FOLD_OF, MEASURED, Phase, Split
from tasks.studies.qsar_training import COUNT_BITS, RunJob, counted_values
from tasks.studies.training_parameters import MAX_ROUNDS

NAME = "evaluation"
ARMS = ("federated", "single", "pooled")
UPLIFTS = tuple(f"riptop_{metric}" for metric in METRICS)
QUANTITIES = {"uplift": UPLIFTS, "shares": SHARES}
"""What is summed beside the arms' metrics where there is a single-partner arm, lane by lane."""


class EvaluationParameters(BaseModel):
    """What a plan may ask to be measured.

    Attributes:
        split: Which fold is scored.
        after_round: The trunk is scored with the head that each partner had after this round.
        phase: Of the run: which folds may be measured at all.
        arms: How many of ``ARMS`` are scored, from the first: 1, 2, or 3 where a pooled model exists.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    split: Split
    after_round: int = Field(ge=1, le=MAX_ROUNDS)
    phase: Phase = "standard"
    arms: int = Field(ge=1, le=len(ARMS))

    @property
    def arm_names(self) -> tuple[str, ...]:
        """The arms that are scored."""
        return ARMS[: self.arms]


@dataclass(frozen=True)
class Arm:
    """One model of one partner, as files; ``places`` where rows of a catalogue head stand for those of the head."""

    trunk: Path
    head: Path
    places: Path | None = None


@dataclass(frozen=True)
class PartnerInputs:
    """What stays at the partner.

    Attributes:
        dataset: Its prepared data.
        arms: Its models by arm.
        run_job: How a job is run.
        baselines: What it wants beside them on the test fold, without any network; nobody else sees these.
    """

    dataset: Path
    arms: Mapping[str, Arm]
    run_job: RunJob
    baselines: Sequence[BaselineName] = ("logistic",)


def lanes(parameters: EvaluationParameters) -> tuple[Lane, ...]:
    """One exact lane per arm, one of relative improvements, and one of shares of endpoints over bars.

    On the validation fold, which is looked at in every round, a lane holds each partner's figures; on the test fold,
    once a run, sums over endpoints and their number.
    """
    if parameters.split == "validation":
        return (Lane(name="federated", length=len(METRICS), ring_bits=64, value_bits=COUNT_BITS),)
    quantities: dict[str, tuple[str, ...]] = dict.fromkeys(parameters.arm_names, METRICS)
    if "single" in quantities:
        quantities |= QUANTITIES
    return tuple(
        Lane(name=name, length=lane_length(names), ring_bits=64, value_bits=COUNT_BITS)
        for name, names in quantities.items()
    )


def parameters_of(plan: RoundPlan) -> EvaluationParameters:
    """Parse a plan's parameters.

    Raises:
        AgreementViolation: If one is missing, unknown or out of bounds.
    """
    return parse_parameters(plan, EvaluationParameters)


def accept(plan: RoundPlan) -> None:
    """Check an evaluation plan before anything is computed.

    Raises:
        AgreementViolation: If parameters or lanes are not those of this study.
    """
    parameters = parameters_of(plan)
    if parameters.split == "validation" and parameters.arms != 1:
        raise AgreementViolation(
            f"the plan of round {plan.round} asks for arms on the validation fold that are not granted there"
        )
    if parameters.split not in MEASURED[parameters.phase]:
        raise AgreementViolation(
            f"the plan of round {plan.round} measures the {parameters.split} fold in phase '{parameters.phase}', which does "
            "not grant it"
        )
    if plan.lanes != lanes(parameters) or plan.model_in is None:
        raise AgreementViolation(f"the plan of round {plan.round} does not have the lanes of '{NAME}'")


async def compute(plan: RoundPlan, inputs: PartnerInputs, directory: Path) -> None:
    """Score every arm on the plan's fold; leave its metric sums in ``directory``, and its tables for the partner."""
    parameters = parameters_of(plan)
    values = {}
    for arm in parameters.arm_names:
        scored = await _score(inputs, arm, fold=FOLD_OF[parameters.split], output=directory / arm)
        values[arm] = counted_values(scored)
        if (
            parameters.phase == "standard" and parameters.split == "test"
        ):  # the partner's own: for its reliability
            await _score(inputs, arm, fold=FOLD_OF["validation"], output=directory / arm / CALIBRATION)
    if parameters.split == "validation":
        write_contribution(directory, {"federated": to_figures(values["federated"], names=METRICS)})
        return
    for name in inputs.baselines:
        await inputs.run_job(ScoreBaseline(dataset=inputs.dataset, baseline=name, output=directory / name))
    sums = {arm: to_integers(values[arm], names=METRICS) for arm in parameters.arm_names}
    if "single" in values:
        improved = {
            f"riptop_{name}": riptop(values["federated"][name], values["single"][name], perfect=PERFECT[name])
            for name in METRICS
        }
        sums["uplift"] = to_integers(improved, names=UPLIFTS)
        sums["shares"] = to_integers(shares(values["single"], values["federated"]), names=SHARES)
    write_contribution(directory, sums)


async def _score(inputs: PartnerInputs, arm: str, *, fold: int, output: Path) -> ScoreResult:
    model = inputs.arms[arm]
    job = Score(
        dataset=inputs.dataset,
        trunk=model.trunk,
        head=model.head,
        places=model.places,
        folds=(fold,),
        output=output,
    )
    scored: ScoreResult = await inputs.run_job(job)
    return scored


def combine(plan: RoundPlan, total: SecureSum, blobs: BlobStore) -> dict[str, Any]:
    """Turn sums into the consortium's means.

    Returns:
        ``metrics``: ``validation/<metric>``, means over partners; or ``test/<arm>/<metric>``, ``test/uplift/<metric>`` and
        ``test/shares/<name>``, means over endpoints, at least ten.
    """
    del blobs
    split = parameters_of(plan).split
    metrics: dict[str, float] = {}
    if split == "validation":
        figures = figures_to_means(
            np.asarray(total.values["federated"], dtype=np.int64),
            names=METRICS,
            n_partners=len(total.survivors),
        )
        return {"metrics": {f"{split}/{name}": value for name, value in figures.items()}}
    for lane in plan.lanes:
        names = QUANTITIES.get(lane.name, METRICS)
        means = to_means(np.asarray(total.values[lane.name], dtype=np.int64), names=names)
        metrics |= {
            f"{split}/{lane.name}/{name}": value for name, (value, _) in means.items() if value is not None
        }
    return {"metrics": metrics}


EVALUATION: Study[PartnerInputs, BlobStore, dict[str, Any]] = Study(
    name=NAME, accept=accept, compute=compute, combine=combine
)
