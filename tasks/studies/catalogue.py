"""The catalogue as a study: which of the agreed endpoints enough partners train to share a head row.

Why: a row that one or two partners train would show their labels to each other, so the consortium counts, exactly
and without learning who, before anything is shared. Runs: ``compute`` on the partner, ``combine`` on the
coordinator. Source: own; the idea of a catalogue of common assays is MELLODDY's (``T_cat``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from data_contracts.canonical_json import canonical_bytes, parse_canonical
from data_contracts.catalogue import ENDPOINTS, REGRESSION_ENDPOINTS
from data_contracts.errors import AgreementViolation, ProtocolError
from data_contracts.plan import Lane, Modality, RoundPlan
from data_contracts.references import BlobReference
from data_contracts.writing import read_table
from tasks.exchange.blob_store import BlobStore
from tasks.local_training.shared_model import PRIVATE, Places
from tasks.rounds.study import Study, write_contribution
from tasks.secure_aggregation.vector import SecureSum

NAME = "catalogue"
LIST_CONTRACT = "endpoint-list@1"
CONTRACT = "catalogue@1"
ROUND = 0
"""The one round in which endpoints are counted; a second count with another cohort would tell who trains what."""
MIN_PARTNERS = 3
"""Fewest survivors behind a shared row: with two, each could subtract its own and read the other's."""
MAX_ENDPOINTS = 100_000
MAX_BYTES = 16 * 2**20
FLAG_BITS = 2
REGRESSION_PREFIX = "value of "
"""In a list, stands before the assay of a regression endpoint: numbers and classes of one name are not the same."""
POTENCY_TYPES = ("OTHER", "PANEL", "CATALOG_PANEL")
"""Assay types whose values are -log10(M), and so of one scale at every partner (docs/decisions/0028)."""


@dataclass(frozen=True)
class PartnerInputs:
    """What stays at the partner: its prepared data; and the public list in the mailbox."""

    dataset: Path
    blobs: BlobStore


def lanes(n_endpoints: int) -> tuple[Lane, ...]:
    """One exact lane: 1 for each endpoint of the list that the partner trains."""
    return (Lane(name="trained", length=n_endpoints, ring_bits=64, value_bits=FLAG_BITS),)


class Catalogue(BaseModel):
    """The endpoints whose head rows are shared.

    Attributes:
        endpoints: Their ids, sorted and distinct.
        partners: How many partners train each of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    endpoints: tuple[str, ...] = Field(max_length=MAX_ENDPOINTS)
    partners: tuple[PositiveInt, ...]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if list(self.endpoints) != sorted(set(self.endpoints)) or len(self.partners) != len(self.endpoints):
            raise ValueError("endpoints must be sorted and distinct, with one count each")
        return self


def publish_list(blobs: BlobStore, endpoints: Sequence[str]) -> BlobReference:
    """Store the list of endpoint ids that are offered, sorted and without repetition."""
    return blobs.put([canonical_bytes(sorted(set(endpoints)))], contract=LIST_CONTRACT)


def publish_catalogue(blobs: BlobStore, catalogue: Catalogue) -> BlobReference:
    """Store the endpoints that are shared."""
    return blobs.put([canonical_bytes(catalogue.model_dump(mode="json"))], contract=CONTRACT)


def read_list(blobs: BlobStore, reference: BlobReference, *, who: str) -> tuple[str, ...]:
    """Read the list of endpoints that are offered.

    Raises:
        ProtocolError: If it is not there, damaged, too large, or no sorted list of distinct ids.
    """
    found = _parsed(blobs, reference, contract=LIST_CONTRACT, who=who)
    if (
        not isinstance(found, list)
        or len(found) > MAX_ENDPOINTS
        or not all(isinstance(name, str) for name in found)
        or found != sorted(set(found))
    ):
        raise ProtocolError(
            f"the {LIST_CONTRACT} of '{who}' is no sorted list of at most {MAX_ENDPOINTS} ids"
        )
    return tuple(found)


def read_catalogue(blobs: BlobStore, reference: BlobReference, *, who: str) -> Catalogue:
    """Read the endpoints that are shared.

    Raises:
        ProtocolError: If the list is not there, damaged, too large, or not of this form.
    """
    try:
        return Catalogue.model_validate_json(
            canonical_bytes(_parsed(blobs, reference, contract=CONTRACT, who=who))
        )
    except ValidationError:
        raise ProtocolError(f"the {CONTRACT} of '{who}' is no list of endpoints with counts") from None


def _parsed(blobs: BlobStore, reference: BlobReference, *, contract: str, who: str) -> Any:
    if reference.contract != contract or reference.bytes > MAX_BYTES:
        raise ProtocolError(
            f"'{who}' published a {reference.contract} of {reference.bytes} bytes, expected {contract} "
            f"of at most {MAX_BYTES}"
        )
    return parse_canonical(bytes(blobs.open(reference, who=who)), who=who, max_bytes=MAX_BYTES)


def places_of(dataset: Path, catalogue: Sequence[str], *, modality: Modality = "classification") -> Places:
    """Find each endpoint of a prepared data set in a list.

    Args:
        dataset: Prepared directory.
        catalogue: The list; an entry that begins with ``REGRESSION_PREFIX`` is never a class.
        modality: Which endpoints there are; classes first, then numbers.

    Returns:
        Its position there, or ``PRIVATE`` if it is not listed or the partner does not train it,
        int32 of shape ``(n_endpoints,)``.
    """
    place = {name: number for number, name in enumerate(catalogue)}
    parts = []
    if modality != "regression":
        endpoints = read_table(dataset / "endpoints.arrow", ENDPOINTS)
        names = [
            name if not name.startswith(REGRESSION_PREFIX) else None
            for name in endpoints.column("endpoint_id").to_pylist()
        ]
        trained = pc.and_(endpoints.column("in_training"), pc.greater(endpoints.column("weight"), 0))
        parts.append(_places(names, trained, place))
    if modality != "classification":
        endpoints = read_table(dataset / "regression_endpoints.arrow", REGRESSION_ENDPOINTS)
        names = [REGRESSION_PREFIX + name for name in endpoints.column("endpoint_id").to_pylist()]
        potency = pc.is_in(endpoints.column("assay_type"), value_set=pa.array(POTENCY_TYPES))
        parts.append(_places(names, pc.and_(potency, pc.greater(endpoints.column("weight"), 0)), place))
    return np.concatenate(parts)


def _places(names: Sequence[str | None], shareable: Any, place: Mapping[str, int]) -> Places:
    found = [PRIVATE if name is None else place.get(name, PRIVATE) for name in names]
    return np.where(shareable.to_numpy(), np.array(found, dtype=np.int32), np.int32(PRIVATE))


def regression_entries(assays: Any) -> tuple[str, ...]:
    """What a list says of the numbers of some assays (contract *assays*): every one that measures a potency."""
    potency = pc.is_in(assays.column("assay_type"), value_set=pa.array(POTENCY_TYPES))
    names = assays.filter(potency).column("assay_id").to_pylist()
    return tuple(sorted({REGRESSION_PREFIX + name for name in names}))


def presence(places: Places, *, n_catalogue: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Mark which rows of the catalogue a partner trains: 0 or 1, int64 of shape ``(n_catalogue,)``."""
    flags = np.zeros(n_catalogue, dtype=np.int64)
    flags[places[places >= 0]] = 1
    return flags


def modality_of(plan: RoundPlan) -> Modality:
    """Which endpoints are counted; to be believed after ``accept``."""
    return cast("Modality", plan.parameters.get("modality", "classification"))


def partners_needed(plan: RoundPlan) -> int:
    """How many must train an endpoint for its row to be shared.

    Whoever decides who survives a round may leave out as many as the threshold allows, and some that are left may
    collude with it, as many as the secure sum itself bears (docs/threat-model.md). With so many more, every sum of that
    row still has two honest partners and ``MIN_PARTNERS`` in all behind it.
    """
    n_partners = int(plan.parameters["n_partners"])
    may_collude = min(2 * plan.threshold - n_partners - 1, plan.threshold - 2)
    return max(MIN_PARTNERS, may_collude + 2) + n_partners - plan.threshold


def accept(plan: RoundPlan) -> None:
    """Check the plan before anything is computed.

    Raises:
        AgreementViolation: If it does not have this study's lane and list.
    """
    n_partners = plan.parameters.get("n_partners")
    if (
        plan.round != ROUND
        or plan.model_in is None
        or set(plan.parameters) - {"modality"} != {"n_partners"}
        or modality_of(plan) not in get_args(Modality)
        or not isinstance(n_partners, int)
        or n_partners < len(plan.cohort)
        or plan.lanes != lanes(plan.lanes[0].length)
    ):
        raise AgreementViolation(
            f"the plan of round {plan.round} does not have the lane and the list of '{NAME}'"
        )


async def compute(plan: RoundPlan, inputs: PartnerInputs, directory: Path) -> None:
    """Leave one flag per listed endpoint in ``directory``."""
    assert plan.model_in is not None  # noqa: S101 - accept() saw to it
    listed = read_list(inputs.blobs, plan.model_in, who="coordinator")
    places = places_of(inputs.dataset, listed, modality=modality_of(plan))
    flags = presence(places, n_catalogue=len(listed))
    write_contribution(directory, {"trained": flags})


def combine(plan: RoundPlan, total: SecureSum, blobs: BlobStore) -> dict[str, Any]:
    """Keep the endpoints that enough partners train.

    Returns:
        ``catalogue`` (reference to the kept list), ``n_catalogue``, and ``metrics`` by ``group/name``.
    """
    assert plan.model_in is not None  # noqa: S101 - accept() saw to it
    listed = read_list(blobs, plan.model_in, who="coordinator")
    counts = np.asarray(total.values["trained"], dtype=np.int64)
    needed = partners_needed(plan)
    kept = [(name, n) for name, n in zip(listed, counts.tolist(), strict=True) if n >= needed]
    agreed = Catalogue(endpoints=tuple(name for name, _ in kept), partners=tuple(n for _, n in kept))
    return {
        "catalogue": publish_catalogue(blobs, agreed).model_dump(),
        "n_catalogue": len(kept),
        "metrics": {"catalogue/listed": float(len(listed)), "catalogue/shared": float(len(kept))},
    }


CATALOGUE: Study[PartnerInputs, BlobStore, dict[str, Any]] = Study(
    name=NAME, accept=accept, compute=compute, combine=combine
)
