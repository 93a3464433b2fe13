"""Hashed fingerprints: circular environments of radius 3, hashed to 32,768 bits.

Why: MELLODDY's descriptor (ECFP6, binary), made without a dense row. This file travels inside every registered
model: it imports RDKit and NumPy alone. Runs: anywhere. Source: Rogers and Hahn 2010 (ECFP) as RDKit's Morgan
generator; the layout of ``ToBinary`` is pinned in tests/featurization/test_fingerprints.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rdkit.Chem import rdFingerprintGenerator

RADIUS = 3
N_BITS = 32_768
FINGERPRINT = {"kind": "ECFP", "radius": RADIUS, "n_bits": N_BITS, "counts": False, "chirality": False}

_HEADER_WORDS = 4  # version, bytes of an index, length, number of set bits; then pairs of index and count
_GENERATOR = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=N_BITS)


def hashed_bits(mol: Any) -> npt.NDArray[np.uint16]:
    """Hash one molecule.

    Args:
        mol: A sanitized ``rdkit.Chem.Mol``.

    Returns:
        Set bits, sorted, shape ``(n_set,)``.
    """
    words = np.frombuffer(_GENERATOR.GetCountFingerprint(mol).ToBinary(), dtype="<u4")
    return words[_HEADER_WORDS::2].astype(np.uint16)


def hashed_bits_of(mols: Sequence[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Hash many molecules into compressed sparse rows, in one pass over the bytes that C++ leaves.

    Args:
        mols: Sanitized molecules, n of them.

    Returns:
        Row starts of shape ``(n + 1,)`` and the set bits of all rows, sorted within a row.
    """
    blobs = [_GENERATOR.GetCountFingerprint(mol).ToBinary() for mol in mols]
    n_words = np.fromiter((len(blob) // 4 for blob in blobs), dtype=np.int64, count=len(blobs))
    starts = np.zeros(len(blobs) + 1, dtype=np.int64)
    np.cumsum((n_words - _HEADER_WORDS) // 2, out=starts[1:])
    words = np.frombuffer(b"".join(blobs), dtype="<u4")
    # The set bits of row r begin behind r + 1 headers and stand at every second word.
    places = 2 * np.arange(starts[-1]) + _HEADER_WORDS * np.repeat(
        np.arange(1, len(blobs) + 1), np.diff(starts)
    )
    return starts, words[places].astype(np.uint16)
