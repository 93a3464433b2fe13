"""The file inside the model computes what the network was trained to compute, and explains what it cannot."""

import importlib.util
import json
import os
import py_compile
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.catalogue import PREDICTIONS
from data_contracts.validation import require_valid
from tasks.featurization import fingerprints, standardization
from tasks.local_training.network import embed, features_behind, logits_of, without_dropout
from tasks.local_training.parameters import initial_head, initial_trunk
from tasks.model_registration import molecules, scoring
from tasks.simulation.molecules import embedded_structures, rdkit_data_directory
from tests.model_registration.conftest import ENDPOINTS, HIDDEN, SIMPLE_CARD, make_bundle

MOLECULES = embedded_structures(rdkit_data_directory())["smiles"].to_pylist()[:10_000:250]
INVALID = {
    "C1CC": "parse",
    "c1ccccc1 CCO": "parse",  # RDKit would read the first half
    "CC(C)(C)(C)C": "parse",
    "[Na+].[Cl-]": "no_carbon",
    "CC*": "dummy_atom",
    "C" * 101: "too_large",
    "C" * 6000: "too_long",
    None: "missing",
    float("nan"): "missing",
}


def model_of(*, seed=0, n_layers=1, head=True, scale=1.0):
    trunk = initial_trunk(HIDDEN, seed=seed, n_layers=n_layers)
    last = (
        {k: scale * v for k, v in initial_head(len(ENDPOINTS), HIDDEN, seed=seed + 1).items()} if head else {}
    )
    card = SIMPLE_CARD | {
        "endpoints": list(ENDPOINTS) if head else [],
        "kind": "qsar" if head else "trunk",
    }
    return scoring.ScoringModel(card, {**trunk, **last}, standardization, fingerprints, molecules)


def torch_features(model, smiles):
    standardizer = standardization.Standardizer()
    starts, bits = fingerprints.hashed_bits_of([standardizer.parent(text).mol for text in smiles])
    tensors = {name: torch.from_numpy(array) for name, array in model.weights.items()}
    with torch.no_grad():
        embedded = embed(
            tensors["embedding.weight"],
            tensors["embedding.bias"],
            bits=torch.from_numpy(bits.astype(np.int64)),
            starts=torch.from_numpy(starts[:-1]),
        )
        return features_behind(embedded, tensors, dropout=without_dropout), tensors


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999), st.integers(0, 2), st.lists(st.sampled_from(MOLECULES), min_size=1, max_size=30))
def test_probabilities_are_those_of_the_trained_network(seed, n_layers, smiles):
    model = model_of(seed=seed, n_layers=n_layers)
    features, tensors = torch_features(model, smiles)
    expected = torch.sigmoid(logits_of(features, tensors)).numpy()
    values, reasons, endpoints = model.probabilities(smiles)
    assert reasons == [None] * len(smiles)
    assert endpoints == list(ENDPOINTS)
    np.testing.assert_allclose(values, expected, atol=1e-5, rtol=0)


def test_embeddings_of_a_trunk_are_those_of_the_trained_network():
    model = model_of(head=False, n_layers=2)
    features, _ = torch_features(model, MOLECULES)
    np.testing.assert_allclose(model.embeddings(MOLECULES)["features"], features.numpy(), atol=1e-5, rtol=0)


def test_a_prediction_does_not_depend_on_its_neighbours(monkeypatch):
    model = model_of()
    together, _, _ = model.probabilities(MOLECULES)
    monkeypatch.setattr(scoring, "CHUNK", 3)
    by_threes, _, _ = model.probabilities(MOLECULES)
    one_by_one = np.concatenate([model.probabilities([text])[0] for text in MOLECULES])
    np.testing.assert_array_equal(by_threes, together)
    np.testing.assert_allclose(one_by_one, together, atol=1e-6, rtol=0)


@pytest.mark.parametrize("other", ["CC(=O)Oc1ccccc1C(=O)[O-].[Na+]", "OC(=O)c1ccccc1OC(C)=O", "[2H]C(=O)O"])
def test_forms_of_one_compound_are_predicted_alike(other):
    same = "C(=O)O" if "2H" in other else "CC(=O)Oc1ccccc1C(=O)O"
    values, _, _ = model_of().probabilities([same, other])
    np.testing.assert_array_equal(values[0], values[1])


@pytest.mark.parametrize("smiles", INVALID, ids=lambda text: str(text)[:20])
def test_what_cannot_be_predicted_gets_a_reason_and_no_number(smiles, capfd):
    table = model_of().predictions(["CCO", smiles, "CCN"])
    assert table["valid"] == [True] * 3 + [False] * 3 + [True] * 3
    assert table["reason"][3:6] == [INVALID[smiles]] * 3
    assert table["probability"][3:6] == [None] * 3
    assert None not in table["probability"][:3] + table["probability"][6:]
    assert capfd.readouterr() == ("", "")


def test_a_table_of_predictions_keeps_its_contract_and_its_order():
    smiles = ["CCO", "C1CC", "CCN"]
    table = model_of().predictions(smiles)
    assert list(zip(table["smiles"], table["endpoint"], strict=True)) == [
        (text, endpoint) for text in smiles for endpoint in ENDPOINTS
    ]
    schema = pa.schema([PREDICTIONS.schema.field(name) for name in table])  # optional columns are absent
    batches = pa.table(table).cast(schema).to_batches()
    accepted = require_valid(batches, PREDICTIONS, source="predictions")
    assert sum(batch.num_rows for batch in accepted) == 9


def test_nothing_valid_and_nothing_asked_are_tables_too():
    model = model_of()
    assert model.predictions([])["smiles"] == []
    assert model.predictions(["C1CC"])["valid"] == [False] * 3
    assert model_of(head=False).embeddings(["C1CC"])["features"] == [None]


def test_chosen_endpoints_are_columns_of_all_and_an_unknown_one_is_refused():
    model = model_of()
    whole, _, _ = model.probabilities(MOLECULES)
    chosen, _, names = model.probabilities(MOLECULES, endpoints=[ENDPOINTS[2], ENDPOINTS[0]])
    assert names == [ENDPOINTS[2], ENDPOINTS[0]]
    np.testing.assert_array_equal(chosen, whole[:, [2, 0]])
    with pytest.raises(ValueError, match="no endpoint"):
        model.probabilities(MOLECULES, endpoints=["A9"])


def test_the_sigmoid_does_not_overflow_and_stays_a_probability():
    values, _, _ = model_of(scale=1e6).probabilities(MOLECULES)
    assert ((values >= 0) & (values <= 1)).all()
    assert {0.0, 1.0} & set(values.ravel().tolist())


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "standardization.py", "fingerprints.py", "scoring.py"]
)
def test_one_changed_byte_in_any_file_is_refused_before_it_is_used(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is not the file of this model"):
        scoring.load(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format": "motet-model@9"}, "format"), ({"sha256": {"../../etc/passwd": "0" * 64}}, "unknown file")],
)
def test_a_card_of_another_format_or_with_foreign_files_is_refused(bundle, change, message):
    card = json.loads((bundle / scoring.CARD).read_bytes()) | change
    (bundle / scoring.CARD).write_text(json.dumps(card))
    with pytest.raises(ValueError, match=message):
        scoring.load(bundle)


def test_a_planted_bytecode_file_is_not_run_and_none_is_left(bundle, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for name in [name for name in sys.modules if name.startswith("_motet_model_")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("standardization", "fingerprints"):
        source = bundle / f"{name}.py"
        stat = source.stat()
        evil = bundle / f"evil_{name}.py"
        evil.write_text("raise SystemExit('planted bytecode ran')".ljust(stat.st_size))
        os.utime(evil, (stat.st_atime, stat.st_mtime))  # as Python's loader checks it
        py_compile.compile(str(evil), cfile=importlib.util.cache_from_source(str(source)), doraise=True)
        evil.unlink()
    before = sorted(bundle.rglob("*"))
    loaded = scoring.load(bundle)
    assert loaded.predictions(["CCO"])["valid"] == [True] * len(ENDPOINTS)
    assert sorted(bundle.rglob("*")) == before


def test_source_that_fails_is_not_half_loaded_the_next_time(tmp_path):
    (tmp_path / "broken.py").write_text("LOADED = True\nraise RuntimeError('halfway')")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="halfway"):
            scoring.load_source(tmp_path / "broken.py", "broken")


def test_two_models_with_other_code_do_not_meet(tmp_path):
    one, other = (scoring.load(make_bundle(tmp_path / name)) for name in ("one", "other"))
    assert one.fingerprints is other.fingerprints  # the same bytes, loaded once
    changed = tmp_path / "changed.py"
    changed.write_text((tmp_path / "one" / "fingerprints.py").read_text() + "\nRADIUS = 2\n")
    module = scoring.load_source(changed, "fingerprints")
    assert (module.RADIUS, one.fingerprints.RADIUS, fingerprints.RADIUS) == (2, 3, 3)
