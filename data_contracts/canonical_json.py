"""Canonical JSON and digests over it.

Why: a signature or a digest needs one byte string per value, on every machine. Runs: anywhere.
Source: RFC 8785 (JCS) through the ``rfc8785`` package; integers beyond 2^53 are refused by it. Most of our messages
hold ASCII text and whole numbers alone: those Python's own encoder writes in the same form, twenty times as fast.
"""

import contextlib
import hashlib
import json
from typing import Any

import rfc8785

from data_contracts.errors import ProtocolError

LARGEST_INTEGER = 2**53 - 1
_sorted_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def canonical_bytes(value: Any) -> bytes:
    """Serialize a JSON value to its one canonical byte string.

    Args:
        value: Objects, lists, strings, finite numbers, booleans and null.

    Returns:
        UTF-8 bytes as RFC 8785 fixes them.

    Raises:
        ValueError: If the value holds a NaN, an infinity, or an integer beyond 2^53.
    """
    with contextlib.suppress(RecursionError):  # the reference takes what is nested deeper
        if _is_simple(value):
            text = _sorted_encoder.encode(value)
            if text.isascii():  # else keys sort by UTF-16 units, and a lone surrogate must be refused
                return text.encode("ascii")
    return rfc8785.dumps(value)


def _is_simple(value: Any) -> bool:
    """Whether a value is made of exact JSON types without fractions: the two encoders differ in nothing else."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(-LARGEST_INTEGER <= value <= LARGEST_INTEGER)
    if kind is dict:
        return all(type(name) is str and _is_simple(item) for name, item in value.items())
    return kind is list and all(map(_is_simple, value))


def parse_canonical(data: bytes, *, who: str, max_bytes: int) -> Any:
    """Parse bytes from a peer, accepting only the canonical form.

    Args:
        data: Bytes as they came.
        who: The peer, for the error message.
        max_bytes: Size cap, checked before anything is parsed.

    Returns:
        The parsed value.

    Raises:
        ProtocolError: If the bytes are too many, not JSON, or not canonical.
    """
    if len(data) > max_bytes:
        raise ProtocolError(f"message of '{who}' has {len(data)} bytes, at most {max_bytes} are allowed")
    try:
        value = json.loads(data)
        again = canonical_bytes(value)
    except (ValueError, RecursionError, UnicodeDecodeError) as exc:
        raise ProtocolError(f"message of '{who}' is not canonical JSON; the sender must repeat it") from exc
    if again != data:
        raise ProtocolError(
            f"message of '{who}' is JSON but not in canonical form; the sender must repeat it"
        )
    return value


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, in lower-case hexadecimal (64 characters)."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()
