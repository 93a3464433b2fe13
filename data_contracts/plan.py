"""The plan of one round: all that a coordinator may ask of a partner, as bounded data.

Why: a plan selects among locally installed algorithms by name and bounded number; it never carries code, an
import path, a shell line or an address. Its digest keys every mask of the round. Runs: anywhere. Source: own.
"""

from functools import cached_property
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_contracts.canonical_json import digest_of
from data_contracts.frozen import Frozen
from data_contracts.references import BlobReference

MAX_PARTNERS = 1024
MAX_LANE_LENGTH = 2**31

PartyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
RunId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{2,63}$")]
Parameter = bool | int | float | str
PairSecrets = Literal["x25519", "x25519+ml-kem-768"]
Modality = Literal["classification", "regression", "hybrid"]
"""What a study learns of an assay: whether a structure is active, its value, or both on one trunk."""
HYBRID: Final = "x25519+ml-kem-768"


def threshold_for(n_partners: int) -> int:
    """Partners that must stay to the end of a round: floor(2n/3) + 1, which holds against an active adversary.

    Source: Bonawitz et al. 2017, section 6.2.
    """
    return 2 * n_partners // 3 + 1


class Lane(BaseModel):
    """One named stretch of the summed vector.

    With ``clip`` the lane holds real numbers: each is clipped to ``[-clip, clip]`` and rounded at random to a
    signed integer of ``value_bits`` bits. Without, it holds exact integers of magnitude below
    ``2**(value_bits - 1)``. Sums live in the ring of integers modulo ``2**ring_bits``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    length: int = Field(ge=0, le=MAX_LANE_LENGTH)
    ring_bits: Literal[16, 32, 64]
    value_bits: int = Field(ge=2, le=53)
    clip: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @property
    def max_partners(self) -> int:
        """Most partners whose sum cannot wrap: n * (2^(b-1) - 1) < 2^(R-1) if n <= 2^(R-b)."""
        return 0 if self.value_bits > self.ring_bits else 2 ** (self.ring_bits - self.value_bits)


class RoundPlan(Frozen):
    """What is asked of the cohort in one attempt at one round.

    ``pair_secrets`` says what seals and pairwise masks rest on. ``opened_by`` says who reads the sum: the
    coordinator, or only the partners (the coordinator then adds up without learning even the sum).
    """

    run_id: RunId
    round: int = Field(ge=0, le=100_000)
    attempt: int = Field(default=0, ge=0, le=1000)
    study: str = Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")
    cohort: tuple[PartyName, ...] = Field(min_length=2, max_length=MAX_PARTNERS)
    threshold: int = Field(ge=2)
    lanes: tuple[Lane, ...] = Field(min_length=1, max_length=64)
    model_in: BlobReference | None = None
    parameters: dict[str, Parameter] = Field(default_factory=dict, max_length=64)
    deadline_seconds: float = Field(default=600.0, gt=0, le=7 * 86400)
    pair_secrets: PairSecrets = HYBRID
    opened_by: Literal["coordinator", "partners"] = "coordinator"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.cohort) != sorted(set(self.cohort)):
            raise ValueError("cohort must be sorted and without repetition")
        if not len(self.cohort) / 2 < self.threshold <= len(self.cohort):
            raise ValueError("threshold must be above half of the cohort and at most all of it")
        if len({lane.name for lane in self.lanes}) != len(self.lanes):
            raise ValueError("lane names repeat")
        for lane in self.lanes:
            if len(self.cohort) > lane.max_partners:
                raise ValueError(
                    f"lane '{lane.name}' could wrap around: {len(self.cohort)} partners of {lane.value_bits} bits "
                    f"do not fit a ring of {lane.ring_bits} bits (at most {lane.max_partners})"
                )
        return self

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan's canonical JSON, hexadecimal; part of every signature and every mask key."""
        return digest_of(self.model_dump(mode="json"))
