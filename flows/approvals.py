"""A run that only the data steward may approve: the request, the steward's signature, and where both lie.

Why: a click in Prefect names nobody, so what binds is an Ed25519 signature over the digest of all that is asked.
Runs: on the partner; the steward may sign elsewhere. Source: own; Ed25519, RFC 8032.

::

    requests/<id>.json            what is asked, readable            requests/<id>.approved.json   signed by the steward
    requests/<id>.refused.json    a refusal; it outweighs approval   requests/<id>.set-aside/      what was no approval
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from data_contracts.canonical_json import canonical_bytes, digest_of
from data_contracts.errors import AgreementViolation, SettingsError
from data_contracts.plan import PartyName, RunId
from flows.settings import RunSettings
from flows.site_settings import DataSetName, RunOpening, Study
from tasks.exchange.durable_files import create_once
from tasks.exchange.enrolment import Signature
from tasks.exchange.identity import Identity, signature_holds

APPROVAL_DOMAIN = b"motet/approval/v1\x00"
STEWARD = "steward"
MAX_TOKEN_CHARACTERS = 8192
MAX_SET_ASIDE = 100

Digest = Field(pattern=r"^[0-9a-f]{64}$")
Verdict = Literal["approve", "refuse"]


class Asked(BaseModel):
    """All that an approval binds; anything else that is asked makes another digest.

    Attributes:
        site: Who is asked.
        coordinator: Who asks.
        run_id: The run.
        roster: Digest of the roster: who takes part, under which keys.
        opening: Digest of what the run was opened with.
        studies: What would run only with this approval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Literal[1] = 1
    site: PartyName
    coordinator: PartyName
    run_id: RunId
    roster: str = Digest
    opening: str = Digest
    studies: tuple[Study, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal: what the steward signs."""
        return digest_of(self.model_dump(mode="json"))

    @property
    def id(self) -> str:
        """Its name on this site."""
        return f"{self.run_id}-{self.digest[:12]}"


class Request(BaseModel):
    """``requests/<id>.json``: what is asked, for the eyes of the steward.

    Attributes:
        asked: What an approval binds.
        digest: Its digest.
        data_set: Name of the data set.
        simulated_assays: Whether its activities are invented.
        settings: What the run computes.
        n_listed: Endpoints offered to share a head row for.
        partners: Who takes part.
        leaves: What would leave the building, one line each.
        asked_at: When this site first met the run.
        answer_by: After this the answer is no.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: Asked
    digest: str = Digest
    data_set: DataSetName
    simulated_assays: bool
    settings: RunSettings
    n_listed: int
    partners: tuple[PartyName, ...]
    leaves: tuple[str, ...]
    asked_at: AwareDatetime
    answer_by: AwareDatetime

    @property
    def lines(self) -> list[tuple[str, str]]:
        """The request as pairs of a heading and a text."""
        run = self.settings
        return [
            ("request", self.asked.id),
            ("run", f"{self.asked.run_id}, led by {self.asked.coordinator}"),
            ("studies", ", ".join(self.asked.studies)),
            ("data set", self.data_set + (" (simulated assays)" if self.simulated_assays else "")),
            ("endpoints", f"{self.n_listed} offered to share a head row; all others stay private"),
            (
                "training",
                f"{run.rounds} rounds of {run.local_epochs} local epoch{'s' if run.local_epochs > 1 else ''}",
            ),
            ("trunk", f"width {run.hidden}, {run.layers} residual layers"),
            ("takes part", ", ".join(self.partners)),
            *(("leaves the building", line) for line in self.leaves),
            ("asked", f"{self.asked_at:%Y-%m-%d %H:%M %Z}"),
            ("answer by", f"{self.answer_by:%Y-%m-%d %H:%M %Z}; silence is a refusal"),
            ("digest", self.digest),
        ]


class Decision(BaseModel):
    """What the steward decides about one request.

    Attributes:
        site: The site.
        request: Digest of what was asked.
        verdict: Approve or refuse.
        at: When.
        until: An approval holds before this only.
        told: What the coordinator may read of the reason; None for nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Literal[1] = 1
    site: PartyName
    request: str = Digest
    verdict: Verdict
    at: AwareDatetime
    until: AwareDatetime
    told: str | None = Field(default=None, max_length=300)

    @property
    def signed_bytes(self) -> bytes:
        """The bytes under the signature."""
        return APPROVAL_DOMAIN + canonical_bytes(self.model_dump(mode="json"))


class SignedDecision(BaseModel):
    """A decision with the steward's signature; as one line of text it can be pasted into a form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Decision
    signature: Signature

    @classmethod
    def make(cls, decision: Decision, steward: Identity) -> "SignedDecision":
        """Sign a decision."""
        return cls(decision=decision, signature=steward.sign(decision.signed_bytes).hex())

    @property
    def token(self) -> str:
        """One line of text."""
        return canonical_bytes(self.model_dump(mode="json")).decode()

    @classmethod
    def read(cls, token: str | bytes) -> "SignedDecision":
        """Parse one line of text.

        Raises:
            AgreementViolation: If it is none.
        """
        try:
            return cls.model_validate_json(token[:MAX_TOKEN_CHARACTERS])
        except ValidationError:
            raise AgreementViolation("this carries no signature of the data steward") from None


def check_approval(signed: SignedDecision, *, asked: Asked, steward_key: str | None, now: datetime) -> None:
    """Accept an approval of exactly this request, signed with the pinned key of the steward, in its time.

    Raises:
        AgreementViolation: If it is none, and why.
    """
    decision = signed.decision
    if steward_key is None:
        raise AgreementViolation(
            f"'{asked.site}' has pinned no data steward",
            advice="write the steward's public key into site.json as `steward_key`",
        )
    if not signature_holds(
        steward_key, signature=bytes.fromhex(signed.signature), message=decision.signed_bytes
    ):
        raise AgreementViolation("it is not signed with the key of this site's data steward")
    if (decision.site, decision.request) != (asked.site, asked.digest):
        raise AgreementViolation("it was signed for another request")
    if decision.verdict != "approve":
        raise AgreementViolation("it is a refusal")
    if now >= decision.until:
        raise AgreementViolation(f"the approval expired on {decision.until:%Y-%m-%d %H:%M %Z}")


@dataclass(frozen=True)
class Requests:
    """The requests of a partner.

    Attributes:
        directory: ``requests/`` of the site.
    """

    directory: Path

    def ask(
        self, asked: Asked, opening: RunOpening, *, partners: tuple[str, ...], leaves: tuple[str, ...],
        now: datetime, timeout_seconds: float,
    ) -> Request:  # fmt: skip
        """Write a request, or find the one that was written before a restart, with its time limit."""
        request = Request(
            asked=asked,
            digest=asked.digest,
            data_set=opening.settings.data,
            simulated_assays=opening.simulated_assays,
            settings=opening.settings,
            n_listed=opening.n_listed,
            partners=partners,
            leaves=leaves,
            asked_at=now,
            answer_by=now + timedelta(seconds=timeout_seconds),
        )
        written = json.dumps(request.model_dump(mode="json"), indent=2).encode()
        if not create_once(self.directory / f"{asked.id}.json", [written]):
            return self.find(asked.id)
        return request

    def all(self) -> list[Request]:
        """All requests, oldest first."""
        found = [self._read(path) for path in self.directory.glob("*.json") if "." not in path.stem]
        return sorted(found, key=lambda request: (request.asked_at, request.asked.id))

    def find(self, request_id: str) -> Request:
        """The request whose name begins so.

        Raises:
            SettingsError: If there is none, or more than one.
        """
        found = [request for request in self.all() if request.asked.id.startswith(request_id)]
        exact = [request for request in found if request.asked.id == request_id]
        if len(exact or found) != 1:
            raise SettingsError(
                f"{len(found) or 'no'} requests have a name that begins with '{request_id[:80]}'",
                advice="see `motet requests`",
            )
        return (exact or found)[0]

    def _read(self, path: Path) -> Request:
        try:
            request = Request.model_validate_json(path.read_bytes())
        except ValidationError:
            raise SettingsError(
                f"the request '{path.name}' is damaged", advice=f"move it away: {path}; the site asks again"
            ) from None
        if request.digest != request.asked.digest:
            raise SettingsError(
                f"the request '{path.name}' does not have its own digest", advice=f"move it away: {path}"
            )
        return request

    def approval(self, asked: Asked) -> SignedDecision | None:
        """The approval that was written, valid or not."""
        try:
            return SignedDecision.read((self.directory / f"{asked.id}.approved.json").read_bytes())
        except (FileNotFoundError, AgreementViolation):
            return None

    def refusal(self, asked: Asked) -> dict[str, Any] | None:
        """What stands against the request: by whom and, for this site only, why."""
        try:
            return dict(json.loads((self.directory / f"{asked.id}.refused.json").read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return {"by": "an unreadable refusal", "reason": ""}

    def keep_approval(self, asked: Asked, signed: SignedDecision) -> None:
        """Keep an approval that was checked; one that holds no more makes way for it."""
        path = self.directory / f"{asked.id}.approved.json"
        earlier = self.approval(asked)
        if not create_once(path, [signed.token.encode()]) and earlier != signed:
            path.rename(path.with_suffix(f".{digest_of(path.read_bytes().hex())[:12]}"))
            create_once(path, [signed.token.encode()])

    def refuse(
        self, asked: Asked, *, by: str, reason: str = "", told: str | None = None,
        signed: SignedDecision | None = None,
    ) -> None:  # fmt: skip
        """Keep a refusal; the first one stands."""
        record = {"by": by, "reason": reason, "told": told, "signed": signed and signed.token}
        create_once(self.directory / f"{asked.id}.refused.json", [canonical_bytes(record)])

    def set_aside(self, asked: Asked, *, why: str, given: str, at: datetime) -> None:
        """Keep what pretended to be an approval."""
        place = self.directory / f"{asked.id}.set-aside"
        if self.n_set_aside(asked) < MAX_SET_ASIDE:
            record = {"why": why, "given": given[:MAX_TOKEN_CHARACTERS], "at": at.isoformat()}
            create_once(place / f"{digest_of(record)[:16]}.json", [canonical_bytes(record)])

    def n_set_aside(self, asked: Asked) -> int:
        """How often something else than an approval was given."""
        return len(list((self.directory / f"{asked.id}.set-aside").glob("*.json")))

    def standing(
        self, asked: Asked, *, steward_key: str | None, now: datetime
    ) -> Literal["waiting", "approved"]:
        """How a request stands.

        Raises:
            AgreementViolation: If it is refused.
        """
        refusal = self.refusal(asked)
        if refusal is not None:
            told = refusal.get("told")
            raise AgreementViolation(
                f"'{asked.site}' refuses run '{asked.run_id}': {refusal['by']}"
                + (f": {told}" if told else ""),
                advice="see `motet requests`; another run needs another approval",
            )
        approval = self.approval(asked)
        if approval is None:
            return "waiting"
        try:
            check_approval(approval, asked=asked, steward_key=steward_key, now=now)
        except AgreementViolation:
            return "waiting"
        return "approved"


def take(requests: Requests, request: Request, token: str, *, steward_key: str | None, now: datetime) -> bool:
    """Take what somebody gave as an approval; what is none is set aside.

    Returns:
        Whether it is one.
    """
    try:
        signed = SignedDecision.read(token.strip())
        check_approval(signed, asked=request.asked, steward_key=steward_key, now=now)
    except AgreementViolation as exc:
        requests.set_aside(request.asked, why=str(exc), given=token, at=now)
        return False
    requests.keep_approval(request.asked, signed)
    return True
