"""A party's MLflow run is one, whatever was interrupted; a round counts once; nothing secret or local is written."""

import getpass
import math
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts.errors import SettingsError, WorkFailed
from tasks.tracking.runs import (
    MAX_METRICS,
    end_run,
    log_files,
    log_parameters,
    log_round,
    open_run,
    set_tags,
)

NOW = 1_700_000_000_000


def opened(store, *, run_id="run-1", party="coordinator", **tags):
    return open_run(store, experiment="study", run_id=run_id, party=party, tags=tags)


def history(run, name):
    return [(m.step, m.value) for m in run.store.client.get_metric_history(run.mlflow_run, name)]


def stored(run):
    return run.store.client.get_run(run.mlflow_run)


def test_a_run_is_found_again_by_its_party_and_run_id(store):
    first = opened(store)
    assert opened(store) == first
    others = [opened(store, party="partner-a"), opened(store, run_id="run-2")]
    elsewhere = open_run(store, experiment="other", run_id="run-1", party="coordinator")
    assert len({run.mlflow_run for run in (first, *others, elsewhere)}) == 4
    assert stored(first).info.run_name == "run-1/coordinator"


@pytest.mark.parametrize(("succeeded", "status"), [(True, "FINISHED"), (False, "FAILED")])
def test_an_ended_run_runs_again_when_it_is_resumed(store, succeeded, status):
    run = opened(store)
    end_run(run, succeeded=succeeded)
    assert stored(run).info.status == status
    assert opened(store) == run
    assert stored(run).info.status == "RUNNING"


def test_tags_say_nothing_about_user_machine_path_or_commit(store, tmp_path):
    run = opened(store, **{"data.synthetic": "true"})
    tags = stored(run).data.tags
    assert tags["data.synthetic"] == "true"
    assert tags["mlflow.user"] == tags["mlflow.source.name"] == "motet"
    assert not [name for name in tags if "git" in name]
    text = repr(stored(run).to_dictionary()["data"])
    assert not [
        word
        for word in (str(tmp_path), "/tests/", f"'{getpass.getuser()}'", socket.gethostname())
        if word in text
    ]


def test_tags_are_renewed_at_every_opening(store):
    run = opened(store, **{"prefect.flow_run_id": "first"})
    opened(store, **{"prefect.flow_run_id": "second"})
    set_tags(run, {"note": "kept"})
    tags = stored(run).data.tags
    assert (tags["prefect.flow_run_id"], tags["note"]) == ("second", "kept")


@pytest.mark.parametrize(
    ("run_id", "party"), [("x' or 'a' = 'a", "p"), ("r", "p q"), ("", "p"), ("r", "a/b")]
)
def test_a_name_that_would_be_read_as_a_query_is_refused(store, run_id, party):
    with pytest.raises(SettingsError, match="no name for tracking"):
        open_run(store, experiment="study", run_id=run_id, party=party)


def test_a_round_that_is_logged_again_counts_once_and_keeps_its_first_value(store):
    run = opened(store)
    log_round(run, {"val/auprc": 0.5, "val/auroc": None}, round_number=1, time_ms=NOW)
    log_round(run, {"val/auprc": 0.9}, round_number=1, time_ms=NOW + 1)
    log_round(run, {"val/auprc": 0.6}, round_number=2, time_ms=NOW + 2)
    assert history(run, "val/auprc") == [(1, 0.5), (2, 0.6)]
    assert history(run, "val/auroc") == []


def test_a_round_whose_logging_was_interrupted_is_completed(store):
    run = opened(store)
    log_round(run, {"a/x": 1.0}, round_number=0, time_ms=NOW)
    log_round(run, {"a/x": 1.0, "a/y": 2.0}, round_number=0, time_ms=NOW)
    assert (history(run, "a/x"), history(run, "a/y")) == ([(0, 1.0)], [(0, 2.0)])


metrics = st.dictionaries(st.sampled_from(["a/x", "a/y", "b/z"]), st.floats(-1e6, 1e6), min_size=1)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(st.tuples(st.integers(0, 2), metrics), max_size=5), number=st.uuids())
def test_whatever_was_repeated_each_metric_has_its_first_value_of_each_round(store, calls, number):
    run = opened(store, run_id=str(number))
    expected = {}
    for step, values in calls:
        log_round(run, values, round_number=step, time_ms=NOW)
        for name, value in values.items():
            expected.setdefault(name, {}).setdefault(step, value)
    for name, steps in expected.items():
        assert sorted(history(run, name)) == sorted(steps.items())


def test_more_metrics_than_one_batch_holds_all_arrive(store):
    run = opened(store)
    log_round(
        run, {f"m/n{number}": float(number) for number in range(MAX_METRICS + 5)}, round_number=1, time_ms=NOW
    )
    assert len(stored(run).data.metrics) == MAX_METRICS + 5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused_and_nothing_of_the_round_is_logged(store, value):
    run = opened(store)
    with pytest.raises(WorkFailed, match="expected a finite number"):
        log_round(run, {"a/x": 1.0, "a/y": value}, round_number=1, time_ms=NOW)
    assert stored(run).data.metrics == {}


@pytest.mark.parametrize("name", ["auprc", "val/", "/auprc", "val/au prc", "Val/auprc", "val/C(=O)O"])
def test_a_metric_without_a_group_is_refused(store, name):
    with pytest.raises(WorkFailed, match="group/name"):
        log_round(opened(store), {name: 1.0}, round_number=1, time_ms=NOW)


def test_parameters_are_written_once_and_the_same_again_is_nothing_new(store):
    run = opened(store)
    for _ in range(2):
        log_parameters(run, {"hidden": 400, "dropout": 0.5, "pooled_arm": True})
    log_parameters(run, {"rounds": 20, "hidden": 400})
    assert stored(run).data.params == {
        "hidden": "400",
        "dropout": "0.5",
        "pooled_arm": "True",
        "rounds": "20",
    }


def test_a_run_does_not_change_its_parameters(store):
    run = opened(store)
    log_parameters(run, {"hidden": 400})
    with pytest.raises(SettingsError, match="hidden") as refused:
        log_parameters(run, {"hidden": 500, "rounds": 3})
    assert "500" not in str(refused.value)
    assert stored(run).data.params == {"hidden": "400"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 7),
        ("training_seed", 7),
        ("site_secret", "s"),
        ("key", "k"),
        ("api_key", "k"),
        ("key_file", "k"),
        ("password", "p"),
        ("token", "t"),
        ("data", "/home/someone/data"),
        ("data", "~/data"),
        ("Hidden", 1),
        ("a/b", 1),
    ],
)
def test_a_parameter_that_could_be_a_seed_a_key_or_a_path_is_refused(store, name, value):
    run = opened(store)
    with pytest.raises(SettingsError, match="may not be tracked") as refused:
        log_parameters(run, {"hidden": 400, name: value})
    assert "someone" not in str(refused.value)
    assert stored(run).data.params == {}


@pytest.mark.parametrize("name", ["keypoints", "n_monkeys", "hidden"])
def test_a_word_that_only_contains_key_is_no_key(store, name):
    run = opened(store)
    log_parameters(run, {name: 1})
    assert stored(run).data.params == {name: "1"}


def test_files_lie_under_their_names_and_the_last_one_counts(store, tmp_path):
    run = opened(store)
    for content in (b"first", b"second"):
        (tmp_path / "local.bin").write_bytes(content)
        log_files(run, {"tables/uplift.parquet": tmp_path / "local.bin", "note.txt": tmp_path / "local.bin"})
    names = {found.path for found in store.client.list_artifacts(run.mlflow_run)}
    assert names == {"tables", "note.txt"}
    copied = store.client.download_artifacts(run.mlflow_run, "tables/uplift.parquet", str(tmp_path))
    assert Path(copied).read_bytes() == b"second"


@pytest.mark.parametrize("name", ["../escape.txt", "/absolute.txt", "a/../../escape.txt"])
def test_a_file_name_that_leads_out_of_the_run_is_refused(store, tmp_path, name):
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(SettingsError, match="leads out of the run"):
        log_files(opened(store), {name: tmp_path / "f"})


def test_what_mlflow_refuses_is_ours_and_shows_no_path(store, tmp_path):
    run = opened(store)
    store.client.delete_run(run.mlflow_run)
    with pytest.raises(WorkFailed, match="MLflow refused to log round 1") as refused:
        log_round(run, {"a/x": 1.0}, round_number=1, time_ms=NOW)
    assert str(tmp_path) not in str(refused.value)


def test_the_address_of_a_run_names_experiment_and_run(store):
    run = opened(store)
    expected = f"http://127.0.0.1:5000/#/experiments/{run.experiment}/runs/{run.mlflow_run}"
    assert run.url("http://127.0.0.1:5000/") == expected
