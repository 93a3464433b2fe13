"""The import rule is kept, complete, and would notice every fault it is there for."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.architecture.tree import ROOMS, ROOT, STAGES, project

CONTRACTS = {contract["name"]: contract for contract in project()["tool"]["importlinter"]["contracts"]}
FAULTS = {
    "Imports point down: cli > flows > tasks > data_contracts": ("data_contracts/limits.py", "tasks.rounds"),
    "Stages, in the order data meets them, import only what lies below": (
        "tasks/aggregation/__init__.py",
        "tasks.tracking",
    ),
    "Only steps.py and flows know Prefect": ("tasks/rounds/patience.py", "prefect"),
    "Prefect wrappers are used by flows only": ("tasks/rounds/attempts.py", "tasks.rounds.steps"),
    "Only tracking and model registration know MLflow": ("tasks/evaluation/sums.py", "mlflow"),
    "An auditor needs no torch, rdkit or mlflow": ("tasks/exchange/board.py", "torch"),
    "Coordinator code never imports partner code": (
        "tasks/secure_aggregation/coordinator.py",
        "tasks.secure_aggregation.partner",
    ),
    "Partner code never imports coordinator code": ("tasks/rounds/partner.py", "tasks.rounds.coordinator"),
    "No cycles between stages": ("data_contracts/errors.py", "data_contracts.plan"),
}


@pytest.fixture
def copy(tmp_path):
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def verdicts(directory):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as run; run()",
            "--no-cache",
        ],
        cwd=directory,
        env={"COLUMNS": "250", "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = dict(re.findall(r"^(.+?)\s+(KEPT|BROKEN)", done.stdout, re.MULTILINE))
    assert set(found) == set(CONTRACTS), done.stdout + done.stderr
    return found, done.returncode


def test_every_contract_is_kept():
    assert verdicts(ROOT) == (dict.fromkeys(CONTRACTS, "KEPT"), 0)


def test_every_contract_notices_the_fault_it_is_there_for(copy):
    assert set(FAULTS) == set(CONTRACTS), "a new contract needs a fault that breaks it"
    for path, module in FAULTS.values():
        with (copy / path).open("a") as file:
            file.write(f"\nimport {module}\n")
    assert verdicts(copy) == (dict.fromkeys(CONTRACTS, "BROKEN"), 1)


def test_a_stage_that_nobody_placed_is_noticed(copy):
    (copy / "tasks" / "unplaced").mkdir()
    (copy / "tasks" / "unplaced" / "__init__.py").write_text('"""Nobody placed this stage."""\n')
    found, _ = verdicts(copy)
    assert [name for name, verdict in found.items() if verdict == "BROKEN"] == [
        "Stages, in the order data meets them, import only what lies below"
    ]


def test_the_list_of_stages_is_the_folder():
    layers = CONTRACTS["Stages, in the order data meets them, import only what lies below"]["layers"]
    assert sorted(layers) == list(STAGES)


@pytest.mark.parametrize("side", ["partner", "coordinator"])
def test_every_two_sided_stage_keeps_its_sides_apart(side):
    modules = {f"tasks.{path.parent.name}.{side}" for path in ROOT.glob(f"tasks/*/{side}.py")}
    assert (
        set(CONTRACTS[f"{side.title()} code never imports {_other(side)} code"]["source_modules"]) == modules
    )


def _other(side):
    return {"partner": "coordinator", "coordinator": "partner"}[side]
