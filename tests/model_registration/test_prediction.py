"""A registered model is found by the name a person types, checked, and run with installed code only."""

import json
import shutil
import subprocess
import sys

import pytest

from data_contracts.errors import SettingsError, UpdateMismatch
from tasks.model_registration import prediction, scoring
from tasks.model_registration.prediction import load_model
from tasks.model_registration.registration import partner_model, register
from tests.model_registration.conftest import ENDPOINTS, make_bundle, validated

SMILES = ["CC(=O)Oc1ccccc1C(=O)O", "C1CC"]


@pytest.fixture
def registered(run, partner, tmp_path):
    """Version 1 is champion, version 2 challenger."""
    for seed, value in ((1, 0.8), (2, 0.6)):
        bundle = make_bundle(tmp_path / str(seed), seed=seed, validation=validated(value))
        register(run, bundle, name=partner_model(partner))
    return partner_model(partner)


def test_a_name_means_its_champion_an_alias_or_number_exactly_that(home, registered):
    versions = {
        asked: load_model(home, registered + asked).label.split("/")[1]
        for asked in ("", "@champion", "@challenger", "/1", "/2")
    }
    assert versions == {"": "1", "@champion": "1", "@challenger": "2", "/1": "1", "/2": "2"}


def test_without_a_champion_a_name_means_its_challenger(store, home, registered):
    store.client.delete_registered_model_alias(registered, "champion")
    assert load_model(home, registered).label == f"{registered}/2"
    with pytest.raises(SettingsError, match="no alias 'champion'"):
        load_model(home, f"{registered}@champion")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("{name}@best", "no alias 'best'"),
        ("{name}/9", "no version 9"),
        ("{name}/0", "names no model"),
        ("{name}' --", "names no model"),
        ("somebody-qsar", "no model 'somebody-qsar'; registered are: .*{name}"),
        ("somebody-qsar/1", "no version 1"),
    ],
)
def test_what_is_not_registered_is_refused_by_name(home, registered, asked, message):
    with pytest.raises(SettingsError, match=message.format(name=registered)):
        load_model(home, asked.format(name=registered))


def test_a_home_without_a_registry_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(SettingsError, match="no model registry") as refused:
        load_model(tmp_path, "motet-trunk")
    assert "motet run" in refused.value.advice


def test_asking_for_a_model_does_not_write_to_the_registry(home, registered):
    before = (home / "mlflow" / "mlflow.db").read_bytes()
    load_model(home, registered)
    assert (home / "mlflow" / "mlflow.db").read_bytes() == before


def test_a_bundle_an_mlflow_model_and_a_registered_name_predict_alike(store, home, registered, tmp_path):
    files = store.client.get_model_version(registered, "1").source
    tables = [
        load_model(home, asked).predict(SMILES) for asked in (f"{registered}/1", files, str(tmp_path / "1"))
    ]
    assert tables[0] == tables[1] == tables[2]


def test_a_card_that_was_changed_after_registration_is_refused(store, home, run, partner, tmp_path):
    # The attacker also changes the weights and writes their digest into the card.
    found = register(run, make_bundle(tmp_path / "good"), name=partner_model(partner))
    evil = make_bundle(tmp_path / "evil", seed=99)
    inside = found.files / "artifacts" / "bundle"
    for path in evil.iterdir():
        shutil.copy(path, inside / path.name)
    with pytest.raises(UpdateMismatch, match="is not the one that was registered"):
        load_model(home, found.name)


def test_weights_that_were_changed_after_registration_are_refused(home, run, partner, bundle):
    found = register(run, bundle, name=partner_model(partner))
    weights = found.files / "artifacts" / "bundle" / scoring.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UpdateMismatch, match=r"weights\.safetensors is not the file") as refused:
        load_model(home, found.name)
    assert str(home) not in str(refused.value)


def test_code_that_came_with_a_model_never_runs(bundle, monkeypatch):
    for name in scoring.SOURCES:
        (bundle / name).write_text("raise SystemExit('the code of the model ran')")
    card = json.loads((bundle / scoring.CARD).read_bytes())
    card["sha256"] |= {name: prediction_digest(bundle / name) for name in scoring.SOURCES}
    (bundle / scoring.CARD).write_text(json.dumps(card))
    assert load_model(bundle.parent, str(bundle)).predict(["CCO"])["valid"] == [True] * len(ENDPOINTS)


def prediction_digest(path):
    from tasks.model_registration.bundle import sha256_of

    return sha256_of(path)


@pytest.mark.parametrize(
    "change", [{"standardization": "parent-0"}, {"fingerprint": {"kind": "ECFP", "radius": 2}}]
)
def test_a_model_of_another_preparation_is_refused_with_the_way_that_works(bundle, change):
    card = json.loads((bundle / scoring.CARD).read_bytes()) | change
    (bundle / scoring.CARD).write_text(json.dumps(card))
    with pytest.raises(UpdateMismatch, match="not what this motet does") as refused:
        load_model(bundle.parent, str(bundle))
    assert "mlflow.pyfunc" in refused.value.advice


def test_an_unknown_endpoint_and_an_endpoint_of_a_trunk_are_refused(tmp_path):
    model = load_model(tmp_path, str(make_bundle(tmp_path / "model")))
    assert model.predict(SMILES, endpoints=[ENDPOINTS[1]])["endpoint"] == [ENDPOINTS[1]] * 2
    with pytest.raises(SettingsError, match="no endpoint"):
        model.predict(SMILES, endpoints=["A9"])
    trunk = load_model(tmp_path, str(make_bundle(tmp_path / "trunk", kind="trunk")))
    assert set(trunk.predict(SMILES)) == {"smiles", "features", "valid", "reason"}
    with pytest.raises(SettingsError, match="have no endpoints"):
        trunk.predict(SMILES, endpoints=["A1"])


def test_predicting_imports_neither_mlflow_nor_torch_nor_prefect(bundle):
    program = """
import sys
from pathlib import Path
from tasks.model_registration.prediction import load_model
load_model(Path(), sys.argv[1]).predict(["CCO"])
print(sorted({"mlflow", "torch", "prefect"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(bundle)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_installed_code_is_what_prediction_uses():
    assert prediction.fingerprints.__name__ == "tasks.featurization.fingerprints"
    assert prediction.standardization.__name__ == "tasks.featurization.standardization"
