"""Which structures must stay with one company, and which of them are chemically close.

Why: salts, charge states, tautomers and stereoisomers of one compound at two companies would put one training
example on both sides. Runs: anywhere. Source: own; the element graph of the largest fragment (skeleton of elements
without bond orders, hydrogens and charges) is the same for all of them: proved in tests/simulation.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from rdkit import Chem, rdBase
from rdkit.Chem import rdMolHash
from rdkit.Chem.MolStandardize import rdMolStandardize

from tasks.featurization.folds import generic_scaffold

IntVector = npt.NDArray[np.int64]
Mol: TypeAlias = Any  # rdkit ships no types

CHUNK = 512
UNREADABLE = ""
_HYDROGEN_ISOTOPE = re.compile(r"\[[23]H")
_METAL = re.compile(
    r"\[\d*(?:Li|Na|K|Rb|Cs|Be|Mg|Ca|Sr|Ba|Al|Ga|In|Tl|Sn|Pb|Bi|Ti|V|Cr|Mn|Fe|Co|Ni|Cu|Zn|Zr|Mo|Ru|Rh|Pd|Ag|Cd|Pt|Au|Hg"
    r"|W|Re|Os|Ir|Gd|Sb)(?![a-z])"
)


@dataclass(frozen=True, slots=True)
class StructureKeys:
    """Three names of one structure, from exact to coarse; all empty where the SMILES is unreadable.

    Attributes:
        exact: Canonical SMILES as given: equal for repeated rows.
        skeleton: Element graph of the largest fragment: equal for salts, tautomers and stereoisomers.
        cluster: Generic Murcko scaffold; the generic graph where there is no ring.
    """

    exact: str
    skeleton: str
    cluster: str


@dataclass(frozen=True, slots=True)
class StructureGroups:
    """Row-wise group numbers, each of shape ``(n_structures,)``, int64, numbered in order of first appearance.

    An unreadable structure is alone in each of its groups.
    """

    exact: IntVector
    skeleton: IntVector
    cluster: IntVector
    readable: npt.NDArray[np.bool_]

    def at(self, rows: IntVector) -> "StructureGroups":
        """The groups of some rows, under the same numbers."""
        return StructureGroups(self.exact[rows], self.skeleton[rows], self.cluster[rows], self.readable[rows])


def parsed_chunks(smiles: Sequence[str], *, chunk: int = CHUNK) -> Iterator[list[Mol | None]]:
    """Parse SMILES in chunks, so that only one chunk of molecules lives at a time.

    Args:
        smiles: One SMILES a row; its text never reaches a log.
        chunk: Rows a chunk.

    Yields:
        Molecules in order; None where a SMILES is unreadable.
    """
    for start in range(0, len(smiles), chunk):
        with rdBase.BlockLogs():
            block: list[Mol] = [Chem.MolFromSmiles(text) for text in smiles[start : start + chunk]]
        yield [mol if mol is not None and mol.GetNumAtoms() else None for mol in block]


def structure_keys(mol: Mol | None) -> StructureKeys:
    """Name one molecule; None is unreadable."""
    if mol is None:
        return StructureKeys(UNREADABLE, UNREADABLE, UNREADABLE)
    exact = Chem.MolToSmiles(mol)
    main = Chem.Mol(_main_fragment(mol, exact))
    Chem.RemoveStereochemistry(main)  # rdkit's graph hashes keep the marks of stereocentres
    return StructureKeys(
        exact=exact,
        skeleton=rdMolHash.MolHash(main, rdMolHash.HashFunction.ElementGraph),
        cluster=generic_scaffold(main),
    )


def _main_fragment(mol: Mol, exact: str) -> Mol:
    """Undo what a salt form or a label adds; most structures need nothing."""
    if not ("." in exact or _METAL.search(exact) or _HYDROGEN_ISOTOPE.search(exact)):
        return mol
    with rdBase.BlockLogs():
        if _METAL.search(exact):
            mol = rdMolStandardize.MetalDisconnector().Disconnect(mol)
        mol = rdMolStandardize.LargestFragmentChooser(preferOrganic=False).choose(mol)
        if _HYDROGEN_ISOTOPE.search(exact):
            mol = Chem.Mol(mol)
            for atom in mol.GetAtoms():
                atom.SetIsotope(0)
            mol = Chem.RemoveHs(mol)
    return mol


def number_groups(keys: Iterable[StructureKeys]) -> StructureGroups:
    """Turn names into numbers.

    Args:
        keys: One entry a structure, in order.

    Returns:
        The groups; the same names give the same numbers in every process.
    """
    rows = list(keys)
    return StructureGroups(
        exact=_numbered([row.exact for row in rows]),
        skeleton=_numbered([row.skeleton for row in rows]),
        cluster=_numbered([row.cluster for row in rows]),
        readable=np.array([row.exact != UNREADABLE for row in rows], dtype=bool),
    )


def group_structures(smiles: Sequence[str]) -> StructureGroups:
    """Parse, name and number a list of SMILES (about 0.3 ms each on one core)."""
    return number_groups(structure_keys(mol) for block in parsed_chunks(smiles) for mol in block)


def _numbered(names: Sequence[str]) -> IntVector:
    seen: dict[str | int, int] = {}
    numbers = np.empty(len(names), dtype=np.int64)
    for row, name in enumerate(names):
        numbers[row] = seen.setdefault(name if name != UNREADABLE else row, len(seen))
    return numbers
