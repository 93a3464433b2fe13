"""What a site's Prefect does by itself: it marks dead runs, and tells somebody when a run fails or stands still.

Why: a run whose process was killed would stay *Running* for ever, and nobody watches a page for days. Installed by the
process that `motet up` starts, as often as one likes. Runs: on every site with a Prefect.
Source: own measurements; background/prefect_mlflow.md §3.
"""

from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events import AutomationCore, EventTrigger, Posture
from prefect.events.actions import ActionTypes, ChangeFlowRunState, DoNothing, SendNotification
from prefect.exceptions import ObjectNotFound

from data_contracts.errors import SettingsError
from flows.prefect_environment import HEARTBEAT_SECONDS

ROUND_COMPLETED, RUN_STARTED, RUN_ENDED = "motet.round.completed", "motet.run.started", "motet.run.ended"
LOST_HEARTBEATS = 3  # fewer, and a run that is merely busy would be crashed
ROUND_SECONDS = 6 * 3600.0
DEAD, FAILED, SILENT = "motet: a run is dead", "motet: a run failed", "motet: no round for too long"
HEARTBEAT = "prefect.flow-run.heartbeat"
# After any of these a run owes no heartbeat: it has ended, or waits for a person.
OWES_NO_HEARTBEAT = tuple(
    f"prefect.flow-run.{state}"
    for state in ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")
)


def automations(
    *, heartbeat_seconds: float, round_seconds: float, tell: ActionTypes
) -> tuple[AutomationCore, ...]:
    """The automations of a site.

    Args:
        heartbeat_seconds: How often a run says that it lives.
        round_seconds: How long may pass between two rounds.
        tell: How a person is told.
    """
    every_run = {"prefect.resource.id": "prefect.flow-run.*"}
    return (
        AutomationCore(
            name=DEAD,
            description=f"A run without a heartbeat for {LOST_HEARTBEATS} intervals is marked as crashed; a waiting one never.",
            trigger=EventTrigger(
                after={HEARTBEAT},
                expect={HEARTBEAT, *OWES_NO_HEARTBEAT},
                match=every_run,
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=LOST_HEARTBEATS * heartbeat_seconds * 1.1),
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.CRASHED,
                    message="no heartbeat: its process is gone; run it again, it resumes",
                )
            ],
        ),
        AutomationCore(
            name=FAILED,
            description="A run that failed or crashed is told to the site's notification block, if one is named in site.json.",
            trigger=EventTrigger(
                expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
                match=every_run,
                for_each={"prefect.resource.id"},
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[tell],
        ),
        AutomationCore(
            name=SILENT,
            description="A run that has started and ends no round for too long is told likewise; the event stands in any case.",
            trigger=EventTrigger(
                after={RUN_STARTED, ROUND_COMPLETED},
                expect={ROUND_COMPLETED, RUN_ENDED},
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=round_seconds),
            ),
            actions=[tell],
        ),
    )


def install(
    *,
    notification_block: str | None = None,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    round_seconds: float = ROUND_SECONDS,
) -> list[str]:
    """Install the automations, or bring those of the same name up to date.

    Args:
        notification_block: ``type/name`` of a block in this site's Prefect; None tells nobody.
        heartbeat_seconds: How often a run says that it lives.
        round_seconds: How long may pass between two rounds.

    Returns:
        Names of those that were installed or changed.

    Raises:
        SettingsError: If there is no such block.
    """
    changed = []
    with get_client(sync_client=True) as client:
        tell = _telling(client, notification_block)
        for wanted in automations(
            heartbeat_seconds=heartbeat_seconds, round_seconds=round_seconds, tell=tell
        ):
            found = client.read_automations_by_name(wanted.name)
            for double in found[1:]:
                client.delete_automation(double.id)
            if not found:
                client.create_automation(wanted)
            elif _content(found[0]) != _content(wanted):
                client.update_automation(found[0].id, wanted)
            else:
                continue
            changed.append(wanted.name)
    return changed


def _content(automation: AutomationCore) -> dict[str, object]:
    """What is compared; a person's own switch stays as it is, and ids differ."""
    content = automation.model_dump(include={"description", "trigger", "actions"})
    for name in ("id", "resource_template"):
        content["trigger"].pop(name, None)
    return content


def _telling(client: SyncPrefectClient, block: str | None) -> ActionTypes:
    if block is None:
        return DoNothing()
    kind, _, name = block.partition("/")
    try:
        document = client.read_block_document_by_name(name, kind)
    except ObjectNotFound:
        raise SettingsError(
            f"this site's Prefect has no notification block '{block}'",
            advice="make it on the page Blocks, or take `notification_block` out of site.json",
        ) from None
    return SendNotification(
        block_document_id=document.id,
        subject="motet: {{ event.resource.name }}",
        body="{{ automation.name }}: {{ event.event }} at {{ event.occurred }}",
    )
