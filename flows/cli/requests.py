"""``motet requests``, ``approve``, ``refuse``: the data steward decides on runs that the policy does not grant by itself.

Why: what binds is a signature with the steward's key, wherever the click was. Runs: on the partner. Source: own.
"""

import argparse
import json
import urllib.error
import urllib.request
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from typing import Any

from data_contracts.errors import AgreementViolation, SettingsError
from flows import services
from flows.approvals import STEWARD, Decision, Request, Requests, SignedDecision, Verdict, check_approval
from flows.cli.tables import print_table
from flows.site_directory import SiteDirectory, open_site
from tasks.exchange.identity import Identity, secret_file

WAKING_TRIES = 10


def requests(arguments: argparse.Namespace) -> dict[str, Any]:
    """List all requests, the oldest first."""
    site, kept = _at(arguments)
    rows = [_row(site, kept, request) for request in kept.all()]
    print_table(("request", "data set", "studies", "answer by", "stands"), rows or [["none", "", "", "", ""]])
    return {"requests": [_as_json(site, kept, request) for request in kept.all()]}


def show(arguments: argparse.Namespace) -> dict[str, Any]:
    """Show one request with all that an approval binds."""
    site, kept = _at(arguments)
    request = kept.find(arguments.request)
    _print(request)
    print(f"{'stands':<18} {_stands(site, kept, request)}")
    return _as_json(site, kept, request)


def approve(arguments: argparse.Namespace) -> dict[str, Any]:
    """Sign an approval of one request.

    Raises:
        SettingsError: If the request is unknown, or the key is not that of the site's steward.
        AgreementViolation: If the request has been refused; a refusal stands.
    """
    site, kept = _at(arguments)
    request = kept.find(arguments.request)
    kept.standing(request.asked, steward_key=site.settings.steward_key, now=datetime.now(UTC))
    until = _until(arguments.until) if arguments.until else site.policy.expires
    signed = _sign(arguments, site, request, verdict="approve", until=until)
    _print(request)
    if arguments.print:
        print(f"\npaste this line into the form on the run's page:\n{signed.token}")
        return {"request": request.asked.id, "token": signed.token, "kept": False}
    kept.keep_approval(request.asked, signed)
    woken = _wake(site, request, {"decision": "approve", "signature": signed.token})
    print(f"\napproved until {until:%Y-%m-%d %H:%M %Z}" + ("; the waiting run goes on" if woken else ""))
    return {"request": request.asked.id, "kept": True, "woken": woken, "until": until.isoformat()}


def refuse(arguments: argparse.Namespace) -> dict[str, Any]:
    """Refuse one request; also one that was approved before, and the run then ends here."""
    site, kept = _at(arguments)
    request = kept.find(arguments.request)
    told = arguments.reason[:300] if arguments.tell else None
    signed = _sign(arguments, site, request, verdict="refuse", until=site.policy.expires, told=told)
    kept.refuse(
        request.asked, by="its data steward refused", reason=arguments.reason, told=told, signed=signed
    )
    woken = _wake(site, request, {"decision": "refuse", "signature": ""})
    print(f"refused {request.asked.id}" + ("; the waiting run ends" if woken else ""))
    return {"request": request.asked.id, "told": told is not None, "woken": woken}


def _at(arguments: argparse.Namespace) -> tuple[SiteDirectory, Requests]:
    site = open_site(arguments.home)
    site.demand_role("partner")
    return site, Requests(site.path / "requests")


def _until(text: str) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(text) + timedelta(days=1), datetime.min.time(), tzinfo=UTC)
    except ValueError:
        raise SettingsError("--until is no date, expected one like 2027-01-01") from None


def _sign(
    arguments: argparse.Namespace,
    site: SiteDirectory,
    request: Request,
    *,
    verdict: Verdict,
    until: datetime,
    told: str | None = None,
) -> SignedDecision:
    path = arguments.key or site.keys / STEWARD
    if not path.is_file():
        raise SettingsError(
            f"the steward's key is not at '{path}'", advice="name it with --key, or run this where it lies"
        )
    now, asked = datetime.now(UTC), request.asked
    decision = Decision(
        site=asked.site, request=asked.digest, verdict=verdict, at=now, until=until, told=told
    )
    signed = SignedDecision.make(decision, Identity(STEWARD, secret_file(path)))
    try:
        check_approval(
            SignedDecision.make(
                decision.model_copy(update={"verdict": "approve"}), Identity(STEWARD, secret_file(path))
            ),
            asked=asked,
            steward_key=site.settings.steward_key,
            now=now,
        )
    except AgreementViolation as exc:
        raise SettingsError(
            f"this decision would not count: {exc}", advice="use the steward's key and a later --until"
        ) from None
    return signed


def _wake(site: SiteDirectory, request: Request, given: dict[str, str]) -> bool:
    """Let the suspended flow run of a request go on, if one waits in this site's Prefect; its schedule would too."""
    waiting = site.path / "requests" / f"{request.asked.id}.flow-run"
    (prefect,) = (each for each in services.status(site.path) if each.name == "prefect")
    if prefect.state != "running" or not waiting.exists():
        return False
    address = f"{prefect.url}/api/flow_runs/{waiting.read_text()}/resume"
    asking = urllib.request.Request(  # noqa: S310 - our own loopback address
        address,
        data=json.dumps({"run_input": given}).encode(),
        headers={"content-type": "application/json"},
    )
    for _ in range(WAKING_TRIES):
        try:
            with urllib.request.urlopen(asking, timeout=30) as answer:  # noqa: S310 - our own loopback address
                return bool(json.loads(answer.read()).get("status") == "ACCEPT")
        except urllib.error.HTTPError as exc:
            exc.close()
            if exc.code != HTTPStatus.SERVICE_UNAVAILABLE:  # its SQLite file was held by another request
                return False
        except (OSError, ValueError):
            return False
    return False


def _print(request: Request) -> None:
    for heading, text in request.lines:
        print(f"{heading:<18} {text}")


def _row(site: SiteDirectory, kept: Requests, request: Request) -> list[str]:
    return [
        request.asked.id,
        request.data_set,
        ", ".join(request.asked.studies),
        f"{request.answer_by:%Y-%m-%d %H:%M}",
        _stands(site, kept, request),
    ]


def _stands(site: SiteDirectory, kept: Requests, request: Request) -> str:
    key, now = site.settings.steward_key, datetime.now(UTC)
    try:
        standing = kept.standing(request.asked, steward_key=key, now=now)
    except AgreementViolation as exc:
        return str(exc).partition(": ")[2]
    false = kept.n_set_aside(request.asked)
    return standing + (f", {false} false approvals set aside" if false else "")


def _as_json(site: SiteDirectory, kept: Requests, request: Request) -> dict[str, Any]:
    refusal = kept.refusal(request.asked)
    return {
        **request.model_dump(mode="json"),
        "request": request.asked.id,
        "stands": _stands(site, kept, request),
        "reason": (refusal or {}).get("reason"),
    }
