"""Folds and keyed names: equal at all partners, spread, and useless without the key."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem

from tasks.featurization.folds import fold_of_scaffold, generic_scaffold, structure_key
from tasks.featurization.standardization import Standardizer
from tests.featurization.partner import SECRET, wehi_molecules

SECRETS = st.binary(min_size=32, max_size=32)


def keyed(message, *, purpose, secret=SECRET):
    """HMAC-SHA256 by RFC 2104, written out."""

    def hmac_of(key, data):
        key = key.ljust(64, b"\0")
        inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + data).digest()
        return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()

    return hmac_of(hmac_of(secret, purpose), message)


@given(st.text(max_size=50), SECRETS)
def test_a_fold_is_a_keyed_hash_of_the_scaffold_modulo_five(scaffold, secret):
    digest = keyed(b"fold/v1\0" + scaffold.encode(), purpose=b"motet/fold-key/v1", secret=secret)
    assert fold_of_scaffold(scaffold, secret=secret) == int.from_bytes(digest[:8], "big") % 5


@given(st.text(max_size=50), SECRETS)
def test_a_structure_key_is_half_a_keyed_hash_of_the_parent(parent, secret):
    digest = keyed(b"structure/v1\0" + parent.encode(), purpose=b"motet/structure-key/v1", secret=secret)
    assert structure_key(parent, secret=secret) == digest.hex()[:32]


def test_pinned_folds_and_keys():
    # Own vectors: whoever changes the arithmetic moves compounds between training and test data of old runs.
    benzene = "*1*****1"
    assert [fold_of_scaffold(benzene, secret=bytes([i]) * 32) for i in range(8)] == [4, 2, 3, 3, 1, 3, 4, 1]
    assert structure_key("CCO", secret=SECRET) == "27a19356414ccd8b02b00ae6ebbc5b9a"


@pytest.mark.parametrize(
    ("smiles", "scaffold"),
    [
        ("CC(=O)Oc1ccccc1C(=O)O", "*1*****1"),  # aspirin: one ring
        ("c1ccc2ncccc2c1", "*1***2*****2*1"),  # quinoline: as naphthalene
        ("C1CCC(CC1)CCc1ccncc1", "*1*****1***1*****1"),
        ("CCO", "***"),  # acyclic: its own skeleton
        ("CC(C)C", "**(*)*"),
    ],
)
def test_the_scaffold_is_generic(smiles, scaffold):
    expected = Chem.MolToSmiles(Chem.MolFromSmiles(scaffold))
    found = Chem.MolToSmiles(Chem.MolFromSmiles(generic_scaffold(Chem.MolFromSmiles(smiles))))
    assert found == expected


def test_side_chains_atom_types_and_bond_orders_do_not_move_a_molecule():
    same = ["c1ccccc1CCc1ccncc1", "C1CCCCC1CCC1CCNCC1C", "CC(Cc1ccccc1)c1ccnc(Cl)c1"]
    other = ["c1ccccc1CCC1CCCS1", "c1ccccc1CCCc1ccccc1"]
    scaffolds = [generic_scaffold(Chem.MolFromSmiles(smiles)) for smiles in (*same, *other)]
    assert [scaffolds.index(scaffold) for scaffold in scaffolds] == [0, 0, 0, 3, 4]


def test_salts_and_stereoisomers_share_a_key_and_a_fold():
    parents = [
        Standardizer().parent(s) for s in ("C[C@H](N)c1ccccc1", "C[C@@H](N)c1ccccc1.Cl", "CC([NH3+])c1ccccc1")
    ]
    assert len({structure_key(p.smiles, secret=SECRET) for p in parents}) == 1
    assert len({fold_of_scaffold(generic_scaffold(p.mol), secret=SECRET) for p in parents}) == 1


def test_acyclic_molecules_do_not_all_fall_into_one_fold():
    chains = ["C" * n for n in range(3, 40)] + ["C" * n + "C(C)C" for n in range(1, 30)]
    folds = [fold_of_scaffold(generic_scaffold(Chem.MolFromSmiles(s)), secret=SECRET) for s in chains]
    assert np.bincount(folds, minlength=5).min() >= 5


def test_folds_of_real_scaffolds_are_balanced():
    scaffolds = {generic_scaffold(Chem.MolFromSmiles(smiles)) for smiles in wehi_molecules(800)}
    counts = np.bincount([fold_of_scaffold(s, secret=SECRET) for s in scaffolds], minlength=5)
    expected = len(scaffolds) / 5
    assert ((counts - expected) ** 2 / expected).sum() < 18.5  # chi-square of 4 degrees, p = 0.001


def test_another_secret_gives_other_folds_and_names():
    texts = [f"scaffold-{i}" for i in range(200)]
    same = sum(fold_of_scaffold(t, secret=SECRET) == fold_of_scaffold(t, secret=bytes(32)) for t in texts)
    assert 20 <= same <= 65  # a fifth by chance
    assert structure_key("CCO", secret=SECRET) != structure_key("CCO", secret=bytes(32))
