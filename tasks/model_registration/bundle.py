"""A model as one directory: weights, card, and the source files that prepare a molecule.

Why: what a consumer gets must be complete, checkable file by file, and silent about how it was trained.
Runs: on the coordinator for the trunk, on a partner for its own model. Source: own; safetensors, RFC 8785.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import save

from data_contracts.canonical_json import canonical_bytes
from data_contracts.errors import UpdateMismatch
from data_contracts.plan import Modality
from tasks.evaluation.conformal import LEVELS
from tasks.exchange.durable_files import replace_whole
from tasks.featurization import fingerprints, standardization
from tasks.local_training.parameters import (
    FloatArray,
    Layout,
    Parameters,
    check_layout,
    head_layout,
    layout_of,
    read_parameters,
)
from tasks.local_training.regression_heads import in_assay_units
from tasks.local_training.shared_model import read_places, split_shared, with_catalogue
from tasks.model_registration import molecules, scoring
from tasks.model_registration.recipe import ModelRecipe, RecipeCard
from tasks.studies.phases import Phase

Sha256 = str
DEFAULT_RECIPE = ModelRecipe()


class DataOrigin(BaseModel):
    """Where the training labels came from, as far as a consumer must know.

    Attributes:
        synthetic: The assays were simulated; the model must not be used for decisions.
        control: Name of the control experiment that this is (``permuted-labels``), or None for a real model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    synthetic: bool
    control: Literal["permuted-labels"] | None = None


class Validation(BaseModel):
    """The number that decides between two versions of a model.

    Attributes:
        metric: Its name, such as ``auprc``; higher is better.
        value: For the consortium's trunk, opened from a secure sum; for a partner's model, the partner's own.
        basis: What it was measured on, such as a digest of the study's public settings; only numbers of one basis
            are compared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: str = Field(pattern=r"^[a-z0-9_]+$")
    value: float
    basis: str = Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")


class ModelCard(BaseModel):
    """What ``card.json`` says; nothing else may stand in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["motet-model@1"] = "motet-model@1"
    kind: Literal["qsar", "trunk"]
    run_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")
    endpoints: tuple[str, ...]
    regression_endpoints: tuple[str, ...] = ()
    hidden: int
    n_bits: int
    n_layers: int
    fingerprint: dict[str, str | int | bool]
    standardization: str
    recipe: RecipeCard | None = None
    data: DataOrigin
    validation: Validation | None
    conformal_levels: tuple[float, ...] = ()
    phase: Phase = "standard"
    reliability_from: str | None = Field(default=None, max_length=200)
    sha256: dict[str, Sha256]

    @property
    def weights_sha256(self) -> str:
        """Digest of the weights, hexadecimal."""
        return self.sha256[scoring.WEIGHTS]


def read_parts(shared: Path, head: Path | None, places: Path | None) -> tuple[Parameters, Parameters | None]:
    """Read what a model is made of.

    Args:
        shared: The shared model, trunk and catalogue head; safetensors.
        head: A partner's own last layer, safetensors; None for the consortium's trunk.
        places: Each endpoint's row in the catalogue head, ``.npy``; None if the partner shares none.

    Returns:
        The trunk, and the full head, in which the catalogue's rows replace the partner's own; None without a head.

    Raises:
        UpdateMismatch: If a file is damaged, or they do not fit together.
    """
    trunk, catalogue = split_shared(read_parameters(shared))
    if head is None:
        return trunk, None
    return trunk, with_catalogue(read_parameters(head), catalogue, read_places(places))


def write_bundle(
    directory: Path,
    *,
    run_id: str,
    trunk: Mapping[str, FloatArray],
    head: Mapping[str, FloatArray] | None,
    endpoints: Sequence[str],
    regression_endpoints: Sequence[str] = (),
    data: DataOrigin,
    validation: Validation | None,
    reliability: Mapping[str, FloatArray] | None = None,
    recipe: ModelRecipe = DEFAULT_RECIPE,
    phase: Phase = "standard",
    reliability_from: str | None = None,
) -> ModelCard:
    """Write a model's directory; the same arguments give the same bytes.

    Args:
        directory: Where to; made if it is missing.
        run_id: The federated run.
        trunk: Shared layers.
        head: A partner's own last layer; None for the consortium's trunk.
        endpoints: Names of the head's first rows, classes; empty for the trunk.
        regression_endpoints: Names of its other rows, numbers.
        data: Where the labels came from.
        validation: The number that decides whether this version becomes champion.
        reliability: What says how far predictions can be believed, from ``reliability.reliability_of``; None for a
            trunk, or if the model was not calibrated.
        recipe: How the training structures were prepared; by default the profile ``simple``.
        phase: Which folds it was trained on.
        reliability_from: In words, which model's scores of which fold the reliability was learnt on.

    Returns:
        The card.

    Raises:
        UpdateMismatch: If trunk, head, endpoints and recipe do not fit together.
    """
    layout = layout_of(trunk)
    n_bits, hidden = trunk["embedding.weight"].shape
    n_numbers = len(regression_endpoints)
    n_endpoints = len(endpoints) + n_numbers
    if (head is None) != (n_endpoints == 0):
        raise UpdateMismatch(f"a model has a head and endpoints, or neither; got {n_endpoints} endpoints")
    if recipe.fingerprint["n_bits"] != n_bits:
        raise UpdateMismatch(
            f"the trunk reads {n_bits} bits, the recipe makes {recipe.fingerprint['n_bits']}; was it another profile's?"
        )
    if head is not None:
        modality: Modality = "hybrid" if n_numbers else "classification"
        check_layout(head, head_layout(n_endpoints, hidden, modality=modality))
        head = in_assay_units(head)
    if reliability is not None:
        check_layout(reliability, reliability_layout(len(endpoints), n_bits=n_bits, n_regression=n_numbers))
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        **trunk,
        **(head or {}),
        **(reliability or {}),
        **recipe.arrays(has_head=head is not None),
    }
    replace_whole(directory / scoring.WEIGHTS, [save({name: weights[name] for name in sorted(weights)})])
    for module in (standardization, fingerprints, molecules, scoring):
        source = _source_of(module)
        shutil.copyfile(source, directory / source.name)
    card = ModelCard(
        kind="trunk" if head is None else "qsar",
        run_id=run_id,
        endpoints=tuple(endpoints),
        regression_endpoints=tuple(regression_endpoints),
        hidden=hidden,
        n_bits=n_bits,
        n_layers=(len(layout) - 2) // 2,
        fingerprint=recipe.fingerprint,
        standardization=recipe.standardization,
        recipe=recipe.card(),
        data=data,
        validation=validation,
        conformal_levels=LEVELS if reliability is not None else (),
        phase=phase,
        reliability_from=reliability_from if reliability is not None else None,
        sha256={name: sha256_of(directory / name) for name in (scoring.WEIGHTS, *scoring.SOURCES)},
    )
    replace_whole(directory / scoring.CARD, [canonical_bytes(card.model_dump(mode="json"))])
    return card


def reliability_layout(n_endpoints: int, *, n_bits: int, n_regression: int = 0) -> Layout:
    """List the arrays that say how far predictions can be believed; half-widths are on the assays' own scales."""
    intervals: Layout = (("interval.half_width", (len(LEVELS), n_regression)),) if n_regression else ()
    return (
        *intervals,
        ("calibration.offset", (n_endpoints,)),
        ("calibration.slope", (n_endpoints,)),
        ("conformal.active", (len(LEVELS), n_endpoints)),
        ("conformal.inactive", (len(LEVELS), n_endpoints)),
        ("domain.known", (n_bits,)),
        ("domain.least_share", (1,)),
    )


def read_card(directory: Path) -> ModelCard:
    """Read a model's card.

    Raises:
        UpdateMismatch: If there is none, or it is not of this format.
    """
    try:
        return ModelCard.model_validate_json((directory / scoring.CARD).read_bytes())
    except (OSError, ValueError) as exc:
        raise UpdateMismatch(
            f"'{directory.name}' holds no readable model card ({type(exc).__name__})",
            advice="name a directory that holds card.json, or a registered model",
        ) from None


def sha256_of(path: Path) -> str:
    """Digest a file, lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _source_of(module: ModuleType) -> Path:
    assert module.__file__ is not None  # noqa: S101 - our own modules are files
    return Path(module.__file__)
