"""The threat model says what is true: its tests exist, its bounds are those of the code."""

import re
from pathlib import Path

import pytest

from tasks.rounds.retention import VECTOR_BUDGET_BYTES
from tasks.secure_aggregation.graph import (
    COMPLETE_UP_TO,
    DROPOUT_FRACTION,
    GRINDING_BITS,
    LIVENESS_BITS,
    SECURITY_BITS,
    ring_parameters,
)
from tasks.secure_aggregation.protocol import MIN_SURVIVORS, Attempt
from tests.secure_aggregation.consortium import COUNT, Consortium

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text()
ROW = re.compile(r"^\| " + r"(\d+) \| " * 3 + r"(\d+)(?: \| (\d+))? \|$", re.MULTILINE)
ROWS = [tuple(int(cell) for cell in row if cell) for row in ROW.findall(PAGE)]
COMPLETE = [row for row in ROWS if len(row) == 4]
RINGS = [row for row in ROWS if len(row) == 5]


def test_every_test_that_the_page_names_exists():
    sources = [
        path.read_text()
        for stage in ("secure_aggregation", "rounds", "studies", "exchange", "sites", "model_registration")
        for path in (ROOT / "tests" / stage).glob("test_*.py")
    ]
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 30
    assert sorted(name for name in named if not any(f"def {name}(" in source for source in sources)) == []


@pytest.mark.parametrize(("n", "threshold", "colluding", "dropouts"), COMPLETE)
def test_the_bounds_of_a_complete_graph_are_those_of_the_code(n, threshold, colluding, dropouts):
    assert threshold == 2 * n // 3 + 1
    c = Consortium(n, threshold, (COUNT,))
    assert colluding == min(Attempt(c.plan, c.identities).n_corrupt, threshold - 2)
    assert dropouts == n - threshold
    assert n <= COMPLETE_UP_TO


@pytest.mark.parametrize(("n", "threshold", "colluding", "neighbours", "holders"), RINGS)
def test_the_bounds_of_a_ring_are_those_of_the_code(n, threshold, colluding, neighbours, holders):
    assert colluding == 2 * threshold - n - 1
    found = ring_parameters(n, n_corrupt=colluding)
    assert (2 * found.half_degree, found.threshold) == (neighbours, holders)


def test_the_constants_in_the_text_are_those_of_the_code():
    assert len(COMPLETE) >= 10
    assert len(RINGS) >= 5
    assert (SECURITY_BITS, GRINDING_BITS, LIVENESS_BITS) == (40, 64, 30)
    assert all(
        text in PAGE for text in ("2^-40", "2^-64", "2^-30", "10 % random", "Beyond sixty", "below three")
    )
    assert (DROPOUT_FRACTION, COMPLETE_UP_TO, MIN_SURVIVORS) == (0.1, 60, 3)
    assert VECTOR_BUDGET_BYTES == 2**30
