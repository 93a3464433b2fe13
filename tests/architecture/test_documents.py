"""What the documents name exists: files, commands, targets, decisions."""

import argparse
import re

import pytest

from flows.cli.parser import build_parser
from tests.architecture.tree import ROOT, named

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#]+)")
DECISIONS = sorted(ROOT.glob("docs/decisions/[0-9]*.md"))
HEADINGS = ("**Status**", "## Problem", "## Drivers", "## Options", "## Decision", "## Consequences")


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_link_leads_somewhere(document):
    links = LINK.findall(document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_named_command_and_target_exists(document):
    text = document.read_text()
    (commands,) = (
        action.choices for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|^ {4}|^\$ )motet ([a-z]+)", text, re.MULTILINE)) <= set(commands)
    assert set(re.findall(r"(?:`|^ {4}|^\$ )make ([a-z]+)", text, re.MULTILINE)) <= set(targets)


def test_decisions_are_numbered_without_a_gap_and_all_listed():
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    listed = LINK.findall((ROOT / "docs" / "decisions" / "README.md").read_text())
    assert [path.name for path in DECISIONS] == listed


@pytest.mark.parametrize("decision", DECISIONS, ids=named)
def test_a_decision_says_what_was_asked_weighed_chosen_and_what_it_costs(decision):
    text = decision.read_text()
    assert text.startswith(f"# {decision.name[:4]} ")
    places = [text.find(heading) for heading in HEADINGS]
    assert -1 not in places
    assert places == sorted(places)
