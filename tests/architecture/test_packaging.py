"""What is installed is what is pinned, and what is built is complete."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.architecture.tree import ROOMS, ROOT, named, project, python_files

LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.]+)")


def declared():
    metadata = project()["project"]
    lines = [*metadata["dependencies"], *metadata["optional-dependencies"]["dev"]]
    return [Requirement(line) for line in lines]


def pins():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches), (
        "every line is name==version, without a local label: a label is found on one index only"
    )
    assert len({canonicalize_name(match["name"]) for match in matches}) == len(lines)
    return {canonicalize_name(match["name"]): Version(match["version"]) for match in matches}


def needed():
    """Everything that our requirements need here, but for what the requiring package itself pins exactly."""
    found, open_requirements = {}, [(requirement, False) for requirement in declared()]
    while open_requirements:
        requirement, pinned_already = open_requirements.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in found:
            continue
        found[key] = pinned_already
        for line in importlib.metadata.requires(requirement.name) or []:
            further = Requirement(line)
            extras = requirement.extras or {""}
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                exact = any(specifier.operator == "==" for specifier in further.specifier)
                open_requirements.append((further, exact))
    return {name for (name, _), pinned_already in found.items() if not pinned_already}


def test_every_requirement_and_all_they_need_is_pinned():
    assert sorted(needed() - set(pins())) == []


def test_the_installed_versions_are_the_pinned_ones():
    installed = {name: Version(importlib.metadata.version(name)) for name in needed()}
    pinned = pins()
    assert {
        name: version for name, version in installed.items() if version.public != pinned[name].public
    } == {}


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_a_pin_lies_in_the_range_that_pyproject_declares(requirement):
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = (
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "-w",
        str(built),
        str(source),
    )
    subprocess.run([sys.executable, "-m", "pip", *command], check=True, capture_output=True)
    (file,) = built.glob("motet-*.whl")
    with zipfile.ZipFile(file) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module_lock_and_deployment(wheel):
    data = [*ROOT.glob("data_contracts/lock/*.json"), *ROOT.glob("deployments/**/*.yaml")]
    assert data
    assert {named(path) for path in [*python_files(*ROOMS), *data]} - wheel == set()


def test_the_wheel_holds_the_rooms_and_nothing_beside_them(wheel):
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(ROOMS)
    assert any(name.endswith("/licenses/LICENSE") for name in wheel)
