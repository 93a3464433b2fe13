"""Which changes of a contract old tables survive, and which version a change demands.

Why: partners upgrade at different times; a change is compatible if every table that kept the old contract keeps
the new one. Runs: anywhere. Source: semantic versioning 2.0; the claim is proved on random contracts and tables
in tests/data_contracts.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

Json = Mapping[str, Any]
INTEGER_ORDER = ("int8", "int16", "int32", "int64")
NULL_KEEPING_RULES = frozenset(
    {
        "one_of",
        "between",
        "finite",
        "matches",
        "length_between",
        "no_control_characters",
        "sorted_unique_below",
    }
)


class Level(IntEnum):
    """How much a change costs, in rising order."""

    NONE = 0
    DOCUMENTATION = 1
    COMPATIBLE = 2
    BREAKING = 3


BUMP = {Level.DOCUMENTATION: "patch", Level.COMPATIBLE: "minor", Level.BREAKING: "major"}


@dataclass(frozen=True)
class Difference:
    """One difference between two contracts: its level, and what changed, for people."""

    level: Level
    what: str


def differences(old: Json, new: Json) -> tuple[Difference, ...]:
    """List all differences between two contracts.

    Args:
        old: JSON of the earlier contract (a lock file).
        new: JSON of the later one; names and versions are not compared.

    Returns:
        Differences, the costliest first; what is not understood counts as breaking.
    """
    found = [*_field_differences(old, new), *_rule_differences(old, new)]
    if old["key"] != new["key"]:
        found.append(Difference(Level.COMPATIBLE if not new["key"] else Level.BREAKING, "key"))
    if old["description"] != new["description"]:
        found.append(Difference(Level.DOCUMENTATION, "description"))
    found += [Difference(Level.BREAKING, f"part {part}") for part in set(old) ^ set(new)]
    return tuple(sorted(found, key=lambda difference: (-difference.level, difference.what)))


def level_of(found: tuple[Difference, ...]) -> Level:
    """Return the level of the costliest difference."""
    return max((difference.level for difference in found), default=Level.NONE)


def version_problem(old: Json, new: Json) -> str | None:
    """Say what is wrong with the new version number, or None if it is right.

    The same version demands the same content; another one must be raised at least as the change demands.
    """
    found = differences(old, new)
    level = level_of(found)
    before, after = _version(old), _version(new)
    if (before == after and level == Level.NONE) or _raised(before, after) >= level > Level.NONE:
        return None
    if level == Level.NONE:
        return None if after > before else f"{new['name']}: version went back from {old['version']}"
    what = ", ".join(difference.what for difference in found if difference.level == level)
    return (
        f"{new['name']}: the change of {what} is {level.name.lower()} and demands a {BUMP[level]} version above "
        f"{old['version']}, got {new['version']}"
    )


def read_lock(path: Path) -> dict[str, Any] | None:
    """Return the contract in a lock file, or None if there is no such file."""
    if not path.exists():
        return None
    lock: dict[str, Any] = json.loads(path.read_bytes())
    return lock


def _version(contract: Json) -> tuple[int, int, int]:
    major, minor, patch = (int(part) for part in contract["version"].split("."))
    return major, minor, patch


def _raised(before: tuple[int, int, int], after: tuple[int, int, int]) -> Level:
    """Return the level of change that raising the version allows."""
    if after <= before:
        return Level.NONE
    if after[0] > before[0]:
        return Level.BREAKING
    return Level.COMPATIBLE if after[1] > before[1] else Level.DOCUMENTATION


def _field_differences(old: Json, new: Json) -> list[Difference]:
    before = {field["name"]: field for field in old["fields"]}
    after = {field["name"]: field for field in new["fields"]}
    found = [Difference(Level.BREAKING, f"{name} (removed)") for name in before if name not in after]
    for name, field in after.items():
        if name not in before:
            found.append(
                Difference(Level.COMPATIBLE if field["optional"] else Level.BREAKING, f"{name} (added)")
            )
        else:
            found += _one_field(before[name], field)
    kept = [name for name in before if name in after]
    if kept != [name for name in after if name in before]:
        found.append(Difference(Level.COMPATIBLE, "order of the columns"))
    return found


def _one_field(old: Json, new: Json) -> list[Difference]:
    levels = {
        "type": Level.COMPATIBLE if _widens_type(old["type"], new["type"]) else Level.BREAKING,
        "nullable": Level.COMPATIBLE if new["nullable"] else Level.BREAKING,
        "optional": Level.COMPATIBLE if new["optional"] else Level.BREAKING,
        "unit": Level.BREAKING,
        "description": Level.DOCUMENTATION,
    }
    parts = sorted(set(old) | set(new))
    return [
        Difference(levels.get(part, Level.BREAKING), f"{old['name']}.{part}")
        for part in parts
        if old.get(part) != new.get(part)
    ]


def _widens_type(old: str, new: str) -> bool:
    if old not in INTEGER_ORDER or new not in INTEGER_ORDER:
        return False
    return INTEGER_ORDER.index(new) >= INTEGER_ORDER.index(old)


def _identity(rule: Json) -> tuple[Any, ...]:
    condition = rule.get("when") or rule.get("flag")
    return rule["rule"], rule.get("column") or tuple(rule["together"]), condition


def _rule_differences(old: Json, new: Json) -> list[Difference]:
    before = {_identity(rule): rule for rule in old["rules"]}
    after = {_identity(rule): rule for rule in new["rules"]}
    columns = {field["name"] for field in old["fields"]}
    found = [
        Difference(Level.COMPATIBLE, _rule_name(rule, "dropped"))
        for k, rule in before.items()
        if k not in after
    ]
    for identity, rule in after.items():
        if identity not in before:
            harmless = rule["rule"] in NULL_KEEPING_RULES and rule["column"] not in columns
            level = Level.COMPATIBLE if harmless else Level.BREAKING
            found.append(Difference(level, _rule_name(rule, "added")))
        elif rule != before[identity]:
            relaxes = RELAXATIONS.get(rule["rule"])
            level = Level.COMPATIBLE if relaxes and relaxes(before[identity], rule) else Level.BREAKING
            found.append(Difference(level, _rule_name(rule, "changed")))
    return found


def _rule_name(rule: Json, change: str) -> str:
    return f"{rule['rule']} of {rule.get('column') or '+'.join(rule['together'])} ({change})"


def _wider(old: Json, new: Json) -> bool:
    """Whether the new interval holds the old one."""
    low = new["minimum"] is None or (old["minimum"] is not None and new["minimum"] <= old["minimum"])
    high = new["maximum"] is None or (old["maximum"] is not None and new["maximum"] >= old["maximum"])
    return low and high


RELAXATIONS: dict[str, Callable[[Json, Json], bool]] = {
    "one_of": lambda old, new: set(old["values"]) <= set(new["values"]),
    "between": _wider,
    "length_between": _wider,
    "between_when": lambda old, new: _wider(old, new) and set(new["among"]) <= set(old["among"]),
    "sorted_unique_below": lambda old, new: bool(new["bound"] >= old["bound"]),
}
