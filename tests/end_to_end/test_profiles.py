"""A run under rules of one's own ends with models that prepare a molecule as the partner did in training."""

import warnings

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import yaml

from data_contracts.catalogue import ENDPOINTS, HASHED_FINGERPRINTS
from data_contracts.writing import read_table
from tasks.evaluation.score_tables import read_scores
from tasks.featurization.preparation_rules import rules_of
from tasks.featurization.structure_recipe import StructureRecipe
from tasks.featurization.worker import Featurizer
from tasks.model_registration.bundle import read_card
from tests.end_to_end.conftest import Finished, last_object, motet

pytestmark = pytest.mark.timeout(400)
PARTNER = "partner-a"
N_COMPARED = 60
STRUCTURES = {
    "standardization": "published",
    "fingerprint": {"radius": 2, "n_bits": 4096, "permutation": "keyed"},
    "folds": {"rule": "published"},
}


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    rules = rules_of("simple").model_dump(mode="json") | {"name": "house", "structures": STRUCTURES}
    path = tmp_path_factory.mktemp("profile") / "house.yaml"
    path.write_text(yaml.safe_dump(rules))
    return path


@pytest.fixture(scope="module")
def profiled(run_arguments, profile, tmp_path_factory):
    home = tmp_path_factory.mktemp("profiled") / "motet-home"
    done = motet(*run_arguments, "--profile", profile, "--no-pooled-arm", home=home)
    return Finished(home=home, output=done.stdout + done.stderr, result=last_object(done))


def scored_in_training(finished, rules):
    """SMILES, endpoint and probability of labels that the partner scored when the run was tested."""
    site = finished.directory / "partners" / PARTNER
    (scores_path,) = site.glob("rounds/*/federated/calibration/scores.arrow")
    scores = read_scores(scores_path.parent.parent / "scores.arrow")
    recipe = StructureRecipe(rules.structures, (site / "keys" / "consortium_secret").read_bytes())
    keys = read_table(site / "prepared" / "fingerprints.arrow", HASHED_FINGERPRINTS)["structure_key"]
    names = read_table(site / "prepared" / "endpoints.arrow", ENDPOINTS)["endpoint_id"].to_pylist()
    smiles = own_structures(finished)
    parents = Featurizer(recipe.options)(smiles).column("parent").to_pylist()
    of_key = {
        recipe.structure_key(parent): text for text, parent in zip(smiles, parents, strict=True) if parent
    }
    return [
        (of_key[key], names[endpoint], probability)
        for key, endpoint, probability in zip(
            keys.take(scores.structure).to_pylist(), scores.endpoint, scores.probability, strict=True
        )
        if key in of_key
    ]


def own_structures(finished):
    files = sorted(finished.home.glob(f"data/*/{PARTNER}/structures.*"))
    read = pq.read_table if files[0].suffix == ".parquet" else pa_csv.read_csv
    return read(files[0])["smiles"].to_pylist()[: 4 * N_COMPARED]


def test_a_loaded_model_predicts_what_the_partner_scored_in_training(profiled, profile):
    compared = scored_in_training(profiled, rules_of(profile))[: 4 * N_COMPARED]
    assert len({smiles for smiles, _, _ in compared}) > 10
    with warnings.catch_warnings():
        # MLflow about its own type hints and tables: once a process, whichever test comes first.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        import mlflow.pyfunc
        import pandas as pd

        mlflow.set_tracking_uri(f"sqlite:///{profiled.home}/mlflow/mlflow.db")
        model = mlflow.pyfunc.load_model(f"models:/{PARTNER}-qsar/1")
    asked = sorted({smiles for smiles, _, _ in compared})
    table = model.predict(pd.DataFrame({"smiles": asked}))
    predicted = dict(
        zip(zip(table["smiles"], table["endpoint"], strict=True), table["probability"], strict=True)
    )
    found = [predicted[smiles, endpoint] for smiles, endpoint, _ in compared]
    np.testing.assert_allclose(found, [probability for _, _, probability in compared], atol=1e-6)


def test_the_coordinators_trunk_reads_as_many_bits_and_holds_no_permutation(profiled):
    card = read_card(profiled.directory / "coordinator" / "model")
    assert (card.n_bits, card.fingerprint["radius"], card.recipe.permutation) == (4096, 2, "keyed")
    asked = motet("predict", "motet-trunk", "CCO", home=profiled.home, check=False)
    assert asked.returncode == 2
    assert "only the partners" in asked.stderr
    assert "Traceback" not in asked.stderr
    files = [path.read_bytes() for path in (profiled.directory / "coordinator").rglob("*") if path.is_file()]
    files += [path.read_bytes() for path in (profiled.directory / "mailbox").rglob("*") if path.is_file()]
    secret = (profiled.directory / "partners" / PARTNER / "keys" / "consortium_secret").read_bytes()
    table = StructureRecipe(rules_of("simple").structures.model_validate(STRUCTURES), secret).permutation
    for kind in (np.uint16, np.int64):
        assert not any(table.astype(kind).tobytes() in content for content in files)


def test_a_profile_that_is_none_is_refused_by_name(run_arguments, tmp_path):
    refused = motet(*run_arguments, "--profile", "mellody", home=tmp_path, check=False)
    assert refused.returncode == 2
    assert "no readable profile 'mellody'" in refused.stderr
