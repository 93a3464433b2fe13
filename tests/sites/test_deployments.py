"""What lies in ``deployments/`` fits the software: settings parse, units start commands that exist, files are served."""

import asyncio
import configparser
import importlib.metadata
import re
import shlex
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner

from data_contracts.errors import SettingsError
from flows import services
from flows.cli.parser import build_parser
from flows.deploying import DEPLOYMENTS, make_deployment, prefect_yaml, read_deployments
from flows.serving import Registered
from flows.site_settings import Policy, SiteSettings, read_settings
from tests.sites import places as made

UNITS = sorted(DEPLOYMENTS.glob("*/*.service"))
COMPOSED = sorted(DEPLOYMENTS.glob("*/compose.yaml"))
ROLES = ("coordinator", "partner")


@pytest.mark.parametrize("path", sorted(DEPLOYMENTS.glob("*/site.example.json")), ids=str)
def test_every_example_of_settings_is_accepted_and_of_its_folders_role(path):
    assert read_settings(SiteSettings, path, example="").role == path.parent.name


def test_the_example_of_a_policy_states_every_field():
    path = DEPLOYMENTS / "partner" / "policy.example.json"
    policy = read_settings(Policy, path, example="")
    assert policy.model_fields_set == set(Policy.model_fields)


def unit(path):
    parsed = configparser.ConfigParser(interpolation=None, strict=True)
    parsed.optionxform = str
    parsed.read(path)
    return parsed


def test_each_party_has_its_unit():
    assert sorted(path.stem for path in UNITS) == [
        "motet-auditor",
        "motet-coordinator",
        "motet-mailbox",
        "motet-partner",
    ]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_a_command_that_exists_in_its_own_directory_and_dumps_no_core(path):
    service = unit(path)["Service"]
    for key in ("ExecStart", "ExecStop"):
        if key in service:
            program, *arguments = shlex.split(service[key])
            told = build_parser().parse_args(arguments)
            assert Path(program).name == "motet"
            assert told.home == Path("/var/lib") / service["StateDirectory"]
    assert service["UMask"] == "0077"
    assert service["LimitCORE"] == "0"
    assert service["StateDirectoryMode"] == "0700"


@pytest.mark.parametrize("path", COMPOSED, ids=lambda path: path.parent.name)
def test_a_compose_file_starts_commands_that_exist_from_images_that_are_pinned(path):
    services = yaml.safe_load(path.read_text())["services"]
    assert path.parent.name in services
    for name, service in services.items():
        repository, _, tag = service["image"].partition(":")
        assert re.fullmatch(r"\d+\.\d+(\.\d+)?(-[a-z]+)?", tag), f"{name} has no pinned image"
        if repository == "motet":
            assert tag == importlib.metadata.version("motet")
            assert build_parser().parse_args(service["command"]).home == Path("/site")
            assert (path.parent / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
            hardened = service["read_only"], service["cap_drop"], service["ulimits"], service["security_opt"]
            assert hardened == (True, ["ALL"], {"core": 0}, ["no-new-privileges:true"])
        assert ("ports" in service) == (name == "mailbox"), "only the mailbox listens"
        assert "privileged" not in service
        secrets = [value for key, value in service.get("environment", {}).items() if "PASSWORD" in key]
        assert all(value.startswith("${") for value in secrets), "no password stands in a file of ours"


def test_each_party_has_its_compose_file_and_the_image_is_pinned():
    assert [path.parent.name for path in COMPOSED] == ["auditor", "coordinator", "mailbox", "partner"]
    built = (DEPLOYMENTS / "image" / "Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.11\.\d+-slim-bookworm$", built, re.MULTILINE)
    assert "constraints.txt" in built


@pytest.mark.parametrize("role", ROLES)
def test_a_site_serves_the_flow_of_its_role_and_nothing_else(role, tmp_path):
    site = made.make(tmp_path, f"some-{role}", role=role)
    (described,) = read_deployments(prefect_yaml(site.path))
    deployment = make_deployment(described, parameters={"site": str(site.path)})
    assert f"{deployment.flow_name}/{deployment.name}" == services.deployment_of(site.path) == f"{role}/site"
    assert deployment.parameters == {"site": str(site.path)}
    assert [schedule.active for schedule in deployment.schedules] == [False]


def test_what_waits_for_runs_holds_nothing_that_flows_import():
    held = subprocess.run(
        [sys.executable, "-c", "import sys, flows.serving; print(*sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    assert "prefect" in held
    ours = {name for name in held if name.partition(".")[0] in {"flows", "tasks", "data_contracts"}}
    assert ours == {"flows", "flows.serving"}
    assert not {"numpy", "pyarrow", "rdkit", "torch"} & set(held)


def test_what_is_registered_is_not_registered_again(monkeypatch):
    async def ask(*_, **__):
        raise AssertionError("asked Prefect")

    for name in ("_create", "_create_sync", "_update", "_update_sync"):
        monkeypatch.setattr(RunnerDeployment, name, ask)
    deployment = Registered(name="site", flow_name="partner", registered_as=uuid4())
    runner = Runner()
    assert asyncio.run(runner.aadd_deployment(deployment)) == deployment.registered_as
    assert deployment.apply() == deployment.registered_as


def test_without_a_site_everybody_on_one_machine_is_served(tmp_path):
    assert prefect_yaml(tmp_path) == DEPLOYMENTS / "single_machine" / "prefect.yaml"
    assert services.deployment_of(tmp_path) == services.DEPLOYMENT


def test_a_mailbox_serves_no_flow(tmp_path):
    mailbox = made.make(tmp_path, "mailbox", role="mailbox", address="127.0.0.1:1")
    with pytest.raises(SettingsError, match="a mailbox has no Prefect"):
        services.up(mailbox.path)
