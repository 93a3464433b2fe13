"""Split one table of activities into companies: they share some or all assays but no compound, or compounds but no assay.

Why: a federation is tried before anyone signs anything; the first has what real consortia have: overlapping assays,
disjoint compounds, different chemical taste; with all assays it is the setting of published simulations. The last shows
where joining gives nothing. Runs: anywhere, on one machine.
Source: own, after the published MELLODDY setting (Heyndrickx et al. 2023); Dirichlet taste as in Hsu et al. 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_contracts.errors import SettingsError
from tasks.simulation.structure_groups import StructureGroups

IntVector = npt.NDArray[np.int64]
BoolMatrix = npt.NDArray[np.bool_]

MAX_COMPANIES = 26  # one letter each
FEWEST_VALUES = 100  # below this a company can train nothing
TINY_TASTE = 1e-12  # a Dirichlet draw may be exactly zero for every company that may own a compound


Scenario = Literal["shared-assays", "same-assays", "disjoint-assays"]


class SplitSettings(BaseModel):
    """How alike the companies are; part of a dataset's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenario: Scenario = "shared-assays"
    partners: int = Field(default=4, ge=2, le=MAX_COMPANIES)
    share_everywhere: float = Field(default=0.4, ge=0, le=1)
    share_half: float = Field(default=0.4, ge=0, le=1)
    taste_alpha: float = Field(default=0.3, ge=0.01, le=1000)
    smallest_share: float = Field(default=0.5, ge=0, le=1)


def split_among(
    partners: int, *, base: SplitSettings | None = None, scenario: Scenario = "shared-assays"
) -> SplitSettings:
    """Settings for so many companies in a scenario, otherwise as ``base``.

    Raises:
        SettingsError: If the number is out of range.
    """
    try:
        return SplitSettings.model_validate(
            (base or SplitSettings()).model_dump() | {"partners": partners, "scenario": scenario}
        )
    except ValidationError:
        raise SettingsError(
            f"a table cannot be split among {partners} companies; expected 2 to {MAX_COMPANIES}",
            advice="choose another number with --partners",
        ) from None


@dataclass(frozen=True, slots=True)
class SourceTables:
    """What is split: the columns of the contracts, and the structures' groups.

    Attributes:
        structures: Contract ``structures``; unique ids.
        assays: Contract ``assays``.
        activities: Contract ``activities``; every id stands in the other two.
        groups: Row-wise groups of ``structures``.
    """

    structures: pa.Table
    assays: pa.Table
    activities: pa.Table
    groups: StructureGroups


@dataclass(frozen=True, slots=True)
class Company:
    """One simulated company's three tables, with the columns of their contracts."""

    name: str
    assays: pa.Table
    activities: pa.Table
    structures: pa.Table


def company_names(count: int) -> tuple[str, ...]:
    """``partner-a``, ``partner-b``, ... for up to 26 companies."""
    return tuple(f"partner-{chr(ord('a') + number)}" for number in range(count))


def split_into_companies(
    source: SourceTables, *, settings: SplitSettings, rng: np.random.Generator
) -> tuple[Company, ...]:
    """Deal assays and compounds out.

    With disjoint assays every assay runs at one company, in turn, and a company holds all compounds that its assays have
    a value of, whoever else holds them. With the same assays each runs at every company. With shared assays
    ``share_everywhere`` run at every company, ``share_half`` at a random half, the others at one.
    Every generic-scaffold cluster has a Dirichlet taste over the companies; its structures follow it, restricted to
    companies that run one of their assays. Structures that share a skeleton stay together. A value exists at a
    company if it owns the compound and runs the assay; the other values are dropped, as are the structures and
    assays that no value at their company names.

    Args:
        source: What is split.
        settings: Number of companies and how alike they are.
        rng: Source of every draw.

    Returns:
        The companies in name order; each keeps the input's row order.

    Raises:
        SettingsError: If an activity names an unknown id, or the table is too small for so many companies.
    """
    names = company_names(settings.partners)
    structure_of = _positions(source.activities["compound_id"], source.structures["compound_id"])
    assay_of = _positions(source.activities["assay_id"], source.assays["assay_id"])
    runs = _assays_run(source.assays.num_rows, settings=settings, rng=rng)
    if settings.scenario == "disjoint-assays":
        value_owner = runs.argmax(axis=1)[assay_of]
    else:
        owner = _owners(structure_of, runs[assay_of], groups=source.groups, settings=settings, rng=rng)
        value_owner = owner[source.groups.skeleton][structure_of]
    kept = runs[assay_of, value_owner]
    _refuse_if_starved(np.bincount(value_owner[kept], minlength=len(names)), names)
    companies = []
    for number, name in enumerate(names):
        mine = kept & (value_owner == number)
        companies.append(
            Company(
                name=name,
                assays=source.assays.filter(_used(assay_of[mine], source.assays.num_rows)),
                activities=source.activities.filter(pa.array(mine)),
                structures=source.structures.filter(_used(structure_of[mine], source.structures.num_rows)),
            )
        )
    return tuple(companies)


def _positions(ids: pa.ChunkedArray, known: pa.ChunkedArray) -> IntVector:
    found = pc.index_in(ids, value_set=known.combine_chunks())
    if found.null_count:
        raise SettingsError(
            f"{found.null_count} of {len(ids)} activities name a compound or an assay that is not in its table; "
            "expected every id to be there",
            advice="add the missing rows to the structures or assays file, or remove these activities",
        )
    positions: IntVector = found.combine_chunks().to_numpy().astype(np.int64)
    return positions


def _assays_run(n_assays: int, *, settings: SplitSettings, rng: np.random.Generator) -> BoolMatrix:
    """Who runs which assay, shape ``(n_assays, n_partners)``; every assay runs somewhere."""
    partners = settings.partners
    order = rng.permutation(n_assays)
    shares = {
        "shared-assays": (settings.share_everywhere, settings.share_half),
        "same-assays": (1.0, 0.0),
        "disjoint-assays": (0.0, 0.0),
    }
    everywhere, half = np.cumsum([round(share * n_assays) for share in shares[settings.scenario]])
    reach = np.where(np.arange(n_assays) < half, max(partners // 2, 1), 1)
    reach[:everywhere] = partners
    rank = rng.permuted(np.tile(np.arange(partners), (n_assays, 1)), axis=1)
    # Private assays are dealt in turn, so that no company is left with shared ones only by chance.
    private = np.arange(n_assays) >= half
    rank[private] = (np.arange(partners) + np.flatnonzero(private)[:, None]) % partners
    runs = np.zeros((n_assays, partners), dtype=bool)
    runs[order] = rank < reach[:, None]
    return runs


def _owners(
    structure_of: IntVector,
    run_at: BoolMatrix,
    *,
    groups: StructureGroups,
    settings: SplitSettings,
    rng: np.random.Generator,
) -> IntVector:
    """Company of each skeleton, shape ``(n_skeletons,)``."""
    partners = settings.partners
    n_skeletons = int(groups.skeleton.max(initial=-1)) + 1
    skeleton_of_value = groups.skeleton[structure_of]
    worth: npt.NDArray[np.float64] = np.stack(  # values that company k would keep of each skeleton
        [
            np.bincount(
                skeleton_of_value, weights=run_at[:, company].astype(np.float64), minlength=n_skeletons
            )
            for company in range(partners)
        ],
        axis=1,
    )
    first_row = np.zeros(n_skeletons, dtype=np.int64)
    first_row[groups.skeleton[::-1]] = np.arange(len(groups.skeleton))[::-1]
    cluster = groups.cluster[first_row]
    taste = rng.dirichlet(np.full(partners, settings.taste_alpha), size=int(cluster.max(initial=-1)) + 1)
    homeless = worth.sum(axis=1, keepdims=True) == 0
    chance = (taste[cluster] + TINY_TASTE) * ((worth > 0) | homeless)
    ladder = np.cumsum(chance / chance.sum(axis=1, keepdims=True), axis=1)
    owner = (rng.random((n_skeletons, 1)) >= ladder[:, :-1]).sum(axis=1)
    return _evened_out(owner, worth, smallest_share=settings.smallest_share, rng=rng)


def _evened_out(
    owner: IntVector, worth: npt.NDArray[np.float64], *, smallest_share: float, rng: np.random.Generator
) -> IntVector:
    """Move skeletons from the richest company to the poorest until the poorest has its smallest share."""
    n_skeletons, partners = worth.shape
    owner = owner.copy()
    for _ in range(4 * partners):
        holds = np.bincount(owner, weights=worth[np.arange(n_skeletons), owner], minlength=partners)
        poorest, richest = int(holds.argmin()), int(holds.argmax())
        floor = smallest_share * holds.mean()
        if holds[poorest] >= floor:
            break
        movable = rng.permutation(np.flatnonzero((owner == richest) & (worth[:, poorest] > 0)))
        wanted = np.searchsorted(np.cumsum(worth[movable, poorest]), floor - holds[poorest]) + 1
        spare = np.searchsorted(np.cumsum(worth[movable, richest]), holds[richest] - holds.mean())
        owner[movable[: min(wanted, max(spare, 1))]] = poorest
    return owner


def _refuse_if_starved(values: IntVector, names: Sequence[str]) -> None:
    poorest = int(values.argmin())
    if values[poorest] < FEWEST_VALUES:
        raise SettingsError(
            f"'{names[poorest]}' would get {values[poorest]} activity values of {values.sum()}; every one of "
            f"{len(names)} simulated companies needs at least {FEWEST_VALUES}",
            advice="ask for fewer companies with --partners, or bring more activities",
        )


def _used(positions: IntVector, length: int) -> Any:
    mask = np.zeros(length, dtype=bool)
    mask[positions] = True
    return pa.array(mask)
