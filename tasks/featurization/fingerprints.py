"""Hashed fingerprints: circular environments of radius 3, hashed to 32,768 bits.

Why: MELLODDY's descriptor (ECFP6, binary), made without a dense row. This file travels inside every registered
model: it imports RDKit and NumPy alone. Runs: anywhere. Source: Rogers and Hahn 2010 (ECFP) as RDKit's Morgan
generator; the layout of ``ToBinary`` is pinned in tests/featurization/test_fingerprints.py and checked in use.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rdkit.Chem import rdFingerprintGenerator

RADIUS = 3
N_BITS = 32_768
FINGERPRINT = {"kind": "ECFP", "radius": RADIUS, "n_bits": N_BITS, "counts": False, "chirality": False}

_HEADER_WORDS = 4  # version, bytes of an index, length, number of set bits; then pairs of index and count
_LARGEST_COUNT = np.iinfo(np.uint16).max


class Hasher:
    """Hashes molecules; keep one per process.

    Args:
        radius: Of the circular environments, in bonds.
        n_bits: Length, at most 65,536.
        chirality: Tell stereoisomers apart.
    """

    def __init__(self, *, radius: int = RADIUS, n_bits: int = N_BITS, chirality: bool = False) -> None:
        self._header = (1, 4, n_bits)
        self._generator = rdFingerprintGenerator.GetMorganGenerator(
            radius=radius, fpSize=n_bits, includeChirality=chirality
        )

    def rows_of(
        self, mols: Iterable[Any]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        """Hash many molecules into compressed sparse rows, in one pass over the bytes that C++ leaves.

        Args:
            mols: Sanitized molecules, n of them.

        Returns:
            Row starts of shape ``(n + 1,)``, the set bits of all rows, sorted within a row, and how often the
            environments of each bit occur.

        Raises:
            ValueError: If this RDKit lays its fingerprints out in another way than the one that was tested.
        """
        fingerprint = self._generator.GetCountFingerprint
        return _rows_of([fingerprint(mol).ToBinary() for mol in mols], header=self._header)


_DEFAULT = Hasher()


def hashed_bits(mol: Any) -> npt.NDArray[np.uint16]:
    """Hash one molecule.

    Args:
        mol: A sanitized ``rdkit.Chem.Mol``.

    Returns:
        Set bits, sorted, shape ``(n_set,)``.
    """
    return hashed_bits_of([mol])[1]


def hashed_bits_of(mols: Iterable[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Hash many molecules; ``Hasher.rows_of`` with the defaults, without counts."""
    starts, bits, _ = _DEFAULT.rows_of(mols)
    return starts, bits


def _rows_of(
    blobs: Sequence[bytes], *, header: tuple[int, ...] = (1, 4, N_BITS)
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """Decode serialized count fingerprints, n of them, all at once."""
    n_bytes = np.fromiter(map(len, blobs), dtype=np.int64, count=len(blobs))
    n_set = (n_bytes // 4 - _HEADER_WORDS) // 2
    starts = np.zeros(len(blobs) + 1, dtype=np.int64)
    np.cumsum(n_set, out=starts[1:])
    data = b"".join(blobs)
    words = np.frombuffer(data[: len(data) // 4 * 4], dtype="<u4")
    headers = 2 * starts[:-1] + _HEADER_WORDS * np.arange(len(blobs))
    # A consumer of a model may have another RDKit: a wrong layout must be an error, not a wrong prediction.
    sound = (n_bytes == 4 * (_HEADER_WORDS + 2 * n_set)).all() and (n_set >= 0).all()
    if not (
        sound
        and all((words[headers + place] == expected).all() for place, expected in enumerate(header))
        and (words[headers + len(header)] == n_set).all()
    ):
        raise ValueError(
            "this RDKit serializes count fingerprints in an unknown layout; RDKit 2026.09 is known"
        )
    # The set bits of row r begin behind r + 1 headers and stand at every second word.
    places = 2 * np.arange(starts[-1]) + np.repeat(_HEADER_WORDS * np.arange(1, len(blobs) + 1), n_set)
    counts = np.minimum(words[places + 1], _LARGEST_COUNT)
    return starts, words[places].astype(np.uint16), counts.astype(np.uint16)
