"""One MLflow store, made once; each test gets a copy (the schema costs seconds)."""

import shutil

import pytest

from tasks.tracking.store import open_store


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    open_store(home).client._tracking_client.store.engine.dispose()
    return home


@pytest.fixture
def store(empty_home, tmp_path):
    shutil.copytree(empty_home / "mlflow", tmp_path / "mlflow")
    opened = open_store(tmp_path)
    yield opened
    opened.client._tracking_client.store.engine.dispose()
