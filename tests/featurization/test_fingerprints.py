"""Hashed fingerprints: RDKit's own bits, from bytes whose layout is pinned."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

from tasks.featurization import fingerprints, standardization
from tasks.featurization.fingerprints import FINGERPRINT, N_BITS, RADIUS, hashed_bits, hashed_bits_of
from tests.featurization.partner import wehi_molecules

GENERATOR = rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=32_768)
MOLS = [Chem.MolFromSmiles(smiles) for smiles in wehi_molecules(60)]
PLACES = st.lists(st.integers(0, len(MOLS) - 1), max_size=20)


def test_the_serialized_layout_is_that_of_a_header_and_pairs():
    for mol in MOLS:
        count = GENERATOR.GetCountFingerprint(mol)
        words = np.frombuffer(count.ToBinary(), dtype="<u4")
        assert words[:4].tolist() == [1, 4, 32_768, len(count.GetNonzeroElements())]
        assert (
            dict(zip(words[4::2].tolist(), words[5::2].tolist(), strict=True)) == count.GetNonzeroElements()
        )


def test_bits_are_those_of_rdkits_bit_vector_and_sorted():
    for mol in MOLS:
        bits = hashed_bits(mol)
        assert bits.dtype == np.uint16
        assert bits.tolist() == list(GENERATOR.GetFingerprint(mol).GetOnBits())


def test_bits_of_ethanol_are_the_known_ones():
    # Source: GetNonzeroElements of RDKit 2026.09.1; another RDKit that gives others makes other models.
    assert hashed_bits(Chem.MolFromSmiles("CCO")).tolist() == [3458, 6438, 13095, 18654, 22608, 23585]


@given(PLACES)
def test_rows_of_many_are_the_rows_of_each(places):
    starts, bits = hashed_bits_of([MOLS[place] for place in places])
    assert starts[0] == 0
    assert starts[-1] == len(bits)
    assert starts.shape == (len(places) + 1,)
    for row, place in enumerate(places):
        assert bits[starts[row] : starts[row + 1]].tolist() == hashed_bits(MOLS[place]).tolist()


@pytest.mark.parametrize("word", range(4))
def test_an_unknown_layout_is_refused_not_misread(word):
    blobs = [GENERATOR.GetCountFingerprint(mol).ToBinary() for mol in MOLS[:3]]
    words = np.frombuffer(blobs[1], dtype="<u4").copy()
    words[word] += 1
    blobs[1] = words.tobytes()
    with pytest.raises(ValueError, match="unknown layout"):
        fingerprints._rows_of(blobs)


@pytest.mark.parametrize("size", [0, 8, 17, 20])
def test_a_cut_off_fingerprint_is_refused(size):
    blobs = [GENERATOR.GetCountFingerprint(mol).ToBinary() for mol in MOLS[:3]]
    with pytest.raises(ValueError, match="unknown layout"):
        fingerprints._rows_of([*blobs, blobs[0][:size]])


def test_the_description_says_what_the_generator_does():
    assert FINGERPRINT["radius"] == RADIUS
    assert FINGERPRINT["n_bits"] == N_BITS
    assert f"fpSize={N_BITS}" in GENERATOR.GetInfoString()


@pytest.mark.parametrize(
    ("module", "foreign"), [(fingerprints, {"numpy", "rdkit"}), (standardization, {"rdkit"})]
)
def test_files_that_travel_with_models_import_nothing_of_ours(module, foreign):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(node.module.split(".")[0])
    assert roots - sys.stdlib_module_names == foreign
