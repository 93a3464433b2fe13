"""Prefect's server with calmer loops."""

import functools

import pytest
from prefect.server.api import background_workers, server

from flows import prefect_server

MADE = ((background_workers, "Worker"), (server, "Docket"))


@pytest.fixture
def as_prefect_left_it(monkeypatch):
    """What Prefect makes, put back after the test."""
    for module, name in MADE:
        monkeypatch.setattr(module, name, getattr(module, name))
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
