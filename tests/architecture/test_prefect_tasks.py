"""Prefect sees thin wrappers that say what they keep, and deployments that name flows of ours."""

import ast
import re

import pytest

from tests.architecture.tree import ROOT, named, parsed, python_files

MAX_WRAPPER_LINES = 15
SEEN_BY_PEOPLE = {
    "featurization",
    "local-training",
    "secure-aggregation",
    "evaluation",
    "model-registration",
}
DEPLOYMENTS = sorted(ROOT.glob("deployments/**/prefect.yaml"))


def wrappers():
    found = {}
    for path in python_files("tasks", "flows"):
        for node in ast.walk(parsed(path)):
            for mark in getattr(node, "decorator_list", []):
                if ast.unparse(mark).split("(")[0] in {"task", "prefect.task"}:
                    settings = {keyword.arg: ast.unparse(keyword.value) for keyword in mark.keywords}
                    found[f"{named(path)}:{node.name}"] = (path, node, settings)
    assert found
    return found


WRAPPERS = wrappers()


def test_tasks_of_prefect_stand_in_the_one_steps_file_of_a_stage():
    assert {path for path, _, _ in WRAPPERS.values()} <= set(ROOT.glob("tasks/*/steps.py"))
    assert not set(ROOT.glob("tasks/**/steps.py")) - set(ROOT.glob("tasks/*/steps.py"))


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_task_says_what_it_keeps_and_under_which_key(name):
    _, _, settings = WRAPPERS[name]
    assert settings.get("persist_result") in {"True", "False"}
    assert {"name", "task_run_name"} <= set(settings)
    if settings["persist_result"] == "True":
        assert settings.get("result_serializer") == "'json'"
        assert "cache_key_fn" in settings
    else:
        assert settings.get("cache_policy") == "NO_CACHE"


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_task_is_a_thin_async_wrapper(name):
    _, node, _ = WRAPPERS[name]
    body = node.body[1:]
    assert isinstance(node, ast.AsyncFunctionDef)  # a thread could not be interrupted
    assert node.end_lineno - body[0].lineno + 1 <= MAX_WRAPPER_LINES


def test_the_names_that_a_person_sees_are_those_of_the_stages():
    names = {ast.literal_eval(settings["name"]) for _, _, settings in WRAPPERS.values()}
    assert names >= SEEN_BY_PEOPLE
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", name) for name in names)


@pytest.mark.parametrize("path", DEPLOYMENTS, ids=named)
def test_every_deployed_entrypoint_imports_and_is_a_flow_of_ours(path):
    from flows.deploying import flow_of, read_deployments

    described = read_deployments(path)  # refuses a file that pulls code
    assert described
    for deployment in described:
        assert deployment["entrypoint"].startswith("flows/")
        flow = flow_of(deployment["entrypoint"])
        assert flow.isasync  # a sync flow costs a second at its end
        flow.validate_parameters(deployment.get("parameters", {}))


def test_there_is_something_to_deploy():
    assert DEPLOYMENTS


@pytest.mark.parametrize("name", WRAPPERS)
def test_no_task_has_tags_for_prefect_asks_for_a_limit_of_each_before_it_begins(name):
    _, _, settings = WRAPPERS[name]
    assert "tags" not in settings


def test_no_flow_gives_tags_to_its_tasks():
    imports = [
        named(path)
        for path in python_files("tasks", "flows")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and node.module == "prefect"
        if "tags" in {alias.name for alias in node.names}
    ]
    assert imports == []
