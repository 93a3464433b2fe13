"""Prefect's server with a calmer background worker."""

import functools

from prefect.server.api import background_workers

from flows import prefect_server


def test_the_background_worker_that_prefect_makes_looks_every_few_seconds(monkeypatch):
    worker = background_workers.Worker
    monkeypatch.setattr(background_workers, "Worker", worker)  # as it was, after the test
    monkeypatch.setattr(prefect_server, "create_prefect", lambda: background_workers.Worker)
    made = prefect_server.create_app()
    assert isinstance(made, functools.partial)
    assert made.func is worker
    calm = made(docket=None)
    assert calm.minimum_check_interval == calm.scheduling_resolution == prefect_server.LOOK_EVERY


def test_a_prefect_without_such_a_worker_serves_as_it_is(monkeypatch):
    monkeypatch.delattr(background_workers, "Worker")
    monkeypatch.setattr(prefect_server, "create_prefect", lambda: "the server")
    assert prefect_server.create_app() == "the server"
    assert not hasattr(background_workers, "Worker")
