"""The parent structure of a molecule, with objects that are made once.

Why: the convenience functions of ``rdMolStandardize`` rebuild their rules for every molecule and are five times
slower. This file travels inside every registered model, so that a consumer prepares a molecule as the training
data was: it imports RDKit alone. Runs: anywhere. Source: ``Standardizer``: steps of ``ChargeParent`` (RDKit
2026.09) without isotopes, stereo and canonical tautomer; ``PublishedStandardizer``: MELLODDY-TUNER 3's steps.
"""

import re
import time
from dataclasses import dataclass
from typing import Any

from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

PROFILE = "parent-2"
MAX_HEAVY_ATOMS = 100
MAX_CHARACTERS = 5_000  # 80,000 characters of rings take RDKit a minute before anything can be counted
MAX_ATOMS_OF_ALL_PARTS = 1_000  # a salt of several large ions is fine; a polymer would cost seconds

PUBLISHED_PROFILE = "melloddy-3"
PUBLISHED_MAX_TAUTOMERS = 256
TAUTOMER_DEADLINE_SECONDS = 30.0  # a usual molecule takes 0.02 s, the slowest of 50,000 took 1 s

REASONS = ("parse", "empty", "too_large", "dummy_atom", "no_carbon", "failed", "tautomer_deadline")

# RDKit ignores what follows a space, a tab or a NUL, and would accept half a structure: only CXSMILES may follow.
_WRITTEN = re.compile(r"[!-~]+( \|[ -~]*\|)?")
_MARKED = re.compile(r"\[\d|\[H|:\d+\]")  # isotopes, hydrogens that are atoms, and atom maps
_CHARGED = Chem.MolFromSmarts("[!+0]")
_METAL = Chem.MolFromSmarts("[!#1;!#5;!#6;!#7;!#8;!#9;!#14;!#15;!#16;!#17;!#34;!#35;!#53]")
_CARBON = Chem.MolFromSmarts("[#6]")
_DUMMY = Chem.MolFromSmarts("[#0]")


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
    """Finds parents; keep one per process.

    Args:
        keep_stereo: Whether stereoisomers have parents of their own.
    """

    def __init__(self, *, keep_stereo: bool = False) -> None:
        self._keep_stereo = keep_stereo
        with rdBase.BlockLogs():
            self._metals = rdMolStandardize.MetalDisconnector()
            self._normalizer = rdMolStandardize.Normalizer()
            self._reionizer = rdMolStandardize.Reionizer()
            self._largest = rdMolStandardize.LargestFragmentChooser(preferOrganic=True)
            self._uncharger = rdMolStandardize.Uncharger()

    def parent(self, smiles: str) -> Parent:
        """Find the parent of one structure.

        The parent does not depend on how the structure is written, nor on its stereo, isotopes or atom maps,
        and the parent of a parent is itself.

        Args:
            smiles: A structure; its text never reaches a log or a message.

        Returns:
            The parent, or a reason code.
        """
        with rdBase.BlockLogs():
            try:
                return self._parent(smiles.strip())
            except Exception:  # noqa: BLE001 - RDKit raises many types, and their texts hold the structure
                return Parent(None, None, "failed")

    def _parent(self, text: str) -> Parent:
        mol, reason = _read(text)
        if mol is None:
            return Parent(None, None, reason)
        if mol.GetNumAtoms() > MAX_ATOMS_OF_ALL_PARTS:
            return Parent(None, None, "too_large")
        if not self._keep_stereo:
            Chem.RemoveStereochemistry(mol)
        if _MARKED.search(text):
            mol = _unmarked(mol)
        if self.standardize(mol):
            # What the rules leave lacks ring information: only a re-parsed molecule is as good as a new one.
            mol = Chem.MolFromSmiles(Chem.MolToSmiles(mol))
            if mol is None:
                return Parent(None, None, "failed")
        reason = _refusal(mol)
        return Parent(mol, Chem.MolToSmiles(mol), None) if reason is None else Parent(None, None, reason)

    def standardize(self, mol: Any) -> bool:
        """Apply the rules to a molecule in place; tell whether they may have changed its graph."""
        n_atoms = mol.GetNumAtoms()
        has_metal = mol.HasSubstructMatch(_METAL)
        if has_metal:
            self._metals.DisconnectInPlace(mol)
        self._normalizer.normalizeInPlace(mol)
        charged = has_metal or mol.HasSubstructMatch(_CHARGED)
        if charged:
            self._reionizer.reionizeInPlace(mol)
        self._largest.chooseInPlace(mol)
        if charged:
            self._uncharger.unchargeInPlace(mol)
            Chem.SanitizeMol(mol)  # an aromatic anion, now neutral, is aromatic no longer
            self._normalizer.normalizeInPlace(mol)
            self._reionizer.reionizeInPlace(mol)
        return bool(charged or mol.GetNumAtoms() != n_atoms)


def _read(text: str) -> tuple[Any, str | None]:
    """Parse a structure, or say why not."""
    if not text:
        return None, "empty"
    if len(text) > MAX_CHARACTERS:
        return None, "too_large"
    mol: Any = Chem.MolFromSmiles(text) if _WRITTEN.fullmatch(text) else None
    return mol, None if mol is not None else "parse"


def _unmarked(mol: Any) -> Any:
    """Return the molecule without isotopes and atom maps; hydrogens that were atoms only for them are counts again."""
    for atom in mol.GetAtoms():
        atom.SetIsotope(0)
        atom.SetAtomMapNum(0)
    return Chem.MolFromSmiles(Chem.MolToSmiles(mol))


def _refusal(mol: Any) -> str | None:
    if not mol.GetNumAtoms():
        return "empty"
    if mol.GetNumHeavyAtoms() > MAX_HEAVY_ATOMS:
        return "too_large"
    if mol.HasSubstructMatch(_DUMMY):
        return "dummy_atom"
    return None if mol.HasSubstructMatch(_CARBON) else "no_carbon"


class _Deadline(rdMolStandardize.TautomerEnumeratorCallback):
    """Stops the enumeration of one molecule's tautomers when its time is over."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._until = 0.0
        self.is_over = False

    def start(self) -> None:
        """Give the next molecule its time."""
        self._until, self.is_over = time.monotonic() + self._seconds, False

    def __call__(self, mol: Any, res: Any) -> bool:  # type: ignore[override, explicit-override]  # noqa: ARG002
        """Tell RDKit whether to go on."""
        self.is_over = self.is_over or time.monotonic() > self._until
        return not self.is_over


class PublishedStandardizer:
    """Finds parents by the steps that MELLODDY published, canonical tautomer included; keep one per process.

    Args:
        keep_stereo: Whether stereoisomers have parents of their own.
        deadline_seconds: For the tautomers of one molecule; one that takes longer has no parent, since a tautomer
            chosen among some of them would depend on the machine.
    """

    def __init__(
        self, *, keep_stereo: bool = False, deadline_seconds: float = TAUTOMER_DEADLINE_SECONDS
    ) -> None:
        self._keep_stereo = keep_stereo
        with rdBase.BlockLogs():
            self._metals = rdMolStandardize.MetalDisconnector()
            self._normalizer = rdMolStandardize.Normalizer()
            self._reionizer = rdMolStandardize.Reionizer()
            self._tautomers = rdMolStandardize.TautomerEnumerator()
            self._tautomers.SetMaxTautomers(PUBLISHED_MAX_TAUTOMERS)
            self._tautomers.SetRemoveSp3Stereo(False)
        self._deadline = _Deadline(deadline_seconds)
        self._tautomers.SetCallback(self._deadline)

    def parent(self, smiles: str) -> Parent:
        """Find the parent of one structure; arguments and result as ``Standardizer.parent``."""
        with rdBase.BlockLogs():
            try:
                return self._parent(smiles.strip())
            except Exception:  # noqa: BLE001 - RDKit raises many types, and their texts hold the structure
                return Parent(None, None, "failed")

    def _parent(self, text: str) -> Parent:
        mol, reason = _read(text)
        if mol is None:
            return Parent(None, None, reason)
        if mol.GetNumAtoms() >= MAX_HEAVY_ATOMS:
            return Parent(None, None, "too_large")
        mol = rdMolStandardize.ChargeParent(mol)
        for atom in mol.GetAtoms():
            atom.SetIsotope(0)
        if not self._keep_stereo:
            Chem.RemoveStereochemistry(mol)
        self._deadline.start()
        mol = self._tautomers.Canonicalize(mol)
        if self._deadline.is_over:
            return Parent(None, None, "tautomer_deadline")
        Chem.SanitizeMol(mol)
        mol = self._metals.Disconnect(Chem.RemoveHs(mol))
        mol = self._reionizer.reionize(self._normalizer.normalize(mol))
        Chem.AssignStereochemistry(mol, force=True, cleanIt=True)
        parent = Chem.MolFromSmiles(Chem.MolToSmiles(mol))
        if parent is None:
            return Parent(None, None, "failed")
        reason = _refusal(parent)
        return (
            Parent(parent, Chem.MolToSmiles(parent), None) if reason is None else Parent(None, None, reason)
        )


def standardizer_of(profile: str, *, keep_stereo: bool = False) -> Standardizer | PublishedStandardizer:
    """Make what finds parents by a profile, as a model's card names it.

    Args:
        profile: ``PROFILE`` or ``PUBLISHED_PROFILE``.
        keep_stereo: Whether stereoisomers have parents of their own.

    Raises:
        ValueError: If this code knows no such profile.
    """
    if profile == PROFILE:
        return Standardizer(keep_stereo=keep_stereo)
    if profile == PUBLISHED_PROFILE:
        return PublishedStandardizer(keep_stereo=keep_stereo)
    raise ValueError(
        f"standardization {profile!r} is unknown here, which knows {PROFILE} and {PUBLISHED_PROFILE}"
    )
