"""What a site's Prefect does by itself, on a server of its own: real events, real rules, short intervals."""

import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.error
from datetime import UTC, datetime, timedelta

import pytest

from flows import prefect_environment, processes, services
from flows.automations import DEAD, FAILED, LOST_HEARTBEATS, OWES_NO_HEARTBEAT, ROUND_SECONDS, SILENT
from flows.prefect_environment import HEARTBEAT_SECONDS, client_environment
from tests.services import test_services

pytestmark = pytest.mark.timeout(400)
SHORT = {"heartbeat_seconds": 12.0, "round_seconds": 10.0}
PATIENCE_SECONDS = 150

PROGRAM = """
import json, sys, time
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.events import emit_event
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.events.worker import EventsWorker
from flows.automations import HEARTBEAT, RUN_STARTED, install
from flows.reporting import run_resource

given = json.loads(sys.argv[1])
CustomWebhookNotificationBlock(
    name="steward", url=given["steward"], json_data={"subject": "{{subject}}", "body": "{{body}}"}
).save("steward")
told = {"installed": [install(**given["short"]) for _ in range(2)]}

@flow
def work():
    pass

with get_client(sync_client=True) as client:
    flow_id = client.create_flow(work)
    runs = {}
    for name in ("dead", "waiting"):
        run = client.create_flow_run(work, name=name)
        runs[name] = str(run.id)
        client.set_flow_run_state(run.id, State(type=StateType.RUNNING), force=True)
        emit_event(HEARTBEAT, resource={"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": name})
    EventsWorker.drain_all(timeout=60)  # as a run does before it waits
    # Sent is not yet read: a busy server would see the suspension before the heartbeat, and wait for the next one.
    said = EventFilter(event=EventNameFilter(name=[HEARTBEAT]))
    while len(client.request("POST", "/events/filter", json={"filter": said.model_dump(mode="json")}).json()["events"]) < 2:
        time.sleep(0.2)
    client.set_flow_run_state(runs["waiting"], State(type=StateType.PAUSED, name="Suspended"), force=True)
    emit_event(RUN_STARTED, resource=run_resource("still"))
EventsWorker.drain_all(timeout=60)
print(json.dumps(told | {"runs": runs}))
"""


def ask(url, body=None):
    for _ in range(20):
        try:
            return test_services.ask(url, None if body is None else json.dumps(body).encode())
        except urllib.error.HTTPError as exc:
            with exc:
                if exc.code != 503:
                    raise
    raise AssertionError(url)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Prefect server such as `motet up` starts, with nothing beside it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "SERVICES", ("prefect",))
        patch.setitem(prefect_environment._CALM, "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY", "PT2S")
        (service,) = services.up(home, prefect_port=processes.free_port()).services
        yield home, f"{service.url}/api"
        services.down(home)


@pytest.fixture(scope="module")
def steward():
    """Where a site's people are told: a service that takes what a webhook sends, and what it has got."""
    got = []

    class Inbox(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Inbox) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{service.server_port}/", got
        service.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def happened(server, steward):
    """Two runs that said once that they live, of which one waits for a person; a run without a round."""
    home, api = server
    given = {"steward": steward[0], "short": SHORT | {"notification_block": "custom-webhook/steward"}}
    port = int(api.split(":")[2].split("/")[0])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(given)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **client_environment(home, port=port)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def wait_for(look):
    """Ask until something is found."""
    deadline = datetime.now(UTC) + timedelta(seconds=PATIENCE_SECONDS)
    while not (found := look()):
        assert datetime.now(UTC) < deadline
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run(["tail", "-f", "/dev/null"], timeout=0.5, check=False)
    return found


def triggered(api, name):
    """Events that say that an automation has acted."""
    found = ask(f"{api}/events/filter", {"filter": {"event": {"prefix": ["prefect.automation.triggered"]}}})
    return [event for event in found["events"] if event["resource"].get("prefect.resource.name") == name]


def test_they_are_installed_once_whatever_is_repeated(server, happened):
    assert happened["installed"] == [[DEAD, FAILED, SILENT], []]
    found = ask(f"{server[1]}/automations/filter", {})
    assert sorted(each["name"] for each in found) == sorted((DEAD, FAILED, SILENT))


def test_a_run_without_a_heartbeat_is_crashed_and_one_that_waits_for_a_person_never(server, happened):
    _, api = server
    runs = happened["runs"]
    state = wait_for(
        lambda: (found := ask(f"{api}/flow_runs/{runs['dead']}")["state"])["name"] == "Crashed" and found
    )
    assert "no heartbeat" in state["message"]
    # Both said that they live at the same time, so the other's time has passed as well.
    fired = wait_for(lambda: triggered(api, DEAD))
    assert {event["payload"]["triggering_labels"]["prefect.resource.id"] for event in fired} == {
        f"prefect.flow-run.{runs['dead']}"
    }
    assert ask(f"{api}/flow_runs/{runs['waiting']}")["state"]["name"] == "Suspended"


@pytest.mark.usefixtures("happened")
def test_a_crashed_run_and_a_run_without_a_round_are_told(server, steward):
    _, api = server
    assert wait_for(lambda: triggered(api, FAILED))
    assert wait_for(lambda: triggered(api, SILENT))
    _, got = steward
    told = wait_for(lambda: len(found := {each["subject"]: each["body"] for each in got}) == 2 and found)
    assert told["motet: dead"].startswith(f"{FAILED}: prefect.flow-run.Crashed at ")
    assert told["motet: still"].startswith(f"{SILENT}: ")


def test_the_intervals_are_those_of_a_site():
    from prefect.events.actions import DoNothing

    from flows.automations import automations

    dead, _, silent = automations(
        heartbeat_seconds=HEARTBEAT_SECONDS, round_seconds=ROUND_SECONDS, tell=DoNothing()
    )
    assert dead.trigger.within >= timedelta(seconds=LOST_HEARTBEATS * HEARTBEAT_SECONDS)
    assert client_environment(services.Path("/x"), port=1)["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(
        HEARTBEAT_SECONDS
    )
    assert (
        {"prefect.flow-run.Suspended", "prefect.flow-run.Paused"}
        <= set(OWES_NO_HEARTBEAT)
        <= set(dead.trigger.expect)
    )
    assert silent.trigger.within == timedelta(hours=6)
