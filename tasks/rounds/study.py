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
from pydantic import BaseModel, ValidationError

from data_contracts.canonical_json import digest_of
from data_contracts.errors import AgreementViolation, WorkFailed
from data_contracts.plan import RoundPlan
from tasks.exchange.durable_files import replace_whole
from tasks.secure_aggregation.vector import SecureSum

COMPLETE = "complete"
Contribution = Mapping[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]
"""One array per lane of the plan, shape ``(lane.length,)``: float32 where the lane has a clip, else int64."""

PartnerInputs = TypeVar("PartnerInputs")
CoordinatorInputs = TypeVar("CoordinatorInputs")
Outcome = TypeVar("Outcome")
Parameters = TypeVar("Parameters", bound=BaseModel)


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


def parse_parameters(plan: RoundPlan, model: type[Parameters]) -> Parameters:
    """Parse a plan's parameters into a study's bounded model.

    Raises:
        AgreementViolation: If one is missing, unknown or out of bounds.
    """
    try:
        return model.model_validate(plan.parameters)
    except ValidationError as exc:
        wrong = sorted({str(error["loc"][0]) if error["loc"] else "parameters" for error in exc.errors()})
        raise AgreementViolation(
            f"the plan of round {plan.round} asks for what is not granted: {', '.join(wrong)[:300]}"
        ) from None


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
        values = np.ascontiguousarray(array)
        if values.dtype.hasobject:
            raise ValueError(f"lane '{name}' holds objects; a contribution is made of numbers")
        with io.BytesIO() as head:
            np.lib.format.write_array_header_2_0(head, np.lib.format.header_data_from_array_1_0(values))
            replace_whole(directory / f"{name}.npy", [head.getbuffer(), values.data])


def mark_complete(directory: Path, plan: RoundPlan) -> None:
    """Say that a plan's contribution lies whole in a directory; written last."""
    replace_whole(directory / COMPLETE, [work_digest(plan).encode()])


def is_complete(directory: Path, plan: RoundPlan) -> bool:
    """Whether a plan's contribution lies there, every lane of it, also from an earlier attempt."""
    try:
        marked = (directory / COMPLETE).read_text() == work_digest(plan)
    except FileNotFoundError:
        return False
    return marked and all((directory / f"{lane.name}.npy").exists() for lane in plan.lanes)


async def compute_once(
    study: "Study[PartnerInputs, Any, Any]",
    plan: RoundPlan,
    inputs: PartnerInputs,
    directory: Path,
    *,
    who: str,
) -> str:
    """Compute a partner's contribution unless it lies there complete.

    Returns:
        Who computed it.
    """
    if not is_complete(directory, plan):
        await study.compute(plan, inputs, directory)
        mark_complete(directory, plan)
    return who


def work_digest(plan: RoundPlan) -> str:
    """Digest of what decides a contribution: the plan without its attempt and cohort."""
    return digest_of(plan.model_dump(mode="json", exclude={"attempt", "cohort"}))


def read_contribution(directory: Path, plan: RoundPlan, *, who: str) -> Contribution:
    """Map a contribution into memory and check it against the plan.

    Raises:
        WorkFailed: If a lane is missing or damaged.
        AgreementViolation: If lanes, lengths or types are not those of the plan.
    """
    contribution = {}
    for lane in plan.lanes:
        try:
            contribution[lane.name] = np.load(
                directory / f"{lane.name}.npy", mmap_mode="r", allow_pickle=False
            )
        except (OSError, ValueError, EOFError) as exc:
            raise WorkFailed(
                f"'{who}' has no readable lane '{lane.name}' for round {plan.round} ({type(exc).__name__})",
                advice="run the same command again: the lane is computed anew",
            ) from None
    check_lanes(plan, contribution, who=who)
    return contribution
