"""What a site says about itself, what it grants, and what a coordinator opens a run with: frozen, bounded, complete.

Why: whatever a plan asks is set against what the site's own steward wrote down; unknown fields are refused.
Runs: on every site. Source: own.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_contracts.canonical_json import digest_of
from data_contracts.errors import AgreementViolation, ProtocolError, SettingsError
from data_contracts.plan import PartyName, RoundPlan
from flows.settings import RunSettings
from tasks.exchange.enrolment import Role
from tasks.featurization.preparation_rules import PROFILES, rules_of
from tasks.local_training.jobs import Machine
from tasks.studies.training_parameters import MAX_ROUNDS

MIB = 2**20
EXTRA_ROUNDS = 2  # the two evaluations after the last training round; the catalogue is round 0

DataSetName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
ProfileName = Annotated[str, Field(pattern=rf"^({'|'.join(PROFILES)}|[0-9a-f]{{64}})$")]
Study = Literal["catalogue", "qsar-training", "qsar-minibatches", "evaluation"]
GrantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}(/[a-z][a-z0-9-]{0,39})?$")]
PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Approver = Literal["policy", "steward"]
Written = TypeVar("Written", bound=BaseModel)


class Files(BaseModel):
    """Where a partner's own files lie: CSV, Arrow or Parquet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    assays: Path
    activities: Path
    structures: Path
    catalogue: Path | None = None  # of commercial panels, for profiles that look thresholds up in it


class SiteSettings(BaseModel):
    """``site.json``.

    Attributes:
        role: What the site is in the consortium.
        name: Its name on every message.
        listen: Of a mailbox, the host and port it listens on; of others None.
        files: Of a partner, its files; of others None.
        mailbox: Of a consortium whose messages lie in object storage, where: ``s3://bucket/prefix``.
        dask: Of a partner, the scheduler of its own Dask cluster to featurize on, or ``local``; else None.
        simulated_assays: Whether a partner's activities are invented, so that its models must say so.
        local_trunk: Of a partner, width of a trunk of its own that it grows beside the consortium's; 0 for none.
        machine: What a partner computes on; nobody else learns it.
        outage_seconds: How long the mailbox may be out of reach.
        patience_seconds: How long to wait for the others.
        answer_seconds: How long to wait until all partners have answered a run, whose stewards may take days.
        notification_block: ``type/name`` of a block in the site's Prefect that tells a person of failed runs.
        alarm_seconds: A run that ends no round for so long is told likewise.
        steward_key: Of a partner, its data steward's public key, hexadecimal: only its signature approves a run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Literal[1] = 1
    role: Role
    name: PartyName
    listen: str | None = Field(default=None, pattern=r"^[A-Za-z0-9.-]{1,253}:[0-9]{1,5}$")
    files: Files | None = None
    mailbox: str | None = Field(
        default=None,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}){0,8}$",
    )
    dask: str | None = Field(
        default=None, pattern=r"^(local|(tcp|tls)://[A-Za-z0-9.\[\]:-]{1,253}:[0-9]{1,5})$"
    )
    simulated_assays: bool = False
    local_trunk: int = Field(default=0, ge=0, le=8192)
    machine: Machine = Machine()
    outage_seconds: float = Field(default=900.0, gt=0, le=86_400)
    patience_seconds: float = Field(default=21_600.0, gt=0, le=30 * 86_400)
    answer_seconds: float = Field(default=7 * 86_400.0, gt=0, le=90 * 86_400)
    notification_block: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,80}/[a-z0-9-]{1,80}$")
    alarm_seconds: float = Field(default=21_600.0, ge=10, le=30 * 86_400)
    steward_key: PublicKey | None = None

    @model_validator(mode="after")
    def _has_what_its_role_needs(self) -> Self:
        if (self.files is not None) != (self.role == "partner"):
            raise ValueError("a partner, and nobody else, has files")
        if (self.listen is not None) != (self.role == "mailbox"):
            raise ValueError("a mailbox, and nobody else, listens")
        if self.mailbox is not None and self.role == "mailbox":
            raise ValueError("a mailbox is no party of a consortium whose messages lie in object storage")
        if self.steward_key is not None and self.role != "partner":
            raise ValueError("a partner, and nobody else, has a data steward")
        return self


class Policy(BaseModel):
    """``policy.json``: what plans may ask of a partner. Nothing is granted that does not stand here.

    Attributes:
        data_sets: Data sets on which runs may be asked for; all others are refused.
        profiles: How data may be prepared: names of profiles that motet brings, or digests of other rules.
        approval: Who approves a run on a data set, or on ``data-set/study``: this ``policy`` alone, or the data
            ``steward`` by a signature for each run. What is not named here needs the steward.
        approval_timeout_seconds: A run that the steward has not approved after so long is refused.
        expires: After this no plan is answered.
        studies: Studies that may run.
        min_partners: Fewest partners in a cohort.
        max_hidden: Widest trunk.
        max_layers: Most residual layers behind it.
        max_rounds: Most rounds of training in a run.
        max_local_epochs: Most passes over the data in a round.
        max_vector_bytes: Largest masked vector.
        max_model_bytes: Largest model that is fetched.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Literal[1] = 1
    data_sets: tuple[DataSetName, ...]
    profiles: tuple[ProfileName, ...] = PROFILES
    approval: dict[GrantName, Approver] = Field(default_factory=dict)
    approval_timeout_seconds: float = Field(default=5 * 86_400.0, gt=0, le=90 * 86_400)
    expires: AwareDatetime
    studies: tuple[Study, ...] = ("catalogue", "qsar-training", "evaluation")
    min_partners: int = Field(default=3, ge=3, le=1024)
    max_hidden: int = Field(default=2048, ge=1, le=8192)
    max_layers: int = Field(default=4, ge=0, le=8)
    max_rounds: int = Field(default=100, ge=1, le=MAX_ROUNDS)
    max_local_epochs: int = Field(default=10, ge=1, le=100)
    max_vector_bytes: int = Field(default=512 * MIB, ge=1, le=8192 * MIB)
    max_model_bytes: int = Field(default=1024 * MIB, ge=1, le=8192 * MIB)

    def approver(self, data_set: str, study: str) -> Approver:
        """Who approves a study on a data set; the steward, unless it stands here otherwise."""
        return self.approval.get(f"{data_set}/{study}", self.approval.get(data_set, "steward"))

    def for_the_steward(self, data_set: str) -> tuple[Study, ...]:
        """The granted studies that may run on a data set only with the steward's signature, sorted."""
        return tuple(sorted(study for study in self.studies if self.approver(data_set, study) == "steward"))


class RunOpening(BaseModel):
    """What a coordinator opens a run with, signed: the whole run stays within it.

    Attributes:
        roster: Digest of the roster that the run rests on.
        simulated_assays: Whether the data set's activities are invented.
        n_listed: Endpoints that the catalogue offers to share a head row for.
        settings: What the run computes; ``data`` names the data set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Literal[1] = 1
    roster: str = Field(pattern=r"^[0-9a-f]{64}$")
    simulated_assays: bool = False
    n_listed: int = Field(default=0, ge=0, le=10_000_000)
    settings: RunSettings

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, hexadecimal."""
        return digest_of(self.model_dump(mode="json"))


def read_settings(model: type[Written], path: Path, *, example: str) -> Written:
    """Read ``site.json`` or ``policy.json``.

    Raises:
        SettingsError: If it is not there or a field is wrong; names the fields, never a value.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise SettingsError(
            f"there is no {path.name} under '{path.parent}'", advice=f"make the site first: {example}"
        ) from None
    except ValidationError as exc:
        wrong = "; ".join(_complaint(error) for error in exc.errors(include_url=False, include_input=False))
        raise SettingsError(f"{path.name} cannot work: {wrong}", advice="correct it and run again") from None


def role_at(home: Path) -> Role | None:
    """The role of the site under a home; None where everybody is on one machine."""
    path = home / "site.json"
    return read_settings(SiteSettings, path, example="motet init").role if path.exists() else None


def checked(model: type[Written], values: dict[str, Any]) -> Written:
    """Make settings from what a user gave.

    Raises:
        SettingsError: If a field is wrong; names it.
    """
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        wrong = "; ".join(_complaint(error) for error in exc.errors(include_url=False, include_input=False))
        raise SettingsError(f"the site cannot be made: {wrong}") from None


def read_opening(data: bytes, *, who: str) -> RunOpening:
    """Parse what a coordinator opened a run with.

    Raises:
        ProtocolError: If it is malformed.
    """
    try:
        return RunOpening.model_validate_json(data)
    except ValidationError as exc:
        wrong = "; ".join(_complaint(error) for error in exc.errors(include_url=False, include_input=False))
        raise ProtocolError(f"'{who}' opened a run that is refused at: {wrong[:300]}") from None


def _complaint(error: object) -> str:
    assert isinstance(error, dict)  # noqa: S101 - pydantic's own
    place = ".".join(map(str, error["loc"]))
    return f"{place}: {error['msg']}" if place else str(error["msg"])


def check_opening(
    opening: RunOpening, *, run_id: str, policy: Policy, roster: str, who: str, now: datetime
) -> None:
    """Set what a run was opened with against what this site grants, before it is answered.

    Raises:
        AgreementViolation: If it asks for more; names all that it asks too much of.
    """
    if asked := _of_the_run(opening, policy=policy, roster=roster, now=now):
        raise AgreementViolation(f"'{who}' refuses run '{run_id}': {'; '.join(asked)}")


def check_plan(
    plan: RoundPlan, *, opening: RunOpening, policy: Policy, roster: str, who: str, now: datetime
) -> None:
    """Set a plan against what its run was opened with and what this site grants, before anything is computed.

    Args:
        plan: The plan.
        opening: Of its run.
        policy: The site's.
        roster: Digest of the roster that the site has pinned.
        who: The site.
        now: The time.

    Raises:
        AgreementViolation: If it asks for more; names all that it asks too much of.
    """
    asked = [
        *_of_the_run(opening, policy=policy, roster=roster, now=now),
        *_of_the_plan(plan, policy=policy),
        *(f"another '{name}' than its run was opened with" for name in _changed(plan, opening)),
    ]
    if asked:
        raise AgreementViolation(
            f"'{who}' refuses the plan of round {plan.round} of run '{plan.run_id}': {'; '.join(asked)}"
        )


def _of_the_run(opening: RunOpening, *, policy: Policy, roster: str, now: datetime) -> list[str]:
    settings = opening.settings
    refused = {
        "it rests on another roster": opening.roster != roster,
        f"the data set '{settings.data[:64]}' was never granted": settings.data not in policy.data_sets,
        f"rules of preparation '{settings.rules.name}' with digest {settings.rules.digest}, never granted": (
            settings.rules.digest not in _digests(policy.profiles)
        ),
        f"what was granted expired on {policy.expires:%Y-%m-%d}": now >= policy.expires,
        f"{settings.rounds} rounds, at most {policy.max_rounds} are granted": settings.rounds
        > policy.max_rounds,
        f"a trunk of {settings.hidden}, at most {policy.max_hidden} is granted": settings.hidden
        > policy.max_hidden,
        f"{settings.layers} layers, at most {policy.max_layers} are granted": settings.layers
        > policy.max_layers,
        f"{settings.local_epochs} local epochs, at most {policy.max_local_epochs} are granted": (
            settings.local_epochs > policy.max_local_epochs
        ),
    }
    return [reason for reason, applies in refused.items() if applies]


def _digests(profiles: tuple[str, ...]) -> set[str]:
    return {rules_of(name).digest if name in PROFILES else name for name in profiles}


def _of_the_plan(plan: RoundPlan, *, policy: Policy) -> list[str]:
    vector_bytes = sum(lane.length * lane.ring_bits // 8 for lane in plan.lanes)
    model_bytes = plan.model_in.bytes if plan.model_in else 0
    last = policy.max_rounds + EXTRA_ROUNDS
    refused = {
        f"the study '{plan.study}' was never granted": plan.study not in policy.studies,
        f"a round after {last}": plan.round > last,
        f"a cohort of {len(plan.cohort)}, at least {policy.min_partners} are asked for": (
            len(plan.cohort) < policy.min_partners
        ),
        f"a vector of {vector_bytes} bytes, at most {policy.max_vector_bytes} are granted": (
            vector_bytes > policy.max_vector_bytes
        ),
        f"a model of {model_bytes} bytes, at most {policy.max_model_bytes} are granted": (
            model_bytes > policy.max_model_bytes
        ),
    }
    return [reason for reason, applies in refused.items() if applies]


def _changed(plan: RoundPlan, opening: RunOpening) -> list[str]:
    agreed = opening.settings.model_dump()
    agreed["n_bits"] = opening.settings.rules.structures.fingerprint.n_bits
    return sorted(name for name, value in plan.parameters.items() if name in agreed and value != agreed[name])
