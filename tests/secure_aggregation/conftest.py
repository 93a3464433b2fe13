import pytest

from tests.secure_aggregation.consortium import COUNT, Consortium


@pytest.fixture
def five() -> Consortium:
    return Consortium(5, 4, (COUNT,))
