"""A model is registered once per run and weights, whatever was interrupted, and the aliases follow the rule."""

import pytest
from mlflow.exceptions import MlflowException

from data_contracts.errors import SettingsError, UpdateMismatch, WorkFailed
from tasks.model_registration.registration import CONSORTIUM_MODEL, SYNTHETIC_BANNER, partner_model, register
from tasks.tracking.runs import open_run
from tests.model_registration.conftest import SIMULATED, make_bundle, validated


@pytest.fixture
def name(partner):
    return partner_model(partner)


def versions(store, name):
    return {int(v.version): v for v in store.client.search_model_versions(f"name = '{name}'")}


def aliases(store, name):
    return {alias: int(version) for alias, version in store.client.get_registered_model(name).aliases.items()}


def test_the_same_run_and_weights_are_one_version_however_often_registered(store, run, bundle, name):
    first = register(run, bundle, name=name)
    assert register(run, bundle, name=name) == first.__class__(
        **{**vars(first), "reason": "it is champion already"}
    )
    assert list(versions(store, name)) == [1]
    assert first.aliases == ("challenger", "champion")
    assert first.uri == f"models:/{name}/1"
    assert first.url("http://127.0.0.1:5000/") == f"http://127.0.0.1:5000/#/models/{name}/versions/1"


def test_other_weights_and_other_runs_are_other_versions(store, run, tmp_path, name):
    register(run, make_bundle(tmp_path / "a", seed=1), name=name)
    register(run, make_bundle(tmp_path / "b", seed=2), name=name)
    register(run, make_bundle(tmp_path / "c", seed=2, run_id="run-2"), name=name)
    assert sorted(versions(store, name)) == [1, 2, 3]


def test_the_newest_is_challenger_and_the_best_is_champion(store, run, tmp_path, name):
    for seed, value, expected in (
        (1, 0.70, {"challenger": 1, "champion": 1}),
        (2, 0.60, {"challenger": 2, "champion": 1}),
        (3, 0.80, {"challenger": 3, "champion": 3}),
    ):
        bundle = make_bundle(tmp_path / str(seed), seed=seed, validation=validated(value))
        found = register(run, bundle, name=name)
        assert aliases(store, name) == expected
        assert found.reason
    again = register(run, tmp_path / "2", name=name)  # a resumed older run
    assert "version 3 is newer" in again.reason
    assert aliases(store, name) == {"challenger": 3, "champion": 3}


@pytest.mark.parametrize("step", ["log_model_artifacts", "finalize_logged_model", "create_model_version"])
def test_a_registration_that_was_cut_short_is_completed_once(run, bundle, name, monkeypatch, step):
    store = run.store

    def cut(*_arguments, **_keywords):
        raise MlflowException("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(store.client, step, cut)
        with pytest.raises(WorkFailed, match=f"register '{name}'"):
            register(run, bundle, name=name)
    assert versions(store, name) == {}
    assert register(run, bundle, name=name).version == 1
    assert len(store.client.search_logged_models([run.experiment])) == 1


def test_a_version_says_what_it_is_and_no_more_than_its_card(store, run, tmp_path, name):
    bundle = make_bundle(tmp_path / "bundle", data=SIMULATED, validation=validated(0.7))
    register(run, bundle, name=name)
    (version,) = versions(store, name).values()
    assert version.tags["data.synthetic"] == "true"
    assert version.tags["motet.run_id"] == "run-1"
    assert set(version.tags) == {
        "data.synthetic",
        *(f"motet.{tag}" for tag in ("run_id", "kind", "phase", "weights_sha256", "card_sha256")),
        *(f"motet.{tag}" for tag in ("card_validation", "card_data", "model_id")),
    }
    assert SYNTHETIC_BANNER in version.description
    assert SYNTHETIC_BANNER in store.client.get_registered_model(name).description


def test_a_simulated_model_is_champion_in_a_demonstration_only(store, run, tmp_path, name):
    bundle = make_bundle(tmp_path / "bundle", data=SIMULATED)
    assert register(run, bundle, name=name).aliases == ("challenger",)
    assert register(run, bundle, name=name, allow_synthetic_champion=True).aliases == (
        "challenger",
        "champion",
    )


def test_the_trunk_has_the_consortiums_name_and_no_partner_has_it(store, tmp_path, name, run):
    trunk, model = make_bundle(tmp_path / "trunk", kind="trunk"), make_bundle(tmp_path / "model")
    coordinator = open_run(store, experiment="study", run_id="run-1", party="coordinator")
    with pytest.raises(SettingsError, match="cannot be registered as"):
        register(run, trunk, name=name)
    with pytest.raises(SettingsError, match="cannot be registered as"):
        register(coordinator, model, name=CONSORTIUM_MODEL)
    assert register(coordinator, trunk, name=CONSORTIUM_MODEL).version == 1


def test_a_directory_without_a_card_is_refused_before_a_name_is_made(store, run, tmp_path, name):
    with pytest.raises(UpdateMismatch, match="no readable model card"):
        register(run, tmp_path, name=name)
    assert store.client.search_registered_models(f"name = '{name}'") == []
