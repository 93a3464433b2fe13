"""Parents, scaffolds, folds and permuted bits are those that MELLODDY's own code gives."""

import hashlib
import hmac
import itertools
import json
import random  # noqa: TID251 - the oracle: what the published code draws from
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem

from tasks.featurization.fingerprints import Hasher
from tasks.featurization.permutations import keyed_permutation, permuted_rows, published_permutation
from tasks.featurization.published_folds import ACYCLIC, network_scaffold, published_fold
from tasks.featurization.standardization import PublishedStandardizer

VECTORS = json.loads(
    (Path(__file__).resolve().parents[1] / "vectors" / "melloddy_structures.json").read_bytes()
)
KEY = b"melloddy"


@pytest.fixture(scope="module")
def permutation():
    return published_permutation(VECTORS["permutation"]["n_bits"], key=KEY)


def test_the_permutation_is_the_published_one(permutation):
    assert permutation[:8].tolist() == VECTORS["permutation"]["first"]
    digest = hashlib.sha256(permutation.astype("<i4").tobytes()).hexdigest()
    assert digest == VECTORS["permutation"]["sha256_int32"]


def test_structures_become_what_the_published_code_makes_of_them(permutation):
    standardizer, hasher = PublishedStandardizer(), Hasher(n_bits=32_000)
    for smiles, standardized, scaffold, fold, digest in VECTORS["molecules"]:
        parent = standardizer.parent(smiles)
        assert parent.smiles == standardized
        chosen = network_scaffold(parent.mol)
        assert chosen == (scaffold or ACYCLIC)
        assert published_fold(chosen, key=KEY) == fold
        starts, bits, _ = hasher.rows_of([parent.mol])
        permuted, _ = permuted_rows(starts, bits, permutation)
        assert hashlib.sha256(permuted.astype("<u2").tobytes()).hexdigest()[:16] == digest


def test_imatinib_has_the_scaffold_and_fold_that_the_tool_states_in_its_own_test():
    imatinib = Chem.MolFromSmiles("Cc1ccc(cc1Nc2nccc(n2)c3cccnc3)NC(=O)c4ccc(cc4)CN5CCN(CC5)C")
    assert network_scaffold(imatinib) == "c1ccc(Nc2nccc(-c3cccnc3)n2)cc1"
    assert published_fold("c1ccc(Nc2nccc(-c3cccnc3)n2)cc1", key=KEY) == 2


@given(st.text("CNOc1()=#", max_size=30), st.binary(min_size=1, max_size=40), st.integers(2, 40))
def test_a_fold_is_what_python_would_draw(scaffold, key, n_folds):
    drawn = random.Random()
    drawn.seed(hmac.digest(key, scaffold.encode(), "sha256"), version=2)
    assert published_fold(scaffold, key=key, n_folds=n_folds) == drawn.randint(0, n_folds - 1)


@given(st.integers(1, 300), st.binary(min_size=1, max_size=64))
def test_a_permutation_moves_every_bit_to_a_place_of_its_own_and_follows_the_key(n_bits, key):
    for permute in (keyed_permutation, published_permutation):
        moved = permute(n_bits, key=key)
        assert sorted(moved.tolist()) == list(range(n_bits))
        assert (permute(n_bits, key=key) == moved).all()
    if n_bits > 50:
        assert (keyed_permutation(n_bits, key=key + b"x" if len(key) < 64 else key[1:]) != moved).any()


def test_the_keyed_permutation_is_pinned():
    # Computed once; another machine, Python or NumPy must give the same bits.
    moved = keyed_permutation(32_768, key=bytes(range(32)))
    assert hashlib.sha256(moved.astype("<i4").tobytes()).hexdigest()[:16] == "819f4f7b52a46ece"


@given(st.lists(st.sets(st.integers(0, 99), max_size=8), max_size=6))
def test_permuted_rows_hold_the_moved_bits_in_order_and_know_where_they_came_from(rows):
    flat = np.array([bit for row in rows for bit in sorted(row)], dtype=np.uint16)
    starts = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    permutation = keyed_permutation(100, key=b"k")
    moved, origin = permuted_rows(starts, flat, permutation)
    for row, (start, end) in zip(rows, itertools.pairwise(starts), strict=True):
        assert moved[start:end].tolist() == sorted(int(permutation[bit]) for bit in row)
    assert (permutation[flat[origin]] == moved).all()


def test_tautomers_that_take_too_long_have_no_parent():
    standardizer = PublishedStandardizer(deadline_seconds=0.0)
    slow = "Nc1nc2c(ncn2C2OC(CO)C(O)C2O)c(=O)[nH]1"
    assert standardizer.parent(slow).reason == "tautomer_deadline"
    assert PublishedStandardizer().parent(slow).smiles is not None
