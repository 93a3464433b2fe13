"""A study as the engine sees it: what a partner computes, and what the coordinator does with the sum.

Why: training, evaluation, counts and every later study run over one protocol and need no change in it.
Runs: anywhere. Source: own; ``tests/rounds/test_counting_study.py`` proves the seam with a third, tiny study.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from data_contracts.errors import AgreementViolation
from data_contracts.plan import RoundPlan

Contribution = Mapping[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]
"""One array per lane of the plan, shape ``(lane.length,)``: float32 where the lane has a clip, else int64."""

Sums = Mapping[str, npt.NDArray[np.float64] | npt.NDArray[np.int64]]
"""The survivors' sum per lane: float64 where the lane has a clip, else exact int64."""

PartnerInputs = TypeVar("PartnerInputs")
CoordinatorInputs = TypeVar("CoordinatorInputs")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Study(Generic[PartnerInputs, CoordinatorInputs, Outcome]):
    """Two functions under one name, and a check of the plan.

    Args:
        name: What plans call it.
        accept: Checks a plan against what this site grants; raises ``AgreementViolation``.
        compute: On the partner: from the plan and its private inputs to one array per lane.
        combine: On the coordinator: from the plan, the sums, the number of survivors and its own inputs to an
            outcome that may be made public.
    """

    name: str
    accept: Callable[[RoundPlan], None]
    compute: Callable[[RoundPlan, PartnerInputs], Awaitable[Contribution]]
    combine: Callable[[RoundPlan, Sums, int, CoordinatorInputs], Outcome]


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
