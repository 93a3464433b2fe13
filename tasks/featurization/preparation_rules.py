"""The rules of preparation, as declared in one YAML file for each profile.

Why: partners agree on a file that people can read; its schema is checked before a row is touched, and its digest
travels with everything made by it. Runs: anywhere. Source: own; the vocabulary covers MELLODDY-TUNER 3's
``example_parameters.json`` and the decisions that stand only in its code.
"""

from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from data_contracts.canonical_json import digest_of
from data_contracts.catalogue import ASSAY_TYPES, HASHED_BITS, LAST_FOLD
from data_contracts.errors import SettingsError
from tasks.featurization.fingerprints import RADIUS

PROFILES = ("simple", "melloddy")
Count = int


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassQuorum(_Frozen):
    """Fewest actives, fewest inactives, and fewest of both together."""

    active: Count = Field(default=1, ge=1)
    inactive: Count = Field(default=1, ge=1)
    total: Count = Field(default=0, ge=0)


class ThresholdRule(_Frozen):
    """Where the thresholds of an assay come from.

    Attributes:
        rule: ``given_or_default``: the assay's own, else ``default``. ``given_or_adaptive``: its own, else the first
            of ``trial`` with enough actives, else the median; with a sandwich. ``given_or_quantiles``: its own, else
            median and quartile. ``catalogue``: those of the consortium's catalogue. ``fixed``: ``default``.
            ``none``: only binary assays have an endpoint.
        default: Thresholds for assays that name none; of ``fixed`` rules the magnitude.
        trial: Thresholds tried in order.
        smallest_active_share: Of the labels at a trial threshold.
        trial_quorum: Labels at a trial threshold.
        sandwich: Distance of the auxiliary thresholds below the lowest and above the highest; 0 for none.
        sandwich_up_to: Most given thresholds that get a sandwich.
    """

    rule: Literal["given_or_default", "given_or_adaptive", "given_or_quantiles", "catalogue", "fixed", "none"]
    default: tuple[FiniteFloat, ...] = ()
    trial: tuple[FiniteFloat, ...] = ()
    smallest_active_share: float = Field(default=0.0, ge=0, le=1)
    trial_quorum: ClassQuorum = ClassQuorum()
    sandwich: float = Field(default=0.0, ge=0)
    sandwich_up_to: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.rule in {"given_or_default", "fixed"} and not self.default:
            raise ValueError(f"the rule {self.rule} needs at least one default threshold")
        if self.rule == "given_or_adaptive" and not self.trial:
            raise ValueError("the rule given_or_adaptive needs at least one trial threshold")
        return self


class RegressionRule(_Frozen):
    """When an assay is learned as numbers too.

    Attributes:
        training_values: Fewest values.
        training_uncensored: Fewest uncensored ones among them.
        evaluation_uncensored: Fewest uncensored ones in every fold.
        smallest_deviation: Of the uncensored values in every fold.
    """

    training_values: Count = Field(ge=1)
    training_uncensored: Count = Field(ge=1)
    evaluation_uncensored: Count = Field(ge=1)
    smallest_deviation: float = Field(default=0.0, ge=0)


class AssayTypeRule(_Frozen):
    """What happens to the activities of one kind of assay.

    Attributes:
        credible: Closed interval of credible values on the assay's scale; None for no limit.
        replicates: Rule for several values of one structure; ``by_direction`` takes the lowest, the highest or the
            largest magnitude.
        decimals: Decimals kept after the replicates; None for all.
        thresholds: Where thresholds come from.
        labels_ignore_relation: Judge a censored value as if it were measured.
        auxiliary: Trained, but in no mean.
        weight: Shared by the assay's endpoints.
        training: Quorum of an endpoint that is trained.
        evaluation: Quorum in each of ``evaluation_folds`` of an endpoint that enters means.
        demoted_to: Type whose rules hold where the catalogue does not know the assay, or its quorum is missed.
        regression: None if never learned as numbers.
    """

    credible: tuple[float, float] | None = None
    replicates: Literal["median_or_bounds", "highest", "median_with_common_relation", "by_direction"]
    decimals: int | None = Field(default=None, ge=0, le=9)
    thresholds: ThresholdRule
    labels_ignore_relation: bool = False
    auxiliary: bool = False
    weight: float = Field(default=1.0, gt=0)
    training: ClassQuorum
    evaluation: ClassQuorum
    demoted_to: str | None = None
    regression: RegressionRule | None = None


class FingerprintRule(_Frozen):
    """How structures become bits.

    Attributes:
        radius: Of the circular environments, in bonds.
        n_bits: Length of the hashed fingerprint.
        counts: Keep how often each environment occurs.
        chirality: Tell stereoisomers apart; then standardization keeps stereo.
        permutation: ``none``, ``keyed`` or ``published``; see ``permutations.py`` for what it hides from whom.
    """

    radius: int = Field(default=RADIUS, ge=0, le=8)
    n_bits: int = Field(default=HASHED_BITS, ge=64, le=HASHED_BITS)
    counts: bool = False
    chirality: bool = False
    permutation: Literal["none", "keyed", "published"] = "none"


class FoldRule(_Frozen):
    """How structures are split.

    Attributes:
        rule: ``generic_scaffold``: keyed hash of the generic Murcko scaffold. ``published``: MELLODDY's scaffold
            network. ``time``: by the first date that a structure was measured on; before ``validation_from`` and
            undated into the training folds, by generic scaffold.
        validation_from, test_from: Dates that all partners agree on; for ``time`` only.
    """

    rule: Literal["generic_scaffold", "published", "time"] = "generic_scaffold"
    validation_from: date | None = None
    test_from: date | None = None

    @model_validator(mode="after")
    def _has_dates_in_order(self) -> Self:
        dates = (self.validation_from, self.test_from)
        if (self.rule == "time") != (None not in dates) or (None in dates and any(dates)):
            raise ValueError("the rule time, and no other, needs validation_from and test_from")
        if self.validation_from and self.test_from and self.validation_from >= self.test_from:
            raise ValueError("validation_from must lie before test_from")
        return self


class StructureRules(_Frozen):
    """What happens to structures.

    Attributes:
        standardization: ``fast`` or ``published``; see ``standardization.py``.
        identity: What makes two parents one structure: the same ``parent``, or the same ``tautomer_hash``.
        fingerprint: How they become bits.
        folds: How they are split.
    """

    standardization: Literal["fast", "published"] = "fast"
    identity: Literal["parent", "tautomer_hash"] = "parent"
    fingerprint: FingerprintRule = FingerprintRule()
    folds: FoldRule = FoldRule()


class PreparationRules(_Frozen):
    """A profile: the rules of structures and of every kind of assay.

    Attributes:
        name: Of the profile.
        version: Raised with every change.
        structures: What happens to structures.
        evaluation_folds: Folds in which the evaluation quorum must hold.
        smallest_deviation: Of an assay's values in every fold; None to let constant assays pass.
        censored_knock_in: Share of censored values above which these weigh less; None to weigh them fully.
        assay_types: One rule for each assay type.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    version: int = Field(ge=1)
    structures: StructureRules = StructureRules()
    evaluation_folds: tuple[int, ...] = Field(min_length=1)
    smallest_deviation: float | None = Field(default=None, ge=0)
    censored_knock_in: float | None = Field(default=None, gt=0, lt=1)
    assay_types: dict[str, AssayTypeRule]

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if set(self.assay_types) != set(ASSAY_TYPES):
            raise ValueError(f"expected rules for exactly the assay types {', '.join(ASSAY_TYPES)}")
        if not {rule.demoted_to for rule in self.assay_types.values()} <= {None, *ASSAY_TYPES}:
            raise ValueError(f"an assay is demoted to one of {', '.join(ASSAY_TYPES)}")
        if not all(0 <= fold <= LAST_FOLD for fold in self.evaluation_folds):
            raise ValueError(f"folds are 0 to {LAST_FOLD}")
        return self

    @property
    def in_order(self) -> tuple[AssayTypeRule, ...]:
        """The rule of each of ``ASSAY_TYPES``, in that order."""
        return tuple(self.assay_types[name] for name in ASSAY_TYPES)

    @property
    def digest(self) -> str:
        """SHA-256 of the rules, hexadecimal."""
        return digest_of(self.model_dump(mode="json"))

    def varied(self, **changes: Any) -> Self:
        """Return the rules with some fields of every assay type replaced; checked again."""
        types = {name: rule.model_dump() | changes for name, rule in self.assay_types.items()}
        return type(self).model_validate(self.model_dump() | {"assay_types": types})


def read_rules(text: str, *, source: str) -> PreparationRules:
    """Read a profile.

    Args:
        text: YAML.
        source: Name for messages.

    Raises:
        SettingsError: If it is no YAML or breaks the schema; names the place.
    """
    try:
        return PreparationRules.model_validate(yaml.safe_load(text))
    except yaml.YAMLError:
        problem = "it is no YAML"
    except ValidationError as exc:
        problem = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in exc.errors(include_input=False)
        )
    raise SettingsError(f"the rules in {source} cannot work: {problem}")


@cache
def _brought_along(profile: str) -> PreparationRules:
    text = (resources.files(__package__) / "profiles" / f"{profile}.yaml").read_text(encoding="utf-8")
    return read_rules(text, source=f"profile {profile}")


def rules_of(profile: str | Path) -> PreparationRules:
    """Load a profile that motet brings, or a file.

    Args:
        profile: One of ``PROFILES``, or the path of a YAML file.

    Raises:
        SettingsError: If there is no such profile or its file breaks the schema.
    """
    if profile in PROFILES:
        return _brought_along(str(profile))
    path = Path(profile)
    try:
        return read_rules(path.read_text(encoding="utf-8"), source=path.name)
    except (OSError, UnicodeDecodeError):
        raise SettingsError(
            f"got no readable profile '{path.name}'; expected {', '.join(PROFILES)}, or a YAML file"
        ) from None
