"""The source tree as these tests see it."""

import ast
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("data_contracts", "tasks", "flows", "deployments")
BESIDE = ("tests", "benchmarks", "docs")
STAGES = tuple(sorted(path.parent.name for path in ROOT.glob("tasks/*/__init__.py")))


def named(path):
    return str(path.relative_to(ROOT))


def python_files(*folders):
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


@cache
def parsed(path):
    return ast.parse(path.read_text())


@cache
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())
