"""Secret sharing: any ``threshold`` of n shares give a 32-byte secret back, fewer say nothing about it.

Why: the coordinator can remove the masks of partners that dropped out only if enough others agree.
Runs: anywhere. Source: Shamir 1979, over the prime field of order 2^256 + 297.
"""

import hmac
from collections.abc import Mapping, Sequence

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33  # an element of the field has up to 257 bits


def split(secret: bytes, *, threshold: int, points: Sequence[int], polynomial_key: bytes) -> dict[int, bytes]:
    """Split a secret into one share per point.

    The polynomial's coefficients derive from ``polynomial_key``, so a restart deals the same shares again; each
    is a 512-bit HMAC-SHA512 output reduced modulo the prime, hence uniform to within 2^-255.

    Args:
        secret: 32 bytes.
        threshold: How many shares give the secret back.
        points: Distinct positive abscissae, one per holder.
        polynomial_key: 32 secret bytes that serve this one secret only.

    Returns:
        Share (33 bytes, big-endian) by point.

    Raises:
        ValueError: If the points repeat, are not positive or are fewer than the threshold.
    """
    if len(secret) != SECRET_BYTES or len(polynomial_key) != SECRET_BYTES:
        raise ValueError(f"the secret and the polynomial's key have {SECRET_BYTES} bytes each")
    if not 1 <= threshold <= len(points) or len(set(points)) != len(points) or min(points) < 1:
        raise ValueError(f"{len(points)} distinct positive points cannot serve a threshold of {threshold}")
    coefficients = [int.from_bytes(secret, "big")]
    for power in range(1, threshold):
        wide = hmac.digest(polynomial_key, b"coefficient" + power.to_bytes(4, "big"), "sha512")
        coefficients.append(int.from_bytes(wide, "big") % PRIME)
    return {point: _evaluate(coefficients, point).to_bytes(SHARE_BYTES, "big") for point in points}


def combine(shares: Mapping[int, bytes], *, threshold: int) -> bytes | None:
    """Reconstruct a secret from exactly ``threshold`` of the shares (those of the lowest points).

    Args:
        shares: Share by point, each accepted by :func:`in_range`.
        threshold: As it was when the secret was split.

    Returns:
        The 32-byte secret, or None if the shares belong to no 32-byte secret.

    Raises:
        ValueError: If there are fewer shares than the threshold.
    """
    points = sorted(shares)[:threshold]
    if len(points) < threshold:
        raise ValueError(f"{len(points)} shares are fewer than the threshold of {threshold}")
    value = 0
    for point in points:
        numerator = denominator = 1
        for other in points:
            if other != point:
                numerator = numerator * other % PRIME
                denominator = denominator * (other - point) % PRIME
        value += int.from_bytes(shares[point], "big") * numerator * pow(denominator, -1, PRIME)
    value %= PRIME
    return value.to_bytes(SECRET_BYTES, "big") if value < 2 ** (8 * SECRET_BYTES) else None


def in_range(share: bytes) -> bool:
    """Whether bytes are one share in its one canonical form: 33 bytes, below the prime."""
    return len(share) == SHARE_BYTES and int.from_bytes(share, "big") < PRIME


def _evaluate(coefficients: Sequence[int], point: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):  # Horner
        value = (value * point + coefficient) % PRIME
    return value
