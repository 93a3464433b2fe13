"""What a partner drops when it leaves a round, and when it leaves a run.

Why: what no later round may build on must not be there, and what none needs fills a disk. Runs: on the partner.
Source: own; docs/decisions/0039 and 0046.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_contracts.plan import RoundPlan
from flows.earlier_runs import HEAD
from flows.partner_work import OPTIMIZER, Partner
from tasks.rounds.retention import vector_reference
from tasks.studies.minibatch_training import QSAR_MINIBATCHES
from tasks.studies.training_parameters import TrainingParameters


def leave_round(
    partner: Partner, plan: RoundPlan, outcome: Mapping[str, Any], parameters: TrainingParameters | None
) -> None:
    """Drop what no later round may build on, or needs: the vector, older optimizers, heads between scored minibatches.

    And head and optimizer of a round that did not count this partner, so that they, and with them the model, depend on
    the committed cohorts alone and not on how far a late partner had come.
    """
    directory = partner.round_directory(plan.round)
    for name in ("update.npy", "gradient.npy"):
        (directory / name).unlink(missing_ok=True)
    if partner.site.name not in outcome["survivors"]:
        for name in (HEAD, OPTIMIZER):
            (directory / name).unlink(missing_ok=True)
        return
    before = partner.counted_before(plan.round)
    passed = partner.counted_before(_number_of(before)) if before else None
    if passed is not None:
        (passed / OPTIMIZER).unlink(missing_ok=True)
    if plan.study == QSAR_MINIBATCHES.name and parameters is not None:
        _leave_minibatch(partner, plan, parameters, passed=passed)


def _leave_minibatch(
    partner: Partner, plan: RoundPlan, parameters: TrainingParameters, *, passed: Path | None
) -> None:
    """Drop copies of vectors and models, and, between two scored rounds, older heads."""
    board = partner.board
    vector = vector_reference(board, plan, board.identity.name)
    is_candidate = (plan.round - 1) % parameters.evaluate_every == 0
    for blob in (vector, None if is_candidate else plan.model_in):
        if blob is not None:
            board.mailbox.blobs.forget(blob)
    if passed is not None and _number_of(passed) % parameters.evaluate_every:
        (passed / HEAD).unlink(missing_ok=True)


def _number_of(directory: Path) -> int:
    return int(directory.name.removeprefix("r"))


def leave_training(partner: Partner) -> None:
    """Drop all optimizers: once the coordinator has closed a run, no round of it is trained."""
    for path in (partner.site.root / "rounds").glob(f"*/{OPTIMIZER}"):
        path.unlink(missing_ok=True)
