"""A study as the engine sees it: what a partner computes, and what the coordinator does with the sum.

Why: training, evaluation, counts and every later study run over one protocol and need no change in it.
Runs: anywhere. Source: own; ``tests/rounds/test_counting_study.py`` proves the seam with a third, tiny study.
"""

import io
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from data_contracts.errors import AgreementViolation, UpdateMismatch
from data_contracts.plan import RoundPlan
from tasks.exchange.durable_files import replace_whole
from tasks.secure_aggregation.vector import SecureSum

Contribution = Mapping[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]
"""One array per lane of the plan, shape ``(lane.length,)``: float32 where the lane has a clip, else int64."""

PartnerInputs = TypeVar("PartnerInputs")
CoordinatorInputs = TypeVar("CoordinatorInputs")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Study(Generic[PartnerInputs, CoordinatorInputs, Outcome]):
    """Two functions under one name, and a check of the plan.

    Args:
        name: What plans call it.
        accept: Checks a plan against what this site grants; raises ``AgreementViolation``.
        compute: On the partner: from the plan and its private inputs to one array per lane, left as files in
            the given directory (``write_contribution``), so that only a path passes between Prefect tasks.
        combine: On the coordinator: from the plan, the survivors' sum and its own inputs to an
            outcome that may be made public.
    """

    name: str
    accept: Callable[[RoundPlan], None]
    compute: Callable[[RoundPlan, PartnerInputs, Path], Awaitable[None]]
    combine: Callable[[RoundPlan, SecureSum, CoordinatorInputs], Outcome]


def combine(
    plan: RoundPlan,
    total: SecureSum,
    *,
    study: Study[Any, CoordinatorInputs, dict[str, Any]],
    inputs: CoordinatorInputs,
) -> dict[str, Any]:
    """Turn a sum into a round's public outcome: the study's own, with ``survivors`` added."""
    return study.combine(plan, total, inputs) | {"survivors": list(total.survivors)}


def check_lanes(plan: RoundPlan, contribution: Contribution, *, who: str) -> None:
    """Check that a contribution has exactly the plan's lanes, lengths and types.

    Raises:
        AgreementViolation: If it has not; nothing was sent.
    """
    got = {name: (str(array.dtype), array.shape) for name, array in contribution.items()}
    expected = {
        lane.name: ("float32" if lane.clip is not None else "int64", (lane.length,)) for lane in plan.lanes
    }
    if got != expected:
        raise AgreementViolation(
            f"'{who}' computed lanes {got} for round {plan.round} of '{plan.study}', the plan fixes {expected}"
        )


def write_contribution(directory: Path, contribution: Contribution) -> None:
    """Leave one ``<lane>.npy`` per lane, each in one step."""
    for name, array in contribution.items():
        with io.BytesIO() as buffer:
            np.save(buffer, array, allow_pickle=False)
            replace_whole(directory / f"{name}.npy", [buffer.getbuffer()])


def read_contribution(directory: Path, plan: RoundPlan, *, who: str) -> Contribution:
    """Map a contribution into memory and check it against the plan.

    Raises:
        UpdateMismatch: If a lane is missing or damaged.
        AgreementViolation: If lanes, lengths or types are not those of the plan.
    """
    contribution = {}
    for lane in plan.lanes:
        try:
            contribution[lane.name] = np.load(
                directory / f"{lane.name}.npy", mmap_mode="r", allow_pickle=False
            )
        except (OSError, ValueError, EOFError) as exc:
            raise UpdateMismatch(
                f"'{who}' has no readable lane '{lane.name}' for round {plan.round} ({type(exc).__name__}); "
                f"run the same command again: it is computed anew"
            ) from None
    check_lanes(plan, contribution, who=who)
    return contribution
