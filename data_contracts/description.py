"""Rendering of a contract for people: what `motet contracts NAME` prints.

Why: a data owner decides by reading, not by parsing JSON. Runs: anywhere. Source: own.
"""

from collections.abc import Callable
from typing import Any

from data_contracts import rules
from data_contracts.contract import Contract, Field

SENTENCES: dict[type[rules.Rule], Callable[[Any], str]] = {
    rules.Required: lambda _: "is never empty",
    rules.RequiredWhen: lambda r: f"is not empty where {r.flag} is {str(r.state).lower()}",
    rules.OneOf: lambda r: "is one of " + ", ".join(str(value) for value in r.values),
    rules.Between: lambda r: interval(r.minimum, r.maximum),
    rules.BetweenWhen: lambda r: (
        f"{interval(r.minimum, r.maximum)} where {r.when} is one of {', '.join(r.among)}"
    ),
    rules.Finite: lambda _: "is a finite number",
    rules.Matches: lambda r: f"matches {r.pattern}",
    rules.LengthBetween: lambda r: f"has {r.minimum} to {r.maximum} characters",
    rules.NoControlCharacters: lambda _: "has no control characters, tabs or line breaks",
    rules.SortedUniqueBelow: lambda r: f"is strictly increasing, each element below {r.bound}",
    rules.KnownIn: lambda r: f"occurs in {r.contract}.{r.key}",
    rules.RowNumber: lambda _: "counts the rows from 0",
    rules.Unique: lambda _: "is never repeated",
    rules.StrictlyIncreasing: lambda _: "is strictly increasing from row to row",
}


def describe(contract: Contract) -> str:
    """Render a contract for people.

    Returns:
        Markdown: a heading with the digest, a table of columns, and a list of the rules over several columns.
    """
    lines = [f"# {contract.identifier}", "", contract.description, "", f"sha256 {contract.digest}", ""]
    lines += ["| column | type | empty | unit | rules | meaning |", "|---|---|---|---|---|---|"]
    lines += [_row(field, contract) for field in contract.fields]
    together = [rule for rule in contract.all_rules if len(rule.columns) > 1]
    if together:
        lines += ["", *(f"- {' + '.join(rule.columns)} {sentence(rule)}" for rule in together)]
    return "\n".join(lines) + "\n"


def sentence(rule: rules.Rule) -> str:
    """Say a rule for people, such as ``is a finite number``."""
    return SENTENCES[type(rule)](rule)


def interval(minimum: float | None, maximum: float | None) -> str:
    """Say a closed interval for people, such as ``is at least 0``."""
    if minimum is None and maximum is None:
        return "is a number"
    if maximum is None:
        return f"is at least {minimum:g}"
    if minimum is None:
        return f"is at most {maximum:g}"
    return f"is between {minimum:g} and {maximum:g}"


def _row(field: Field, contract: Contract) -> str:
    alone = [rule for rule in contract.all_rules if rule.columns == (field.name,) and rule.kind != "required"]
    said = "; ".join(sentence(rule) for rule in alone)
    empty = "column may be absent" if field.optional else "allowed" if field.nullable else "never"
    cells = (field.name, field.type, empty, field.unit, said, field.description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
