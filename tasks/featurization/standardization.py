"""The parent structure of a molecule, with objects that are made once.

Why: the convenience functions of ``rdMolStandardize`` rebuild their rules for every molecule and are five times
slower. This file travels inside every registered model, so that a consumer prepares a molecule as the training
data was: it imports RDKit alone. Runs: anywhere. Source: steps of ``rdMolStandardize.ChargeParent`` (RDKit
2026.09), then isotopes and stereo removed as MELLODDY-TUNER does; no canonical tautomer.
"""

from dataclasses import dataclass
from typing import Any

from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

PROFILE = "parent-1"
MAX_HEAVY_ATOMS = 100
CARBON = 6

REASONS = ("parse", "empty", "too_large", "dummy_atom", "no_carbon", "failed")


@dataclass(frozen=True, slots=True)
class Parent:
    """A molecule's parent, or the reason why there is none.

    Attributes:
        mol: The parent (``rdkit.Chem.Mol``), or None.
        smiles: Its canonical SMILES without stereo, or None.
        reason: One of ``REASONS``, or None.
    """

    mol: Any
    smiles: str | None
    reason: str | None


class Standardizer:
    """Finds parents; keep one per process."""

    def __init__(self) -> None:
        """Build the rules once."""
        with rdBase.BlockLogs():
            self._metals = rdMolStandardize.MetalDisconnector()
            self._normalizer = rdMolStandardize.Normalizer()
            self._reionizer = rdMolStandardize.Reionizer()
            self._largest = rdMolStandardize.LargestFragmentChooser(preferOrganic=False)
            self._uncharger = rdMolStandardize.Uncharger()

    def parent(self, smiles: str) -> Parent:
        """Find the parent of one structure.

        Args:
            smiles: A structure; its text never reaches a log or a message.

        Returns:
            The parent, or a reason code.
        """
        with rdBase.BlockLogs():
            try:
                return self._parent(smiles)
            except Exception:  # noqa: BLE001 - RDKit raises many types, and their texts hold the structure
                return Parent(None, None, "failed")

    def _parent(self, smiles: str) -> Parent:
        mol = Chem.MolFromSmiles(smiles)
        if mol is None:
            return Parent(None, None, "parse")
        reason = _refusal(mol)
        if reason is not None:
            return Parent(None, None, reason)
        if self._standardize(mol, in_parts="." in smiles):
            # What the rules leave lacks ring information: only a re-parsed molecule is as good as a new one.
            mol = Chem.MolFromSmiles(Chem.MolToSmiles(mol))
            if mol is None:
                return Parent(None, None, "failed")
        reason = _refusal(mol)
        if reason is not None:
            return Parent(None, None, reason)
        return Parent(mol, Chem.MolToSmiles(mol), None)

    def _standardize(self, mol: Any, *, in_parts: bool) -> bool:
        """Apply the rules in place; tell whether they may have changed the graph."""
        self._metals.DisconnectInPlace(mol)
        self._normalizer.normalizeInPlace(mol)
        charged = any(atom.GetFormalCharge() for atom in mol.GetAtoms())
        if charged:
            self._reionizer.reionizeInPlace(mol)
        if in_parts or charged:  # disconnecting a metal leaves charges behind
            self._largest.chooseInPlace(mol)
        if charged:
            self._uncharger.unchargeInPlace(mol)
            self._normalizer.normalizeInPlace(mol)
            self._reionizer.reionizeInPlace(mol)
        for atom in mol.GetAtoms():
            if atom.GetIsotope():
                atom.SetIsotope(0)
        Chem.RemoveStereochemistry(mol)
        return in_parts or charged


def _refusal(mol: Any) -> str | None:
    n_atoms = mol.GetNumHeavyAtoms()
    if not mol.GetNumAtoms():
        return "empty"
    if n_atoms > MAX_HEAVY_ATOMS:
        return "too_large"
    numbers = {atom.GetAtomicNum() for atom in mol.GetAtoms()}
    if 0 in numbers:
        return "dummy_atom"
    return None if CARBON in numbers else "no_carbon"
