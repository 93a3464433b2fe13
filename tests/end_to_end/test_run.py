"""One command from raw files to registered models, and what is left of it."""

import json

import pyarrow.parquet as pq
import pytest

from data_contracts.catalogue import PREDICTIONS
from tests.end_to_end.conftest import last_object, motet

pytestmark = pytest.mark.timeout(400)
PARTNERS = ("partner-a", "partner-b", "partner-c")


def test_a_run_ends_with_a_registered_model_of_everybody(finished):
    assert set(finished.result["models"]) == {"coordinator", *PARTNERS}
    assert finished.result["models"]["coordinator"] == "models:/motet-trunk/1"


def test_a_run_leaves_result_tables_and_pictures(finished):
    left = {path.relative_to(finished.directory).as_posix() for path in finished.directory.rglob("*")}
    assert {"result.json", "pictures/rounds.png"} <= left
    for name in PARTNERS:
        results = f"partners/{name}/results"
        wanted = ("report.html", "uplift.png", "uplift.json", "endpoints.parquet")
        assert {f"{results}/{file}" for file in wanted} <= left
        assert pq.read_table(finished.directory / results / "endpoints.parquet").num_rows > 0


def test_the_coordinators_result_holds_sums_only(finished):
    kept = json.loads((finished.directory / "result.json").read_bytes())
    assert "partners" not in kept
    assert not any(name in json.dumps(kept["consortium"]) for name in PARTNERS)


def test_the_same_command_again_shows_the_same_result_and_computes_nothing(finished, run_arguments):
    again = motet(*run_arguments, home=finished.home)
    assert "finished already" in again.stderr
    assert last_object(again) == finished.result


def test_other_settings_under_the_same_name_are_refused(finished, run_arguments):
    refused = motet(*run_arguments, "--seed", 5, home=finished.home, check=False)
    assert refused.returncode == 2
    assert "exists with other settings" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_runs_lists_the_run_for_people_and_for_machines(finished):
    listed = motet("runs", "--json", home=finished.home)
    (row,) = last_object(listed)["runs"]
    assert (row["run"], row["state"], row["partners"]) == ("first", "finished", 3)


def test_a_partners_model_predicts_every_endpoint_and_explains_what_it_cannot(finished):
    asked = motet(
        "predict",
        "partner-a-qsar@challenger",
        "CC(=O)Oc1ccccc1C(=O)O",
        "no molecule",
        "--json",
        home=finished.home,
    )
    predictions = last_object(asked)["predictions"]
    assert set(PREDICTIONS.schema.names) - set(predictions) == {"value", "value_low", "value_high"}
    n_endpoints = len(set(predictions["endpoint"]))
    assert len(predictions["smiles"]) == 2 * n_endpoints
    good = [p for p, valid in zip(predictions["probability"], predictions["valid"], strict=True) if valid]
    assert len(good) == n_endpoints
    assert all(0 < p < 1 for p in good)
    for name in ("calibrated_probability", "conformal_set", "in_domain"):
        assert [value is not None for value in predictions[name]] == predictions["valid"], name
    assert any(predictions["reason"])


def test_predictions_go_to_a_file(finished, tmp_path):
    structures = tmp_path / "in.smi"
    structures.write_text("CCO ethanol\n\nc1ccccc1\n")
    motet(
        "predict",
        "partner-b-qsar",
        "--input",
        structures,
        "--output",
        tmp_path / "out.parquet",
        home=finished.home,
    )
    table = pq.read_table(tmp_path / "out.parquet")
    assert set(table["smiles"].to_pylist()) == {"CCO", "c1ccccc1"}


def test_every_round_can_be_repeated_by_anybody(finished):
    motet("verify", "round", "first", "2", home=finished.home)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["predict", "no-such-model", "CCO"], 2, "there is no model 'no-such-model'"),
        (["predict", "partner-a-qsar"], 2, "no structure to predict"),
        (["run", "--activities", "a.csv"], 2, "belong together"),
        (["run", "--rounds", "0"], 2, "--rounds"),
        (["run", "--data", "/nowhere"], 2, "no readable dataset.json"),
        (["contracts", "nothing"], 2, "there is no contract 'nothing'"),
        (["run", "--run-id", "../../evil"], 2, "--run-id"),
        (["run", "--partners", "17"], 2, "--ring-bits 32"),
        (["run", "--data", "x", "--partners", "4"], 2, "give --data alone"),
    ],
)
def test_a_users_mistake_is_named_with_advice_and_without_a_traceback(finished, arguments, code, words):
    refused = motet(*arguments, "--json", home=finished.home, check=False)
    assert refused.returncode == code
    assert words in refused.stderr
    assert "try:" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert last_object(refused)["exit_code"] == code


def test_a_missing_column_is_refused_by_name(own_files, run_arguments, tmp_path):
    text = (own_files / "activities.csv").read_text()
    broken = tmp_path / "activities.csv"
    broken.write_text(text.replace('"relation"', '"operator"', 1))
    arguments = [
        broken if argument == own_files / "activities.csv" else argument for argument in run_arguments
    ]
    refused = motet(*arguments, home=tmp_path / "home", check=False)
    assert refused.returncode == 3
    assert "relation" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list((tmp_path / "home" / "data").glob("own-files*"))
