"""The same in a partner's Prefect: a served flow suspends itself, and neither page nor click grants anything."""

import asyncio
import contextlib
import json
import urllib.error

import pytest

from data_contracts.envelope import Kind
from flows import processes, services
from flows.enrolment import join_consortium
from tests.services import test_services
from tests.sites import places as made
from tests.sites.places import PARTNERS
from tests.sites.test_approval import ASKED, WHY, Site, ask_steward
from tests.sites.test_hostile_coordinator import HUGE, HostileCoordinator

pytestmark = pytest.mark.timeout(400)
PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    everybody = made.make_all(tmp_path_factory.mktemp("sites"))
    made.enrolled(everybody).serve()
    for name in PARTNERS:
        asyncio.run(join_consortium(everybody.site(name)))
    ask_steward(everybody)
    yield everybody
    everybody.close()


@pytest.fixture(scope="module")
def prefect(places):
    """The partner's own Prefect, serving its deployment; without MLflow, which nothing here reaches."""
    home = places.site(ASKED).path
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "SERVICES", ("prefect", "serve"))
        started = services.up(home, prefect_port=processes.free_port())
        yield Prefect(started.services[0].url)
        services.down(home)


def ask(url, body=None):
    """Ask a server whose SQLite file answers 503 while another request holds it."""
    for _ in range(20):
        try:
            return test_services.ask(url, body)
        except urllib.error.HTTPError as exc:
            with exc:
                if exc.code != 503:
                    raise
    raise AssertionError(url)


class Prefect:
    """A Prefect server as its interface asks it."""

    def __init__(self, url):
        self.api = f"{url}/api"
        self.deployment = ask(f"{self.api}/deployments/name/partner/site")["id"]

    def start(self, run_id):
        body = json.dumps({"parameters": {"run_id": run_id}}).encode()
        return ask(f"{self.api}/deployments/{self.deployment}/create_flow_run", body)["id"]

    def state(self, flow_run):
        return ask(f"{self.api}/flow_runs/{flow_run}")["state"]

    def reach(self, flow_run, *names, after=None):
        """Wait for a state; one that was there before does not count."""

        async def wait():
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    state = await asyncio.to_thread(self.state, flow_run)
                    if state["name"] in names and state["id"] != after:
                        return state
                    assert state["type"] not in {"CRASHED", "COMPLETED", "FAILED"} - {
                        name.upper() for name in names
                    }, state
                    await asyncio.sleep(0.3)

        return asyncio.run(wait())

    def cancel(self, flow_run):
        body = json.dumps({"state": {"type": "CANCELLED"}, "force": True}).encode()
        ask(f"{self.api}/flow_runs/{flow_run}/set_state", body)

    def resume(self, flow_run, **given):
        body = json.dumps({"run_input": given}).encode()
        return ask(f"{self.api}/flow_runs/{flow_run}/resume", body)["status"]

    def suspended(self, flow_run, *, after=None):
        """Wait until a flow run is suspended and its form is there; the state, and the form's head."""
        state = self.reach(flow_run, "Suspended", after=after)
        keyset = state["state_details"]["run_input_keyset"]

        async def wait():
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    with contextlib.suppress(urllib.error.HTTPError):
                        return await asyncio.to_thread(
                            ask, f"{self.api}/flow_runs/{flow_run}/input/{keyset['description']}"
                        )
                    await asyncio.sleep(0.3)

        return state, asyncio.run(wait())


def opened(places, run_id):
    """A run that a coordinator has opened, with a first plan that the policy does not grant, so that it ends there."""
    coordinator = HostileCoordinator(places, run_id=run_id)
    coordinator.open_run()
    coordinator.post(coordinator.plan(model_in=HUGE))
    return Site(places, run_id=run_id)


def test_a_click_grants_nothing_and_a_pasted_signature_does(places, prefect):
    site = opened(places, "by-form")
    flow_run = prefect.start("by-form")
    waits, form = prefect.suspended(flow_run)
    assert "may this run use our data?" in form
    assert site.asked.digest in form
    another = prefect.start("by-form")  # as the schedule does every ten minutes
    prefect.reach(another, "Completed")
    assert prefect.resume(flow_run, decision="approve", signature="") == "ACCEPT"
    prefect.suspended(flow_run, after=waits["id"])
    assert site.said() is None
    assert site.requests.n_set_aside(site.asked) == 1
    token = site.command("approve", print=True)["token"]
    assert prefect.resume(flow_run, decision="approve", signature=token) == "ACCEPT"
    prefect.reach(
        flow_run, "Failed"
    )  # at the plan that its policy does not grant: the run was answered before
    assert site.said()["accepts"]
    assert "a model of 1099511627776 bytes" in json.dumps(prefect.state(flow_run))


def test_the_steward_at_a_terminal_wakes_the_suspended_run(places, prefect):
    site = opened(places, "by-command")
    flow_run = prefect.start("by-command")
    prefect.suspended(flow_run)
    assert site.command("approve")["woken"]
    prefect.reach(flow_run, "Failed")
    assert site.said()["accepts"]


def test_a_refusal_on_the_page_holds_without_a_signature(places, prefect):
    site = opened(places, "refused")
    lost = prefect.start("refused")
    prefect.suspended(lost)
    prefect.cancel(lost)
    flow_run = prefect.start("refused")  # takes the place of the one that is gone
    prefect.suspended(flow_run)
    assert prefect.resume(flow_run, decision="refuse", signature="") == "ACCEPT"
    prefect.reach(flow_run, "Failed")
    assert not site.said()["accepts"]
    assert WHY not in json.dumps(site.said())
    assert site.board.read(Kind.RUN_ANSWER, "partner-b") is None
