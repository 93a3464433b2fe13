"""One small embedded dataset and its control, built once."""

import pytest

from tasks.simulation.assays import AssaySettings
from tasks.simulation.embedded import EmbeddedSettings, build_embedded_dataset

SMALL = EmbeddedSettings(max_structures=1500, assays=AssaySettings(n_assays=12, median_size=700))
PARTNERS, SEED = 3, 5


@pytest.fixture(scope="session")
def datasets(tmp_path_factory):
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="session")
def embedded(datasets):
    return build_embedded_dataset(datasets, partners=PARTNERS, seed=SEED, settings=SMALL)


@pytest.fixture(scope="session")
def control(datasets):
    return build_embedded_dataset(datasets, partners=PARTNERS, seed=SEED, permuted=True, settings=SMALL)
