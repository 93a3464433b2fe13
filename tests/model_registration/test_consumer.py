"""What a consumer gets: loads without motet beside a ``tasks.py`` of its own, and tells nothing about its maker."""

import getpass
import json
import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException

from tasks.model_registration.bundle import read_card
from tasks.model_registration.prediction import load_model
from tasks.model_registration.registration import partner_model, register, save_mlflow_model
from tests.model_registration.conftest import ENDPOINTS, make_bundle

ROOT = Path(__file__).resolve().parents[2]
SMILES = ["CC(=O)Oc1ccccc1C(=O)O", "C1CC", "CCN(CC)CC"]
OURS = ("flows", "tasks", "data_contracts", "deployments")
OWN_FILES = (
    *OURS,
    "scoring",
    "scoring_model",
    "standardization",
    "fingerprints",
    "molecules",
    "model",
    "bundle",
)
CONSUMER = """
import json, sys

class NoMotet:
    # The environment of these tests has motet installed; a consumer's has not.
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OURS and name != "tasks":
            raise ModuleNotFoundError(name)

OURS = json.loads(sys.argv[2])
sys.meta_path.insert(0, NoMotet())
import tasks

assert tasks.OWNER == "consumer"
import mlflow.pyfunc
import pandas as pd

model = mlflow.pyfunc.load_model(sys.argv[1])
table = model.predict(pd.DataFrame({"smiles": json.loads(sys.argv[3])}))
assert sys.modules["tasks"] is tasks
assert not [name for name in sys.modules if name.split(".")[0] in OURS and name != "tasks"]
assert "torch" not in sys.modules
print(json.dumps(table.to_dict("list")))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    bundle = make_bundle(tmp_path_factory.mktemp("made") / "bundle")
    return save_mlflow_model(tmp_path_factory.mktemp("saved"), bundle, card=read_card(bundle), model_id=None)


@pytest.fixture
def elsewhere(tmp_path):
    """A consumer's project: every name that could be mistaken for ours is a file of its own."""
    for name in OWN_FILES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the consumer ran')")
    (tmp_path / "tasks.py").write_text("OWNER = 'consumer'")
    (tmp_path / "consume.py").write_text(CONSUMER)
    return tmp_path


def test_it_loads_and_predicts_where_motet_is_not_installed(model, elsewhere):
    done = subprocess.run(
        [sys.executable, "consume.py", str(model), json.dumps(OURS), json.dumps(SMILES)],
        cwd=elsewhere,
        env={"PATH": os.environ["PATH"], "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout.splitlines()[-1])
    assert table == load_model(elsewhere, str(model)).predict(SMILES)
    assert table["endpoint"] == list(ENDPOINTS) * 3
    assert not list(elsewhere.glob("**/*.pkl"))


def test_a_registered_model_holds_sources_text_and_weights_only(run, partner, bundle):
    files = register(run, bundle, name=partner_model(partner)).files
    names = {str(path.relative_to(files)) for path in files.rglob("*") if path.is_file()}
    assert {Path(name).suffix for name in names} <= {"", ".json", ".py", ".safetensors", ".txt", ".yaml"}
    assert "scoring_model.py" in names


def test_a_registered_model_names_no_path_user_machine_or_commit(run, partner, tmp_path):
    found = register(run, make_bundle(tmp_path / "bundle"), name=partner_model(partner))
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    secrets = {str(tmp_path), str(found.files.parent), str(ROOT), str(Path.home()), socket.gethostname()}
    told = re.compile(
        "|".join(rf"\b{re.escape(secret)}\b" for secret in (secrets | {commit.stdout.strip()}) - {""})
    )
    texts = [path for path in found.files.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert [path.name for path in texts if told.search(path.read_text())] == []
    description = yaml.safe_load((found.files / "MLmodel").read_text())
    assert not [value for value in _leaves(description) if str(value).startswith(("/", "file:", "~"))]
    assert getpass.getuser() not in {str(value) for value in _leaves(description)}
    assert not [key for key in _keys(description) if "git" in key or "user" in key or "source" in key]


def _leaves(value):
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list) else [value]


def _keys(value):
    if isinstance(value, list):
        return [key for item in value for key in _keys(item)]
    return (
        [*value, *(key for item in value.values() for key in _keys(item))] if isinstance(value, dict) else []
    )


def test_two_savings_of_one_model_differ_only_in_their_identity(model, tmp_path):
    bundle = model / "artifacts" / "bundle"
    (tmp_path / "again").mkdir()
    again = save_mlflow_model(tmp_path / "again", bundle, card=read_card(bundle), model_id=None)
    for path in again.rglob("*"):
        if path.is_file() and path.name != "MLmodel":
            assert (model / path.relative_to(again)).read_bytes() == path.read_bytes()


def test_mlflow_enforces_the_signature_and_passes_the_chosen_endpoints(model, load_pyfunc):
    loaded = load_pyfunc(str(model))
    frame = pd.DataFrame({"smiles": SMILES})
    chosen = loaded.predict(frame, params={"endpoints": [ENDPOINTS[1]]})
    assert chosen["endpoint"].tolist() == [ENDPOINTS[1]] * 3
    with pytest.raises(MlflowException, match="smiles"):
        loaded.predict(pd.DataFrame({"structure": SMILES}))
    assert loaded.metadata.signature.outputs.input_names() == [
        "smiles",
        "endpoint",
        "probability",
        "valid",
        "reason",
    ]
    assert loaded.input_example.columns.tolist() == ["smiles"]


def test_what_is_missing_is_none_so_that_an_answer_is_json(model, load_pyfunc):
    table = load_pyfunc(str(model)).predict(pd.DataFrame({"smiles": SMILES}))
    values = [value for column in table.to_dict("list").values() for value in column]
    assert not [value for value in values if isinstance(value, float) and math.isnan(value)]
    json.loads(json.dumps(table.to_dict("records"), allow_nan=False))


def test_a_trunk_answers_with_features(tmp_path, load_pyfunc):
    bundle = make_bundle(tmp_path / "trunk", kind="trunk")
    (tmp_path / "saved").mkdir()
    saved = save_mlflow_model(tmp_path / "saved", bundle, card=read_card(bundle), model_id=None)
    table = load_pyfunc(str(saved)).predict(pd.DataFrame({"smiles": SMILES}))
    assert table.to_dict("list") == load_model(tmp_path, str(bundle)).predict(SMILES)
