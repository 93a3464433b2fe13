"""A model prepares molecules as its partner's profile did, or refuses by name."""

import itertools
import json

import numpy as np
import pytest
from rdkit import rdBase

from data_contracts.canonical_json import canonical_bytes
from data_contracts.errors import SettingsError, UpdateMismatch
from tasks.featurization import fingerprints, standardization
from tasks.featurization.permutations import permuted_rows
from tasks.featurization.preparation_rules import FingerprintRule, StructureRules, rules_of
from tasks.featurization.structure_recipe import StructureRecipe
from tasks.featurization.worker import Featurizer
from tasks.local_training.parameters import initial_head, initial_trunk, read_parameters
from tasks.model_registration import molecules, scoring
from tasks.model_registration.bundle import read_card, write_bundle
from tasks.model_registration.prediction import load_model
from tasks.model_registration.recipe import ModelRecipe
from tests.model_registration.conftest import ENDPOINTS, HIDDEN, REAL, make_bundle

SECRET = bytes(range(32))
SMILES = [
    "CC(=O)Oc1ccccc1C(=O)[O-].[Na+]",
    "Oc1ccccn1",
    "C[C@H](N)Cc1ccccc1",
    "CC1=C(C(=O)C2=CC=CC=C2O1)O",
    "C1CC",
]
RULES = {
    "melloddy": rules_of("melloddy").structures,
    "chiral": StructureRules(fingerprint=FingerprintRule(radius=2, n_bits=1024, chirality=True)),
    "counted": StructureRules(fingerprint=FingerprintRule(n_bits=2048, counts=True, permutation="keyed")),
}


def bundle_of(directory, rules, *, secret=SECRET, head=True, recipe=None):
    """A model's directory, and its trunk."""
    trunk = initial_trunk(HIDDEN, seed=0, n_layers=0, n_bits=rules.fingerprint.n_bits)
    write_bundle(
        directory,
        run_id="run-1",
        trunk=trunk,
        head=initial_head(len(ENDPOINTS), HIDDEN, seed=1) if head else None,
        endpoints=ENDPOINTS if head else (),
        data=REAL,
        validation=None,
        recipe=recipe or ModelRecipe.of(rules, secret=secret),
    )
    return directory, trunk


def features_at_the_partner(rules, trunk):
    """What the trunk makes of the rows that featurization would have prepared."""
    recipe = StructureRecipe(rules, SECRET)
    bits = Featurizer(recipe.options)(SMILES[:-1]).column("bits")
    starts, flat = bits.offsets.to_numpy().astype(np.int64), bits.flatten().to_numpy()
    if recipe.permutation is not None:
        flat, _ = permuted_rows(starts, flat, recipe.permutation)
    rows = [trunk["embedding.weight"][flat[a:b]].sum(axis=0) for a, b in itertools.pairwise(starts)]
    return np.maximum(np.array(rows) + trunk["embedding.bias"], 0)


@pytest.mark.parametrize("name", RULES)
def test_a_model_sets_the_bits_that_its_partner_prepared(tmp_path, name):
    directory, trunk = bundle_of(tmp_path, RULES[name])
    features, reasons = scoring.load(directory).features(SMILES)
    assert reasons == [None] * 4 + ["parse"]
    np.testing.assert_allclose(features, features_at_the_partner(RULES[name], trunk), atol=1e-6)


def test_tautomers_and_salts_are_one_molecule_to_a_published_model_and_bits_are_32000(tmp_path):
    directory, _ = bundle_of(tmp_path, RULES["melloddy"])
    card = read_card(directory)
    assert (card.n_bits, card.standardization, card.recipe.permutation) == (32_000, "melloddy-3", "published")
    features, _ = scoring.load(directory).features(["Oc1ccccn1", "O=c1cccc[nH]1", "O=c1cccc[nH]1.Cl"])
    assert (features == features[0]).all()


def test_the_permutation_lies_in_a_partners_model_and_never_in_a_trunk(tmp_path):
    own, _ = bundle_of(tmp_path / "own", RULES["melloddy"])
    shared, _ = bundle_of(tmp_path / "trunk", RULES["melloddy"], secret=None, head=False)
    assert scoring.PERMUTATION in scoring.load(own).weights
    assert scoring.PERMUTATION not in scoring.load(shared).weights
    with pytest.raises(UpdateMismatch, match="only partners hold; nothing was written"):
        bundle_of(tmp_path / "leak", RULES["melloddy"], head=False)
    assert not (tmp_path / "leak" / scoring.WEIGHTS).exists()
    with pytest.raises(UpdateMismatch, match="needs the permutation"):
        bundle_of(tmp_path / "lame", RULES["melloddy"], secret=None)


def test_a_trunk_of_permuted_bits_refuses_molecules_by_name(tmp_path):
    directory, trunk = bundle_of(tmp_path, RULES["melloddy"], secret=None, head=False)
    assert set(read_parameters(directory / scoring.WEIGHTS)) == set(trunk)
    with pytest.raises(ValueError, match="does not hold the permutation"):
        scoring.load(directory).embeddings(SMILES)
    with pytest.raises(SettingsError, match="permuted fingerprint bits") as refused:
        load_model(tmp_path, str(directory)).predict(SMILES)
    assert "partner's own model" in refused.value.advice


def test_a_recipe_of_other_bits_than_the_trunk_is_refused(tmp_path):
    other = ModelRecipe.of(RULES["chiral"], secret=SECRET)
    with pytest.raises(UpdateMismatch, match="reads 32000 bits, the recipe makes 1024"):
        bundle_of(tmp_path, RULES["melloddy"], recipe=other)


def changed_card(directory, **changes):
    card = json.loads((directory / scoring.CARD).read_bytes())
    card["recipe"] |= changes
    (directory / scoring.CARD).write_bytes(canonical_bytes(card))
    return directory


def test_another_rdkit_that_agrees_on_the_reference_molecules_is_warned_about(tmp_path):
    directory = changed_card(make_bundle(tmp_path / "model"), rdkit="2020.03.1")
    with pytest.warns(UserWarning, match=r"trained with RDKit 2020\.03\.1"):
        model = scoring.load(directory)
    assert model.predictions(["CCO"])["valid"] == [True] * len(ENDPOINTS)


def test_another_rdkit_that_prepares_otherwise_is_refused_by_name(tmp_path):
    directory = changed_card(make_bundle(tmp_path / "model"), rdkit="2020.03.1", reference_sha256="0" * 64)
    with pytest.raises(ValueError, match=r"RDKit 2020\.03\.1 prepared; RDKit .* something else"):
        scoring.load(directory)
    with pytest.raises(UpdateMismatch, match="reference molecules"):
        load_model(tmp_path, str(directory))


def test_the_digest_of_the_reference_depends_on_every_part_of_the_recipe():
    digests = {ModelRecipe.of(rules, secret=None).card().reference_sha256 for rules in RULES.values()}
    simple = ModelRecipe().card()
    assert len(digests | {simple.reference_sha256}) == len(RULES) + 1
    assert simple.rdkit == rdBase.rdkitVersion


def test_a_card_tells_the_same_whoever_holds_the_secret():
    rules = RULES["melloddy"]
    assert ModelRecipe.of(rules, secret=None).card() == ModelRecipe.of(rules, secret=SECRET).card()


def test_an_unknown_standardization_is_refused():
    card = {"standardization": "parent-99", "fingerprint": fingerprints.FINGERPRINT}
    with pytest.raises(ValueError, match="parent-99"):
        molecules.Preparer(card, standardization, fingerprints)
