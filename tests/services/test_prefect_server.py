"""Prefect's server with calmer loops."""

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor

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


async def heard_of(redis):
    """What a listener hears of one cancellation that is sent while it waits."""
    listener = redis.pubsub()
    await listener.psubscribe("cancel:*")
    confirmed = await listener.get_message(timeout=None)
    assert await listener.get_message(timeout=0.1) is None
    assert await listener.get_message() is None
    waiting = asyncio.create_task(listener.get_message(timeout=20))
    await asyncio.sleep(0.1)
    await redis.publish("cancel:it", "now")
    message = await waiting
    await listener.aclose()
    return confirmed["type"], message["type"], message["data"]


class Counting(ThreadPoolExecutor):
    """The threads of a loop, and how often it sent one."""

    sent = 0

    def submit(self, *what, **named):
        """Count, then send."""
        self.sent += 1
        return super().submit(*what, **named)


@pytest.mark.usefixtures("as_prefect_left_it")
def test_a_cancellation_is_heard_within_the_pace_and_no_thread_waits_for_it(monkeypatch):
    monkeypatch.setattr(prefect_server, "LISTEN_EVERY_SECONDS", 0.05)

    async def threads_sent():
        asyncio.get_running_loop().set_default_executor(threads := Counting())
        assert await heard_of(BurnerRedis()) == ("psubscribe", "pmessage", b"now")
        return threads.sent

    assert asyncio.run(threads_sent()) > 0
    prefect_server.create_app()
    assert asyncio.run(threads_sent()) == 0


@pytest.mark.usefixtures("as_prefect_left_it")
def test_a_listener_with_another_queue_waits_as_it_did():
    prefect_server.create_app()

    class Another(PubSub):
        def __init__(self):
            """Hold no queue of that name."""

    with pytest.raises(AttributeError, match="_queue"):  # its own method's word, not an answer at once
        asyncio.run(Another()._queue_get(0.0))


@pytest.mark.usefixtures("as_prefect_left_it")
def test_another_prefects_listener_stays_as_it_is(monkeypatch):
    monkeypatch.delattr(PubSub, "_queue_get")
    assert prefect_server.create_app() == "the server"
    assert not hasattr(PubSub, "_queue_get")


def ticking():
    """A server that notes its ticks, and its loop beside requests."""
    ticks = asyncio.Queue()

    class Noting(uvicorn.Server):
        async def on_tick(self, counter):
            ticks.put_nowait(counter)
            return await super().on_tick(counter)

    serving = Noting(uvicorn.Config(app=None, log_level="warning"))
    return serving, asyncio.create_task(serving.main_loop()), ticks


@pytest.mark.usefixtures("as_prefect_left_it")
def test_a_server_ticks_at_its_own_pace():
    async def more_ticks_than(fewest):
        _, loop, ticks = ticking()
        for _ in range(fewest):
            await asyncio.wait_for(ticks.get(), 20)
        await asyncio.sleep(0.3)
        loop.cancel()
        return ticks.qsize()

    asyncio.run(more_ticks_than(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefect_server, "TICK_EVERY_SECONDS", 300.0)
        prefect_server.create_app()
        assert asyncio.run(more_ticks_than(1)) == 0


@pytest.mark.usefixtures("as_prefect_left_it")
def test_a_calm_server_dates_its_answers_and_ends_when_it_shall(monkeypatch):
    monkeypatch.setattr(prefect_server, "TICK_EVERY_SECONDS", 0.05)
    prefect_server.create_app()

    async def serve():
        serving, loop, ticks = ticking()
        await asyncio.wait_for(ticks.get(), 20)
        assert not loop.done()
        serving.should_exit = True
        await asyncio.wait_for(loop, 20)
        return dict(serving.server_state.default_headers)

    assert b"GMT" in asyncio.run(serve())[b"date"]
