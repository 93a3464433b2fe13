"""The threat model's table of messages says of every kind whether it lies sealed."""

import re

from data_contracts.envelope import Kind
from tasks.exchange.run_seal import OPEN_KINDS
from tests.architecture.tree import ROOT

ROWS = re.findall(
    r"^\| `([a-z-]+)` \|.*\| (yes|no) \|$", (ROOT / "docs" / "threat-model.md").read_text(), re.MULTILINE
)


def test_the_table_of_messages_is_complete_and_true():
    assert sorted(name for name, _ in ROWS) == sorted(Kind)
    assert {Kind(name) for name, sealed in ROWS if sealed == "no"} == OPEN_KINDS
