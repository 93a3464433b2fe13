"""Folds that all partners agree on without talking: a keyed hash of the generic scaffold.

Why: a scaffold must fall into the same fold at every partner, or a test compound of one is training data of
another; the key keeps the coordinator from asking which scaffolds a partner has. Runs: on the partner.
Source: MELLODDY-TUNER's scaffold folds, with the generic Murcko scaffold (Bemis and Murcko 1996) instead of a
scaffold network, HMAC-SHA256 with pinned arithmetic, and acyclic molecules spread by their own skeleton.
"""

import hmac
from typing import Any

from rdkit import Chem
from rdkit.Chem import rdMolHash

N_FOLDS = 5
KEY_BYTES = 16
FOLD_BYTES = 8
_FOLD_KEY, _FOLD = b"motet/fold-key/v1", b"fold/v1\x00"
_STRUCTURE_KEY, _STRUCTURE = b"motet/structure-key/v1", b"structure/v1\x00"


def generic_scaffold(mol: Any) -> str:
    """Name a molecule's generic scaffold: its ring systems and linkers, without atom or bond types.

    Args:
        mol: The parent (``rdkit.Chem.Mol``).

    Returns:
        A canonical SMILES of the anonymous graph; for an acyclic molecule that of its whole skeleton.
    """
    scaffold = Chem.MurckoDecompose(mol)
    graph = scaffold if scaffold.GetNumAtoms() else mol
    return str(rdMolHash.MolHash(graph, rdMolHash.HashFunction.AnonymousGraph))


def fold_of_scaffold(scaffold: str, *, secret: bytes, n_folds: int = N_FOLDS) -> int:
    """Assign a scaffold to a fold.

    Args:
        scaffold: As ``generic_scaffold`` gives it.
        secret: The consortium's 32-byte secret, unknown to the coordinator.
        n_folds: Number of folds.

    Returns:
        Fold in ``0 .. n_folds - 1``, equal at all partners.
    """
    digest = _keyed(_FOLD + scaffold.encode(), purpose=_FOLD_KEY, secret=secret)
    return int.from_bytes(digest[:FOLD_BYTES], "big") % n_folds


def structure_key(parent: str, *, secret: bytes) -> str:
    """Name a parent structure without showing it.

    Args:
        parent: Its canonical SMILES.
        secret: The consortium's 32-byte secret.

    Returns:
        32 hexadecimal characters (16 bytes of an HMAC-SHA256), equal at all partners.
    """
    return _keyed(_STRUCTURE + parent.encode(), purpose=_STRUCTURE_KEY, secret=secret)[:KEY_BYTES].hex()


def _keyed(message: bytes, *, purpose: bytes, secret: bytes) -> bytes:
    """HMAC-SHA256 under a key of its own for each purpose, so that one may be shown without the other."""
    return hmac.digest(hmac.digest(secret, purpose, "sha256"), message, "sha256")
