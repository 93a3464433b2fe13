"""One MLflow store for all tests of the stage, small networks, and a name of its own for each test."""

import itertools
import warnings

import pytest

from tasks.featurization import fingerprints, standardization
from tasks.local_training.parameters import initial_head, initial_trunk
from tasks.model_registration.bundle import DataOrigin, Validation, write_bundle
from tasks.tracking.runs import open_run
from tasks.tracking.store import open_store

HIDDEN = 8
ENDPOINTS = ("A1>=6.5", "A2>=5.5", "A3<=7")
SIMPLE_CARD = {"standardization": standardization.PROFILE, "fingerprint": fingerprints.FINGERPRINT}
REAL, SIMULATED = DataOrigin(synthetic=False), DataOrigin(synthetic=True)
counter = itertools.count()


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def store(home):
    opened = open_store(home)
    yield opened
    opened.client._tracking_client.store.engine.dispose()


@pytest.fixture(scope="session")
def load_pyfunc():
    """``mlflow.pyfunc.load_model``; its import warns about MLflow's own type hints."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        import mlflow.pyfunc
    return mlflow.pyfunc.load_model


@pytest.fixture
def partner():
    """A partner that no other test knows."""
    return f"partner-{next(counter)}"


@pytest.fixture
def run(store, partner):
    return open_run(store, experiment=f"study/{partner}", run_id="run-1", party=partner)


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "bundle")


def validated(value, *, metric="auprc", basis="split-1"):
    return Validation(metric=metric, value=value, basis=basis)


def make_bundle(directory, *, seed=0, run_id="run-1", n_layers=1, kind="qsar", data=REAL, validation=None):
    write_bundle(
        directory,
        run_id=run_id,
        trunk=initial_trunk(HIDDEN, seed=seed, n_layers=n_layers),
        head=initial_head(len(ENDPOINTS), HIDDEN, seed=seed + 1) if kind == "qsar" else None,
        endpoints=ENDPOINTS if kind == "qsar" else (),
        data=data,
        validation=validation,
    )
    return directory
