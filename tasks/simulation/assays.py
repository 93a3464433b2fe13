"""Simulated assays on real structures.

Why: a demonstration needs many partners' activities and none may be real; the simulated ones depend on
substructures, so companies that see different compounds have something to learn from each other. Runs: anywhere.
Source: own; the model stands in :func:`simulate_assays`, its uplift is measured in tests/simulation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

FloatMatrix = npt.NDArray[np.float64]
BitMatrix = npt.NDArray[np.uint8]

ASSAY_PREFIX = "SYN-"
PCHEMBL_MEAN = 6.0
PCHEMBL_SPREAD = 1.05
LOWEST, HIGHEST = 4.0, 9.0
FEATURE_FREQUENCY = (0.01, 0.25)  # rarer bits are seen too seldom to be learned, commoner ones tell nothing
ASSAY_TYPES = ("OTHER", "OTHER", "OTHER", "PANEL", "ADME")
CENSORING_LIMIT = 5.0  # p-scale: the weakest concentration a screen of 10 uM still resolves
NANOMOLAR_EXPONENT = 9.0  # p = 9 - log10(value in nM)


class AssaySettings(BaseModel):
    """How many assays there are and how hard they are; part of a dataset's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_assays: int = Field(default=40, ge=1, le=500)
    n_families: int = Field(default=8, ge=1, le=100)
    n_factors: int = Field(default=6, ge=2, le=64)
    features_per_factor: int = Field(default=24, ge=1, le=256)
    property_weight: float = Field(default=0.3, ge=0, le=10)
    interaction_weight: float = Field(default=0.3, ge=0, le=10)
    family_similarity: float = Field(default=0.7, ge=0, le=1)
    noise_log: float = Field(default=0.35, ge=0, le=5)
    median_size: int = Field(default=1600, ge=10)
    size_spread_log: float = Field(default=0.35, ge=0, le=3)
    share_nanomolar: float = Field(default=0.3, ge=0, le=1)
    share_censoring_assays: float = Field(default=0.5, ge=0, le=1)


@dataclass(frozen=True, slots=True)
class SimulatedAssays:
    """Every assay's value for every structure, and which of them were measured.

    Attributes:
        names: Assay ids, each starting with ``SYN-``.
        family: Target family of each assay, shape ``(n_assays,)``.
        values: p-scale with measurement noise, shape ``(n_structures, n_assays)``, clipped to 4..9.
        measured: Same shape; True where the simulated laboratory has measured.
    """

    names: tuple[str, ...]
    family: npt.NDArray[np.int64]
    values: FloatMatrix
    measured: npt.NDArray[np.bool_]


def simulate_assays(
    features: BitMatrix,
    properties: FloatMatrix,
    *,
    settings: AssaySettings,
    rng: np.random.Generator,
) -> SimulatedAssays:
    """Draw a world of assays and measure it.

    A latent factor is ``z = tanh(standardized(sum of signed substructure bits + property term))``. Assays of one
    family share most of their loadings on the factors; each adds one conjunction ``z_p z_q`` and one antagonism
    ``-relu(z_r) z_p``. The result is scaled to 6.0 +- 1.05 and gets normal noise of ``noise_log``.

    Args:
        features: Substructure bits, shape ``(n_structures, n_bits)``.
        properties: Physical properties, shape ``(n_structures, n_properties)``.
        settings: The world's size and difficulty.
        rng: Source of every draw.

    Returns:
        The assays; the same ``rng`` state gives the same assays.
    """
    factors = _factors(features, properties, settings=settings, rng=rng)
    family = np.arange(settings.n_assays, dtype=np.int64) % settings.n_families
    response = _response(factors, family, settings=settings, rng=rng)
    values = PCHEMBL_MEAN + PCHEMBL_SPREAD * _standardized(response)
    values += rng.normal(0.0, settings.noise_log, size=values.shape)
    return SimulatedAssays(
        names=tuple(
            f"{ASSAY_PREFIX}F{member:02d}-A{number:03d}" for number, member in enumerate(family.tolist())
        ),
        family=family,
        values=np.clip(values, LOWEST, HIGHEST),
        measured=_measured(values.shape, settings=settings, rng=rng),
    )


def _standardized(columns: FloatMatrix) -> FloatMatrix:
    spread = columns.std(axis=0)
    centred: FloatMatrix = (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return centred


def _factors(
    features: BitMatrix, properties: FloatMatrix, *, settings: AssaySettings, rng: np.random.Generator
) -> FloatMatrix:
    frequency = features.mean(axis=0)
    usable = np.flatnonzero((frequency >= FEATURE_FREQUENCY[0]) & (frequency <= FEATURE_FREQUENCY[1]))
    loadings = np.zeros((features.shape[1], settings.n_factors))
    count = min(settings.features_per_factor, len(usable))
    for factor in range(settings.n_factors):
        chosen = rng.choice(usable, size=count, replace=False)
        scale = np.sqrt(frequency[chosen] * (1.0 - frequency[chosen]))  # rare and common bits weigh alike
        loadings[chosen, factor] = rng.choice([-1.0, 1.0], size=count) / scale
    chemistry = _standardized((features.astype(np.float32) @ loadings.astype(np.float32)).astype(np.float64))
    physics = _standardized(
        _standardized(properties) @ rng.normal(size=(properties.shape[1], settings.n_factors))
    )
    return np.tanh(_standardized(chemistry + settings.property_weight * physics)).astype(np.float64)


def _response(
    factors: FloatMatrix,
    family: npt.NDArray[np.int64],
    *,
    settings: AssaySettings,
    rng: np.random.Generator,
) -> FloatMatrix:
    shape = (settings.n_factors, settings.n_families)
    shared = (rng.normal(size=shape) * (rng.random(shape) < 4.0 / settings.n_factors))[:, family]
    own = rng.normal(size=shared.shape) * (rng.random(shared.shape) < 2.0 / settings.n_factors)
    keep = np.sqrt(settings.family_similarity)
    linear = _standardized(factors @ (keep * shared + np.sqrt(1.0 - keep**2) * own))
    p, q, r = (rng.integers(0, settings.n_factors, size=settings.n_families)[family] for _ in range(3))
    conjunction = _standardized(factors[:, p] * factors[:, q])
    antagonism = _standardized(-np.maximum(factors[:, r], 0.0) * factors[:, p])
    return linear + settings.interaction_weight * (conjunction + antagonism)


def _measured(
    shape: tuple[int, ...], *, settings: AssaySettings, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    n_structures, n_assays = shape
    sizes = rng.lognormal(np.log(settings.median_size), settings.size_spread_log, size=n_assays)
    chance = np.minimum(sizes / n_structures, 1.0)
    return rng.random(shape) < chance


def assays_table(assays: SimulatedAssays, *, rng: np.random.Generator) -> pa.Table:
    """Describe the assays as a partner would.

    Returns:
        Columns of the contract ``assays``: three types, a tenth with direction ``low``, a third with own thresholds
        (median rounded to a tenth, so that both classes are common), the others on the default thresholds.
    """
    n_assays = len(assays.names)
    own_threshold = rng.random(n_assays) < 1 / 3
    low = rng.random(n_assays) < 1 / 10
    medians = np.round(np.median(assays.values, axis=0), 1)
    absent = pa.nulls(n_assays, pa.float64())
    return pa.table(
        {
            "assay_id": pa.array(assays.names, pa.string()),
            "assay_type": pa.array([ASSAY_TYPES[f % len(ASSAY_TYPES)] for f in assays.family], pa.string()),
            "direction": pa.array(["low" if is_low else "high" for is_low in low], pa.string()),
            "threshold_1": pa.array(medians, pa.float64(), mask=~own_threshold),
            "threshold_2": absent,
            "threshold_3": absent,
            "threshold_4": absent,
            "threshold_5": absent,
        }
    )


def activities_table(
    assays: SimulatedAssays,
    compound_ids: pa.Array,
    *,
    settings: AssaySettings,
    rng: np.random.Generator,
) -> pa.Table:
    """Write the measured values down as laboratories do.

    A share of the assays reports nanomolar concentrations, where a weak compound is ``> 10000 nM``; another share
    reports on the p-scale, where it is ``< 5``.

    Returns:
        Columns of the contract ``activities``, ordered by structure, then assay.
    """
    rows, columns = np.nonzero(assays.measured)
    p_values = np.round(assays.values[rows, columns], 2)
    n_assays = len(assays.names)
    nanomolar = (rng.random(n_assays) < settings.share_nanomolar)[columns]
    censored = (rng.random(n_assays) < settings.share_censoring_assays)[columns] & (
        p_values < CENSORING_LIMIT
    )
    p_values = np.where(censored, CENSORING_LIMIT, p_values)
    weaker = np.where(nanomolar, ">", "<")  # a weaker compound: more nM, less p
    return pa.table(
        {
            "compound_id": compound_ids.take(pa.array(rows)),
            "assay_id": pa.array(assays.names, pa.string()).take(pa.array(columns)),
            "relation": pa.array(np.where(censored, weaker, "=").tolist(), pa.string()),
            "value": pa.array(np.where(nanomolar, _nanomolar(p_values), p_values), pa.float64()),
            "unit": pa.array(np.where(nanomolar, "nM", "p").tolist(), pa.string()),
        }
    )


def _nanomolar(p_values: FloatMatrix) -> FloatMatrix:
    concentration: FloatMatrix = np.round(10.0 ** (NANOMOLAR_EXPONENT - p_values), 4)
    return concentration


def permuted_activities(activities: pa.Table, *, rng: np.random.Generator) -> pa.Table:
    """Shuffle the results within each assay: the control in which there is nothing to learn.

    Each assay keeps its compounds, and its relations, values and units as a multiset, so thresholds, quorums and
    class balances stay what they were.

    Args:
        activities: One company's activities.
        rng: Source of the permutation.

    Returns:
        A table of the same schema and length.
    """
    assay = activities["assay_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    source = np.empty(len(assay), dtype=np.int64)
    for members in _members(assay):
        source[members] = rng.permutation(members)
    result = activities.select(["relation", "value", "unit"]).take(pa.array(source))
    for name in ("relation", "value", "unit"):
        position = activities.schema.get_field_index(name)
        activities = activities.set_column(position, activities.schema.field(name), result[name])
    return activities


def _members(codes: npt.NDArray[np.integer]) -> Iterator[npt.NDArray[np.int64]]:
    order = np.argsort(codes, kind="stable")
    edges = np.flatnonzero(np.diff(codes[order])) + 1
    yield from np.split(order, edges)
