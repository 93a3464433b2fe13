"""Which tests begin first: those that start whole sites, so that no worker is left alone with one at the end."""

from pathlib import Path

import pytest

ROOMS_OF_WHOLE_SITES = ("sites", "end_to_end", "services")


@pytest.hookimpl(trylast=True)  # after the tests were shuffled; their order within a file stays
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: Path(item.path).parent.name not in ROOMS_OF_WHOLE_SITES)
