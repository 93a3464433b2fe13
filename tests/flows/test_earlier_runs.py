"""What a party finds of its earlier runs: rows by endpoint, a start that fits, and its own best single arm."""

import json

import numpy as np
import pytest

from data_contracts.errors import SettingsError, UpdateMismatch
from flows.earlier_runs import (
    HEAD,
    SHARED,
    EarlierRuns,
    KeptModel,
    bring_calibrations,
    calibrations,
    keep,
    kept,
    recipe,
    resolve_start,
    warm_head,
    warm_shared,
)
from flows.federated_training import training_parameters
from flows.settings import RunSettings
from flows.single_arm import ALONE, tuned_arm
from flows.sites import Site
from tasks.featurization.preparation_rules import StructureRules
from tasks.local_training.jobs import TrainingSettings
from tasks.local_training.parameters import initial_head, initial_trunk, unflatten, write_parameters
from tasks.local_training.shared_model import PREFIX, initial_shared, shared_layout
from tasks.studies.arms import COMPLETE, TrainedArm

HIDDEN = 4
DIGEST = "ab" * 32
OLD, NEW = ("a", "b", "c"), ("c", "x", "a")


@pytest.fixture
def earlier(tmp_path):
    return EarlierRuns(
        site=lambda name: Site("acme", tmp_path / name),
        names=lambda: sorted(path.name for path in tmp_path.iterdir()),
    )


def _record(**changed):
    record = KeptModel(
        trunk_sha256=DIGEST,
        best_round=3,
        phase="standard",
        hidden=HIDDEN,
        layers=0,
        recipe=recipe(StructureRules()),
        endpoints=OLD,
        figure=0.7,
    )
    return record.model_copy(update=changed)


def test_a_head_keeps_its_rows_by_endpoint_and_draws_the_others(earlier):
    old = initial_head(3, HIDDEN, seed=1)
    old["bias"][:] = [1, 2, 3]
    keep(earlier.site("first"), _record(), {HEAD: old})
    warm = warm_head(earlier.of_trunk(DIGEST), NEW, hidden=HIDDEN, seed=2)
    fresh = initial_head(3, HIDDEN, seed=2)
    np.testing.assert_array_equal(warm["weight"][[0, 2]], old["weight"][[2, 0]])
    np.testing.assert_array_equal(warm["bias"], [3, fresh["bias"][1], 1])
    np.testing.assert_array_equal(warm["weight"][1], fresh["weight"][1])


def test_a_partner_that_took_no_part_in_the_earlier_run_draws_its_head(earlier):
    assert earlier.of_trunk(DIGEST) is None
    assert warm_head(None, NEW, hidden=HIDDEN, seed=2) is None


def test_a_damaged_kept_head_is_refused(earlier):
    keep(earlier.site("first"), _record(), {HEAD: initial_head(2, HIDDEN, seed=1)})
    with pytest.raises(UpdateMismatch):
        warm_head(earlier.of_trunk(DIGEST), NEW, hidden=HIDDEN, seed=2)


def _shared(n_catalogue, seed):
    layout = shared_layout(HIDDEN, n_catalogue=n_catalogue)
    return unflatten(initial_shared(HIDDEN, n_catalogue=n_catalogue, seed=seed), layout)


@pytest.mark.parametrize(("n_old", "n_new"), [(3, 3), (0, 3), (3, 0)])
def test_the_first_shared_model_has_the_earlier_trunk_and_catalogue_rows_by_endpoint(earlier, n_old, n_new):
    old, fresh = _shared(n_old, 1), _shared(n_new, 2)
    keep(earlier.site("first"), _record(endpoints=OLD[:n_old]), {SHARED: old})
    warm = warm_shared(earlier, DIGEST, fresh=fresh, names=NEW[:n_new], prefix=PREFIX)
    assert set(warm) == {name for name, _ in shared_layout(HIDDEN, n_catalogue=n_new)}
    np.testing.assert_array_equal(warm["embedding.weight"], old["embedding.weight"])
    if n_old and n_new:
        rows = warm[PREFIX + "weight"]
        np.testing.assert_array_equal(rows[[0, 2]], old[PREFIX + "weight"][[2, 0]])
        np.testing.assert_array_equal(rows[1], _shared(n_new, 2)[PREFIX + "weight"][1])


def test_a_start_is_the_digest_of_a_finished_run_of_this_layout_and_recipe(earlier):
    keep(earlier.site("first"), _record(), {})
    assert (
        resolve_start(earlier, "first", hidden=HIDDEN, layers=0, phase="standard", rules=StructureRules())
        == DIGEST
    )
    with pytest.raises(SettingsError, match="no finished run 'second'"):
        resolve_start(earlier, "second", hidden=HIDDEN, layers=0, phase="standard", rules=StructureRules())
    with pytest.raises(SettingsError, match="--hidden 4 --layers 0, this run has --hidden 8 --layers 1"):
        resolve_start(earlier, "first", hidden=8, layers=1, phase="standard", rules=StructureRules())
    keep(earlier.site("other"), _record(recipe=recipe(StructureRules()) | {"radius": "2"}), {})
    with pytest.raises(SettingsError, match="another recipe of molecules: radius differ"):
        resolve_start(earlier, "other", hidden=HIDDEN, layers=0, phase="standard", rules=StructureRules())


@pytest.mark.parametrize(
    ("start", "phase", "fold"),
    [
        ("standard", "standard", None),
        ("tune", "report", None),
        ("report", "report", None),
        ("final", "final", None),
        ("report", "tune", 4),
        ("report", "standard", 4),
        ("final", "report", 0),
        ("final", "standard", 0),
    ],
)
def test_no_run_measures_a_fold_that_its_start_was_trained_on(earlier, start, phase, fold):
    keep(earlier.site("first"), _record(phase=start), {})
    if fold is None:
        assert (
            resolve_start(earlier, "first", hidden=HIDDEN, layers=0, phase=phase, rules=StructureRules())
            == DIGEST
        )
    else:
        with pytest.raises(SettingsError, match=f"trained on fold {fold}, which this run would measure"):
            resolve_start(earlier, "first", hidden=HIDDEN, layers=0, phase=phase, rules=StructureRules())


def test_a_report_demands_this_partys_own_part_in_the_tuning_run(earlier):
    with pytest.raises(
        SettingsError, match="'acme' needs the run 'tuned' of phase 'tune', and has no finished run"
    ):
        earlier.demand("tuned", phase="tune")
    keep(earlier.site("tuned"), _record(), {})
    with pytest.raises(SettingsError, match="has a run of phase 'standard'"):
        earlier.demand("tuned", phase="tune")


def test_a_record_of_another_form_counts_as_none(earlier, tmp_path):
    keep(earlier.site("first"), _record(), {})
    path = tmp_path / "first" / "kept" / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"extra": 1}))
    assert kept(earlier.site("first")) is None


def _trained(site, *, auprc, best_epoch, hidden=HIDDEN, rate=0.1):
    directory = site.root / ALONE
    directory.mkdir(parents=True)
    write_parameters(directory / "trunk.safetensors", initial_trunk(hidden, seed=1))
    record = TrainedArm(
        best_epoch=best_epoch,
        auprc=auprc,
        settings=TrainingSettings(learning_rate=rate),
        learning_rate_decay=1,
        decay_epochs=2,
    )
    (directory / COMPLETE).write_text(record.model_dump_json())


def _report_of(search):
    settings = RunSettings(phase="report", rounds_from="find-r0-t000", search=search, hidden=HIDDEN)
    return training_parameters(settings)


def test_a_single_arm_is_its_partners_own_best_of_as_many_trials(earlier):
    for number, (auprc, hidden) in enumerate([(0.6, 4), (0.8, 8), (None, 4)]):
        _trained(earlier.site(f"find-r0-t{number:03d}"), auprc=auprc, best_epoch=number + 1, hidden=hidden)
    best = tuned_arm(_report_of("find"), earlier)
    assert (best.arm.best_epoch, best.hidden, best.layers) == (2, 8, 0)
    assert tuned_arm(_report_of(""), earlier).arm.best_epoch == 1, "without a search, that of the tuning run"
    assert tuned_arm(training_parameters(RunSettings()), earlier) is None


def test_held_out_scores_go_from_phase_to_phase_and_a_missing_arm_is_named(earlier, tmp_path):
    tuned, report = earlier.site("tuned"), earlier.site("report")
    scores = tmp_path / "scores"
    for arm in ("federated", "single"):
        (scores / arm).mkdir(parents=True)
        (scores / arm / "scores.arrow").write_bytes(f"fold 0 {arm}".encode())
        calibrations(tuned, arm).parent.mkdir(parents=True)
        calibrations(tuned, arm).write_bytes(f"fold 4 {arm}".encode())
    bring_calibrations(scores, arms=("federated", "single"), tuned=tuned, site=report)
    assert (scores / "single" / "calibration" / "scores.arrow").read_bytes() == b"fold 4 single"
    assert calibrations(report, "federated").read_bytes() == b"fold 0 federated"
    with pytest.raises(SettingsError, match="no arm 'pooled'"):
        bring_calibrations(scores, arms=("pooled",), tuned=tuned, site=report)
