"""Prefect's server with calmer loops."""

import asyncio
import functools
import threading

import pytest
import uvicorn
from burner_redis import BurnerRedis
from burner_redis.pubsub import PubSub
from prefect.server.api import background_workers, server

from flows import prefect_server

MADE = ((background_workers, "Worker"), (server, "Docket"))


@pytest.fixture
def as_prefect_left_it(monkeypatch):
    """What Prefect makes, put back after the test."""
    for module, name in MADE:
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(PubSub, "_queue_get", PubSub._queue_get)
    monkeypatch.setattr(uvicorn.Server, "main_loop", uvicorn.Server.main_loop)
    monkeypatch.setattr(server, "create_app", lambda: "the server")
    return monkeypatch


@pytest.mark.usefixtures("as_prefect_left_it")
def test_what_prefect_makes_looks_and_beats_every_few_seconds():
    was = [getattr(module, name) for module, name in MADE]
    assert prefect_server.create_app() == "the server"
    worker, docket = (getattr(module, name) for module, name in MADE)
    assert all(isinstance(made, functools.partial) for made in (worker, docket))
    assert [made.func for made in (worker, docket)] == was
    assert docket(name="a", url="memory://a").heartbeat_interval == prefect_server.BEAT_EVERY
    calm = worker(docket=None)
    paces = (calm.minimum_check_interval, calm.scheduling_resolution)
    assert paces == (prefect_server.CHECK_EVERY, prefect_server.LOOK_EVERY)


def test_a_prefect_that_makes_no_such_things_serves_as_it_is(as_prefect_left_it):
    for module, name in MADE:
        as_prefect_left_it.delattr(module, name)
    assert prefect_server.create_app() == "the server"
    assert not any(hasattr(module, name) for module, name in MADE)


@pytest.mark.usefixtures("as_prefect_left_it")
def test_a_cancellation_is_heard_within_the_pace_and_no_thread_waits_for_it(monkeypatch):
    monkeypatch.setattr(prefect_server, "LISTEN_EVERY_SECONDS", 0.05)
    prefect_server.create_app()

    async def listen():
        redis = BurnerRedis()
        heard = redis.pubsub()
        await heard.psubscribe("cancel:*")
        confirmed = await heard.get_message(timeout=None)
        assert await heard.get_message(timeout=0.1) is None
        assert await heard.get_message() is None
        before = threading.active_count()
        waiting = asyncio.create_task(heard.get_message(timeout=20))
        await asyncio.sleep(0.1)
        during = threading.active_count()
        await redis.publish("cancel:it", "now")
        message = await waiting
        await heard.aclose()
        return confirmed["type"], message["type"], message["data"], during - before

    assert asyncio.run(listen()) == ("psubscribe", "pmessage", b"now", 0)


@pytest.mark.usefixtures("as_prefect_left_it")
def test_another_queue_of_prefects_stays_as_it_is(monkeypatch):
    monkeypatch.delattr(PubSub, "_queue_get")
    assert prefect_server.create_app() == "the server"
    assert not hasattr(PubSub, "_queue_get")


@pytest.mark.usefixtures("as_prefect_left_it")
def test_a_server_that_ticks_slowly_dates_its_answers_and_ends_when_it_shall(monkeypatch):
    monkeypatch.setattr(prefect_server, "TICK_EVERY_SECONDS", 0.05)
    prefect_server.create_app()

    async def serve():
        serving = uvicorn.Server(uvicorn.Config(app=None, log_level="warning"))
        ticking = asyncio.create_task(serving.main_loop())
        await asyncio.sleep(0.1)
        assert not ticking.done()
        serving.should_exit = True
        await asyncio.wait_for(ticking, 20)
        return dict(serving.server_state.default_headers)

    assert b"GMT" in asyncio.run(serve())[b"date"]
