"""From a search over a report to a production model, then a warm start, by the real commands; killed in between."""

import json
import shutil
import signal
import subprocess

import pytest

from tests.end_to_end.conftest import command, last_object, motet
from tests.end_to_end.test_crash import await_file
from tests.messages import body_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SPACE = """
choices:
  hidden: [8, 16]
settings: {rounds: 2, local_epochs: 1, batch_size: 32}
"""
MINIBATCHES = (
    *("--algorithm", "fedsgd", "--batch-ratio", "0.25", "--evaluate-every", "2", "--rounds", "8"),
    *("--patience", "2", "--learning-rate-decay", "0.9", "--no-pooled-arm"),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("phases") / "motet-home"


@pytest.fixture(scope="module")
def data(finished):
    """The companies that the first run made of the user's files."""
    return json.loads((finished.directory / "run.json").read_bytes())["settings"]["data"]


def _killed_when(pattern, arguments, *, home, log, run):
    """Start a command, and kill -9 as soon as a file of a run appears."""
    with log.open("w") as output:
        process = subprocess.Popen(command(*arguments, home=home), stdout=output, stderr=output)
    await_file(pattern, root=home / "runs" / run, process=process, log=log)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def searched(home, data, tmp_path_factory):
    """A search that was killed in its second trial, and resumed."""
    place = tmp_path_factory.mktemp("search")
    (place / "space.yaml").write_text(SPACE)
    arguments = ["search", place / "space.yaml", "--name", "find", "--data", data, "--json"]
    second = "mailbox/messages/find-r0-t001/r00001-a*/masked/partner-a.json"
    _killed_when(second, arguments, home=home, log=place / "log", run="find-r0-t001")
    first = (home / "runs" / "find-r0-t000" / "result.json").stat().st_mtime_ns
    found = last_object(motet(*arguments, home=home))
    assert (home / "runs" / "find-r0-t000" / "result.json").stat().st_mtime_ns == first, (
        "a finished trial is found"
    )
    return found


@pytest.fixture(scope="module")
def report(searched, home):
    return last_object(
        motet("run", "--settings", searched["settings"], "--run-id", "report", "--json", home=home)
    )


@pytest.fixture(scope="module")
def final(report, home):
    del report
    return last_object(motet("run", "--rounds-from", "report", "--run-id", "final", "--json", home=home))


def _cards(home, run):
    return {
        path.parent.parent.name: json.loads(path.read_bytes())
        for path in (home / "runs" / run).glob("partners/*/model/card.json")
    }


def _plans(home, run):
    blobs = home / "runs" / run / "mailbox" / "blobs"
    messages = (home / "runs" / run / "mailbox" / "messages" / run).glob("r*/plan/*.json")
    return sorted((json.loads(body_of(path, blobs)) for path in messages), key=lambda plan: plan["round"])


def test_a_search_judges_trials_by_the_summed_validation_metric_and_registers_none(searched, home):
    figures = {row["trial"]: row["validation AUPRC"] for row in searched["trials"]}
    assert searched["best"]["trial"] == max(figures, key=figures.get)
    assert not list((home / "runs").glob("find-*/partners/*/model"))
    assert all(plan["parameters"].get("split") != "test" for plan in _plans(home, "find-r0-t000"))


def test_a_report_trains_as_long_as_tuning_found_best_and_each_single_arm_is_its_partners_own_best(
    report, searched, home
):
    trials = [row["trial"] for row in searched["trials"]]
    plans = _plans(home, "report")
    assert [plan["study"] for plan in plans] == [
        "catalogue",
        *["qsar-training"] * searched["best"]["best round"],
        "evaluation",
    ]
    for name in report["partners"]:
        tuned = [
            json.loads((home / "runs" / run / "partners" / name / "alone" / "complete.json").read_bytes())
            for run in trials
        ]
        own = json.loads(
            (home / "runs" / "report" / "partners" / name / "alone" / "complete.json").read_bytes()
        )
        assert own["best_epoch"] == max(tuned, key=lambda arm: arm["auprc"])["best_epoch"]


def test_a_final_model_serves_and_says_whose_calibration_it_has(final, report, home):
    cards = _cards(home, "final")
    assert set(cards) == set(report["partners"])
    for card in cards.values():
        assert card["phase"] == "final"
        assert "run report (phase report) had held out" in card["reliability_from"]
    assert all(plan["study"] != "evaluation" for plan in _plans(home, "final"))
    shown = motet("predict", "partner-a-qsar@champion", "CCO", "--json", home=home)
    assert last_object(shown)
    assert final["validation_auprc"] == report["consortium"]["test"].get("test/federated/auprc")


def test_training_goes_on_from_an_earlier_model_and_a_killed_run_of_minibatches_ends_with_the_same_bytes(
    searched, home, data, tmp_path
):
    best = searched["best"]
    warm = ["run", "--data", data, *MINIBATCHES, "--hidden", best["hidden"], "--warm-start", best["trial"]]
    trunk = json.loads((home / "runs" / best["trial"] / "result.json").read_bytes())["trunk_sha256"]
    undisturbed = tmp_path / "motet-home"  # of one name: a run's name is part of every rounding
    shutil.copytree(home / "runs" / best["trial"], undisturbed / "runs" / best["trial"])
    again = [*warm, "--run-id", "warm", "--json"]
    whole = last_object(motet(*again, home=undisturbed))
    plans = [plan for plan in _plans(undisturbed, "warm") if plan["study"] == "qsar-minibatches"]
    assert {plan["parameters"]["warm_start"] for plan in plans} == {trunk}
    assert list((undisturbed / "runs" / "warm").glob("partners/*/first-head.safetensors"))
    fourth = "mailbox/messages/warm/r00004-a*/masked/partner-b.json"
    _killed_when(fourth, again, home=home, log=tmp_path / "log", run="warm")
    resumed = last_object(motet(*again, home=home))
    assert resumed["trunk_sha256"] == whole["trunk_sha256"]
    assert resumed["consortium"] == whole["consortium"]


def test_a_start_that_does_not_fit_or_would_flatter_is_refused_by_name(final, home, data):
    del final
    cases = {
        ("--hidden", "32", "--warm-start", "find-r0-t000"): "--hidden 32",
        ("--phase", "tune", "--warm-start", "models:/motet-trunk@champion"): "--warm-start",
    }
    for arguments, named in cases.items():
        refused = motet("run", "--data", data, *arguments, home=home, check=False)
        assert refused.returncode != 0
        assert named in refused.stderr
        assert "Traceback" not in refused.stderr
