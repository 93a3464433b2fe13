"""Keyed permutations of fingerprint bits.

Why: whoever sees the trunk but has no key cannot tell which input stands for which substructure. This hides bits
from the coordinator only: every partner has the key, and with public molecules and updates the permutation can be
guessed from how often bits occur. Runs: on the partner. Source: ``published``: MELLODDY-TUNER 3
(``set_permutation``, read in its code); ``keyed``: own, BLAKE2b (RFC 7693).
"""

import hashlib
import hmac

import numpy as np
import numpy.typing as npt

Permutation = npt.NDArray[np.int64]
PERSON = b"motet/fp-perm/1"


def keyed_permutation(n_bits: int, *, key: bytes) -> Permutation:
    """Permute bits by the order of their keyed BLAKE2b digests.

    Args:
        n_bits: Number of bits.
        key: The consortium's key, at most 64 bytes.

    Returns:
        New place of each bit, shape ``(n_bits,)``.
    """
    digests = [
        hashlib.blake2b(bit.to_bytes(4, "big"), digest_size=16, key=key, person=PERSON).digest()
        for bit in range(n_bits)
    ]
    return _ranks(np.array(digests, dtype="S16"))


def published_permutation(n_bits: int, *, key: bytes) -> Permutation:
    """Permute bits as MELLODDY does: by the order of the lower 63 bits of HMAC-SHA256(key, decimal number).

    Args:
        n_bits: Number of bits; MELLODDY's is 32,000.
        key: The consortium's key.

    Returns:
        New place of each bit, shape ``(n_bits,)``.
    """
    hashes = [
        int.from_bytes(hmac.digest(key, str(bit).encode(), "sha256"), "big") % 2**63 for bit in range(n_bits)
    ]
    return _ranks(np.array(hashes, dtype=np.int64))


def _ranks(values: npt.NDArray[np.generic]) -> Permutation:
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks


def permuted_rows(
    starts: npt.NDArray[np.int64], bits: npt.NDArray[np.uint16], permutation: Permutation
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
    """Permute the set bits of compressed sparse rows.

    Args:
        starts: Row starts, shape ``(n_rows + 1,)``.
        bits: Set bits of all rows, row after row.
        permutation: New place of each bit.

    Returns:
        The permuted bits, sorted within each row, and from where in ``bits`` each came.
    """
    row = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    moved = permutation[bits]
    order = np.argsort((row << 16) | moved)
    return moved[order].astype(np.uint16), order
