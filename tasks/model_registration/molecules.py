"""SMILES to fingerprint bits exactly as a model's card says, and only with an RDKit that does the same.

Why: a trunk that learned from one profile's bits answers nonsense to another's, without any sign. This file travels
inside every registered model and imports none of our packages: it is handed the two that do the chemistry.
Runs: anywhere. Source: own; docs/decisions/0025.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from rdkit import rdBase

MAX_SMILES = 5_000  # characters, as in the contract *structures*
MISSING, TOO_LONG = "missing", "too_long"  # reasons beside those of standardization.py

SetBits = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16], list[str | None]]


class Preparer:
    """Prepares molecules by the recipe of one model.

    Args:
        card: With ``standardization`` and ``fingerprint``. How often an environment occurs is not learned from.
        standardization: The module that finds a molecule's parent structure.
        fingerprints: The module that hashes its environments.
    """

    def __init__(
        self, card: Mapping[str, Any], standardization: ModuleType, fingerprints: ModuleType
    ) -> None:
        asked = card["fingerprint"]
        chirality = bool(asked["chirality"])
        self._parent = standardization.standardizer_of(card["standardization"], keep_stereo=chirality).parent
        self._hasher = fingerprints.Hasher(
            radius=asked["radius"], n_bits=asked["n_bits"], chirality=chirality
        )

    def set_bits(self, smiles: Sequence[str]) -> SetBits:
        """Hash the parents of molecules.

        Returns:
            Row starts of the n valid molecules, shape ``(n + 1,)``; their set bits before any permutation, row after
            row; and for each molecule None or the reason why it is invalid.
        """
        parents = [self._parent_of(text) for text in smiles]
        starts, bits, _ = self._hasher.rows_of(mol for mol, reason, _ in parents if reason is None)
        return starts, bits, [reason for _, reason, _ in parents]

    def _parent_of(self, text: Any) -> tuple[Any, str | None, str | None]:
        if not isinstance(text, str):
            return None, MISSING, None
        if len(text) > MAX_SMILES:
            return None, TOO_LONG, None
        parent = self._parent(text)
        return parent.mol, parent.reason, parent.smiles

    def digest(self, smiles: Sequence[str]) -> str:
        """Digest what becomes of public molecules: parents, reasons, bits before permutation; SHA-256, hexadecimal."""
        parents = [self._parent_of(text)[1:] for text in smiles]
        starts, bits, _ = self.set_bits(smiles)
        return hashlib.sha256(json.dumps([parents, starts.tolist(), bits.tolist()]).encode()).hexdigest()


def check_rdkit(card: Mapping[str, Any], standardization: ModuleType, fingerprints: ModuleType) -> None:
    """Compare the RDKit installed here with the one that prepared the training data.

    Another version that makes the same of the card's reference molecules is warned about.

    Raises:
        ValueError: If it makes something else of them: any prediction could be wrong without a sign.
    """
    recipe, here = card.get("recipe"), str(rdBase.rdkitVersion)
    if recipe is None or recipe["rdkit"] == here:
        return
    found = Preparer(card, standardization, fingerprints).digest(recipe["reference"])
    if found != recipe["reference_sha256"]:
        raise ValueError(
            f"the model was trained on structures that RDKit {recipe['rdkit']} prepared; RDKit {here} makes something "
            "else of the reference molecules, so predictions would be wrong: install the former"
        )
    warnings.warn(
        f"the model was trained with RDKit {recipe['rdkit']}, this is {here}; the reference molecules agree",
        stacklevel=3,
    )
