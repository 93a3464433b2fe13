"""A consortium on separate hosts: five directories, five processes, and nothing between them but HTTPS on loopback."""

import pytest

from tasks.simulation.assays import AssaySettings
from tasks.simulation.embedded import EmbeddedSettings, build_embedded_dataset
from tests.sites.hosts import Hosts, on_one_machine


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Three small simulated companies."""
    settings = EmbeddedSettings(
        max_structures=900, assays=AssaySettings(n_assays=5, n_families=2, median_size=700)
    )
    return build_embedded_dataset(tmp_path_factory.mktemp("data"), partners=3, seed=7, settings=settings)


@pytest.fixture(scope="session")
def reference(dataset, tmp_path_factory):
    """The same run with everybody on one machine: its result and its secrets."""
    return on_one_machine(dataset, tmp_path_factory.mktemp("one-machine"))


@pytest.fixture(scope="session")
def make_hosts(tmp_path_factory):
    """Makes hosts whose processes end with the tests."""
    made = []

    def make():
        made.append(Hosts(tmp_path_factory.mktemp("hosts")))
        return made[-1]

    yield make
    for hosts in made:
        hosts.end()
