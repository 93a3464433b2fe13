"""What is one compound to a chemist stays with one company."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, rdBase
from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers, StereoEnumerationOptions
from rdkit.Chem.MolStandardize import rdMolStandardize

from tasks.simulation.molecules import embedded_structures, rdkit_data_directory
from tasks.simulation.structure_groups import group_structures

MOLECULES = embedded_structures(rdkit_data_directory())["smiles"].to_pylist()[:10_000:25]
COUNTER_IONS = (".Cl", ".[Na+]", ".OC(=O)C(=O)O", ".O")
molecules = st.sampled_from(MOLECULES)


def groups_of(*smiles):
    return group_structures(smiles)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CC(=O)Oc1ccccc1C(=O)O", "CC(=O)Oc1ccccc1C(=O)[O-].[Na+]"),  # aspirin and its sodium salt
        ("Oc1ccccn1", "O=c1cccc[nH]1"),  # 2-hydroxypyridine and 2-pyridone
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"),  # L- and D-alanine
        ("[2H]C([2H])([2H])O", "CO"),  # labelled methanol
        ("CCN.Cl", "CC[NH3+].[Cl-]"),
        ("CC(=O)O[Na]", "CC(=O)O"),  # a bond to the metal, as some tables write salts
    ],
)
def test_forms_of_one_compound_share_a_skeleton(one, other):
    skeleton = groups_of(one, other).skeleton
    assert skeleton[0] == skeleton[1]


def test_different_compounds_do_not():
    smiles = ("CCO", "CCN", "CCCO", "c1ccccc1", "C1CCCCC1O")
    assert len(set(groups_of(*smiles).skeleton)) == len(smiles)


@settings(max_examples=60, deadline=None)
@given(molecules, st.sampled_from(COUNTER_IONS))
def test_a_counter_ion_changes_no_skeleton(smiles, ion):
    skeleton = groups_of(smiles, smiles + ion).skeleton
    assert skeleton[0] == skeleton[1]


@settings(max_examples=30, deadline=None)
@given(molecules)
def test_tautomers_and_stereoisomers_change_no_skeleton(smiles):
    mol = Chem.MolFromSmiles(smiles)
    enumerator = rdMolStandardize.TautomerEnumerator()
    enumerator.SetMaxTautomers(8)
    with rdBase.BlockLogs():
        forms = [*enumerator.Enumerate(mol)]
    forms += EnumerateStereoisomers(mol, options=StereoEnumerationOptions(maxIsomers=4, rand=0))
    assert len(set(groups_of(smiles, *(Chem.MolToSmiles(form) for form in forms)).skeleton)) == 1


@settings(max_examples=60, deadline=None)
@given(molecules, st.integers(0, 2**31 - 1))
def test_another_way_to_write_a_structure_is_the_same_structure(smiles, seed):
    rewritten = Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(smiles), 1, randomSeed=seed)[0]
    groups = groups_of(smiles, rewritten)
    assert groups.exact[0] == groups.exact[1]
    assert groups.cluster[0] == groups.cluster[1]


def test_the_three_groupings_nest_from_exact_to_coarse():
    groups = groups_of(*MOLECULES, *(text + ".Cl" for text in MOLECULES[:20]))
    for fine, coarse in ((groups.exact, groups.skeleton), (groups.skeleton, groups.cluster)):
        assert len(set(zip(fine, coarse, strict=True))) == len(set(fine))


def test_unreadable_structures_are_alone_and_never_printed(capfd):
    groups = groups_of("C1CCCANARY", "", "CCO", "C1CCCANARY", "c1cc")
    assert groups.readable.tolist() == [False, False, True, False, False]
    assert len(set(groups.skeleton)) == len(set(groups.exact)) == len(set(groups.cluster)) == 5
    assert capfd.readouterr() == ("", "")
