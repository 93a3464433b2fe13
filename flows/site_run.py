"""A run among separate sites: the coordinator's flow and a partner's, each against its own Prefect and MLflow.

Why: the stories are those of the consortium on one machine; here each party has its own directory, and between
them nothing but the mailbox. Runs: ``coordinate`` on the coordinator, ``participate`` on a partner. Source: own.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from data_contracts.canonical_json import canonical_bytes, digest_of
from data_contracts.envelope import Kind
from data_contracts.errors import AgreementViolation, Equivocation, ProtocolError, SettingsError
from data_contracts.plan import RoundPlan
from flows.causes import named_cause
from flows.cluster import executor_of
from flows.consent import Elsewhere, answer_run, await_answers, demand_approval
from flows.enrolment import await_acceptance, join_consortium
from flows.federated_training import Coordinator, lead
from flows.finishing import RunFacts, finish_coordinator, finish_partner, track, track_rounds
from flows.leadership import claim_run
from flows.partner import take_part
from flows.partner_work import Partner
from flows.run_directory import RunDirectory, create_run, list_runs
from flows.run_keys import share_run_key
from flows.run_page import RunPage, kept_up_to_date
from flows.run_tables import own_figures
from flows.settings import RunSettings
from flows.site_directory import ROSTER_RUN, SiteDirectory, visit_site
from flows.site_settings import RunOpening, check_plan, read_opening
from flows.training_children import training_children
from tasks.exchange.board import Board
from tasks.exchange.durable_files import create_once
from tasks.featurization.preparation import PartnerFiles
from tasks.rounds.partner import next_plan
from tasks.rounds.patience import Patience

STUDY = "study.json"
REFUSED = "refused"


def prepare_run(
    home: SiteDirectory,
    settings: RunSettings,
    *,
    run_id: str | None,
    simulated_assays: bool,
    listed: Sequence[str],
    now: datetime,
) -> RunDirectory:
    """Make the directory of a run that this coordinator will lead, or find it again.

    Args:
        home: The coordinator's site.
        settings: What the run computes; ``data`` names the data set.
        run_id: Name of the run; None makes one.
        simulated_assays: Whether the data set's activities are invented.
        listed: Endpoints that the agreement offers for the catalogue.
        now: The time.

    Raises:
        SettingsError: If the site is no coordinator, or a run of that name exists with other settings.
    """
    home.demand_role("coordinator")
    run = create_run(home.path, settings=settings, now=now, run_id=run_id)
    home.keep_roster_of(run.run_id, home.roster)
    study = {"simulated_assays": simulated_assays, "listed": sorted(set(listed))}
    if not create_once(run.path / STUDY, [canonical_bytes(study)]) and _study(run) != study:
        raise SettingsError(
            f"run '{run.run_id}' exists with another catalogue or data set",
            advice="choose another --run-id, or repeat its arguments",
        )
    return run


def _study(run: RunDirectory) -> dict[str, Any]:
    return dict(json.loads((run.path / STUDY).read_bytes()))


def _run_name() -> str:
    return flow_run.parameters.get("run_id") or "the next run"


@flow(name="coordinator", flow_run_name=_run_name, persist_result=False)
async def coordinate(site: str, run_id: str | None = None) -> dict[str, Any]:
    """Lead a run that ``prepare_run`` made; an interrupted run resumes.

    Args:
        site: The coordinator's directory.
        run_id: The run; None takes the newest that is unfinished.

    Returns:
        The consortium's result.
    """
    with visit_site(site) as home:
        home.demand_role("coordinator")
        run = home.run(run_id) if run_id else unfinished_run(home)
        with run.held():
            return run.result or await _lead(home, run)


def unfinished_run(home: SiteDirectory) -> RunDirectory:
    """The newest run of a coordinator that stopped before its end and that nobody works on.

    Raises:
        SettingsError: If there is none.
    """
    for run in reversed(list_runs(home.path)):
        if run.result is None and not run.is_held and not (run.path / REFUSED).exists():
            return run
    raise SettingsError(
        f"'{home.name}' has no unfinished run", advice="start one: motet lead --data-set NAME --run-id RUN"
    )


async def _lead(home: SiteDirectory, run: RunDirectory) -> dict[str, Any]:
    home.demand_in_force(run.run_id, now=datetime.now(UTC))
    await await_acceptance(home)
    board = home.board(run.run_id)
    study = _study(run)
    facts = RunFacts(run=run, data=run.settings.data, simulated_assays=study["simulated_assays"])
    opening = RunOpening(
        roster=home.roster_of(run.run_id).digest,
        simulated_assays=facts.simulated_assays,
        n_listed=len(study["listed"]),
        settings=run.settings,
    )
    share_run_key(board, key=home.run_key(run.run_id), roster=home.roster)
    claim_run(home, board)
    board.post_json(Kind.RUN_OPENED, opening.model_dump(mode="json"))
    async with kept_up_to_date(RunPage(board, own=False, run=run.path)):
        try:
            await await_answers(home, board, opening)
        except AgreementViolation:
            create_once(run.path / REFUSED, [b""])  # nobody takes it up again
            raise
        report = await track_rounds(facts)
        coordinator = Coordinator(
            board=board,
            settings=run.settings,
            listed=tuple(study["listed"]),
            report=report,
            earlier=home.earlier,
        )
        trained = await lead(coordinator)
    return await finish_coordinator(
        facts,
        home.in_run(run.run_id),
        trained,
        report=report,
        blobs=board.mailbox.blobs,
        models={},
        earlier=home.earlier,
    )


@flow(name="partner", flow_run_name=_run_name, persist_result=False)
async def participate(site: str, run_id: str | None = None, dask: str | None = None) -> dict[str, Any]:
    """Take part in a run; an interrupted run resumes.

    Args:
        site: The partner's directory.
        run_id: The run; None takes the next one that the coordinator opens.
        dask: Scheduler of a Dask cluster to featurize on, or ``local``; None for what ``site.json`` says.

    Returns:
        The partner's own result.
    """
    with visit_site(site) as home:
        home.demand_role("partner")
        await join_consortium(home)
        chosen = run_id or await next_run(home)
        with refusals_on_record(home, chosen):
            try:
                return await _participate(home, chosen, dask=dask)
            except Elsewhere:
                return {"run_id": chosen, "waits_for": "the data steward, on the page of another flow run"}


async def _participate(home: SiteDirectory, chosen: str, *, dask: str | None) -> dict[str, Any]:
    home.demand_in_force(chosen, now=datetime.now(UTC))
    board = home.board(chosen)
    opening = await _opening(home, board)
    async with kept_up_to_date(RunPage(board, own=True, run=home.run(chosen).path)) as page:
        await answer_run(home, board, opening)
        first = await next_plan(board, 0, patience=Patience(home.settings.answer_seconds))
        if first is None and home.run(chosen).result is None:
            raise ProtocolError(
                f"'{board.roster.coordinator}' closed run '{chosen}' before its first round",
                advice="another partner may have refused it; wait for the next run",
            )
        if first is not None:
            gate(home, board, opening)(first)
        run = create_run(home.path, settings=opening.settings, now=datetime.now(UTC), run_id=chosen)
        home.keep_roster_of(chosen, home.roster_of(chosen))
        with run.held():
            result = run.result or await _work(home, run, board, opening, dask=dask)
        page.figures |= own_figures(result["uplift"])
        return result


async def _work(
    home: SiteDirectory, run: RunDirectory, board: Board, opening: RunOpening, *, dask: str | None
) -> dict[str, Any]:
    site, files = home.in_run(run.run_id), home.settings.files
    assert files is not None  # noqa: S101 - a partner has them
    simulated = opening.simulated_assays or home.settings.simulated_assays
    facts = RunFacts(run=run, data=opening.settings.data, simulated_assays=simulated)
    tracked = await track(facts, experiment="qsar-training", party=home.name)
    async with training_children(home.settings.machine) as run_job:
        outcome = await take_part(
            Partner(
                site=site,
                board=board,
                files=PartnerFiles(**files.model_dump()),
                rules=opening.settings.rules,
                run_job=run_job,
                executor=executor_of(dask or home.settings.dask),
                accept=gate(home, board, opening),
                local_trunk=home.settings.local_trunk,
                earlier=home.earlier,
                baselines=opening.settings.baselines,
            )
        )
    version, uplift = await finish_partner(facts, site, outcome, tracked=tracked, earlier=home.earlier)
    result = {
        "run_id": run.run_id,
        "best_round": outcome.best_round,
        "trunk_sha256": outcome.arms["federated"].trunk.name,
        "model": None if version is None else version.uri,
        "uplift": uplift,
    }
    run.write_result(result)
    return result


async def next_run(home: SiteDirectory) -> str:
    """Wait for a run that the coordinator has opened and that this site has neither finished nor refused.

    Raises:
        ProtocolError: If none is opened in time.
    """
    mailbox = home.mailbox(copies=home.path / "received")
    patience = Patience(home.settings.patience_seconds, first_look_seconds=0.2, last_look_seconds=5.0)

    def look() -> str | None:
        return next((name for name in mailbox.runs() if _is_open(home, name)), None)

    found = await patience.until(look)
    if found is None:
        raise ProtocolError(
            f"'{home.roster.roster.coordinator}' opened no run within {patience.deadline_seconds:g} s",
            advice="ask the coordinator to run `motet lead`, then run again",
        )
    return found


def _is_open(home: SiteDirectory, run_id: str) -> bool:
    if run_id.startswith(ROSTER_RUN) or home.run(run_id).result is not None:
        return False
    if any((home.path / "refusals" / run_id).glob(f"{AgreementViolation.__name__}-*")):
        return False
    board = home.open_board(run_id)  # a run of an earlier roster has a key that this site was never given
    coordinator = board.roster.coordinator
    started = (
        home.run(run_id).path / "run.json"
    ).exists()  # then it is finished here even if the others have closed it
    return board.was_said(Kind.RUN_OPENED, coordinator) and (
        started or not board.was_said(Kind.RUN_CLOSED, coordinator)
    )


async def _opening(home: SiteDirectory, board: Board) -> RunOpening:
    coordinator = board.roster.coordinator
    patience = Patience(home.settings.patience_seconds)
    message = await patience.until(lambda: board.read(Kind.RUN_OPENED, coordinator))
    if message is None:
        raise ProtocolError(
            f"'{coordinator}' has not opened run '{board.run_id}' within {patience.deadline_seconds:g} s",
            advice="check the run's name with the coordinator, then run again",
        )
    message.json()  # canonical, or refused
    return read_opening(bytes(message.body), who=coordinator)


def gate(home: SiteDirectory, board: Board, opening: RunOpening) -> Callable[[RoundPlan], None]:
    """What sets every plan against the policy as it stands then; a refusal is said to all."""

    def accept(plan: RoundPlan) -> None:
        try:
            check_plan(
                plan,
                opening=opening,
                policy=home.policy,
                roster=home.roster_of(board.run_id).digest,
                who=home.name,
                now=datetime.now(UTC),
            )
            demand_approval(home, board, opening)
        except AgreementViolation as exc:
            with suppress(Equivocation):  # it has refused this plan before, for another reason
                board.post_json(Kind.REFUSAL, {"reason": str(exc)}, plan=plan)
            raise

    return accept


@contextmanager
def refusals_on_record(home: SiteDirectory, run_id: str) -> Iterator[None]:
    """Keep what this site refused, and why, under ``refusals/<run>``."""
    try:
        yield
    except Exception as exc:
        cause = named_cause(exc)
        if isinstance(cause, AgreementViolation | ProtocolError):
            record = {"run_id": run_id, "error": type(cause).__name__, "message": str(cause)}
            name = f"{record['error']}-{digest_of(record)[:16]}.json"
            create_once(home.path / "refusals" / run_id / name, [canonical_bytes(record)])
        raise
