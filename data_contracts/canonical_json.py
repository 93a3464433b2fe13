"""Canonical JSON and digests over it.

Why: a signature or a digest needs one byte string per value, on every machine. Runs: anywhere.
Source: RFC 8785 (JCS) through the ``rfc8785`` package; integers beyond 2^53 are refused by it.
"""

import hashlib
import json
from typing import Any

import rfc8785

from data_contracts.errors import ProtocolError


def canonical_bytes(value: Any) -> bytes:
    """Serialize a JSON value to its one canonical byte string.

    Args:
        value: Objects, lists, strings, finite numbers, booleans and null.

    Returns:
        UTF-8 bytes as RFC 8785 fixes them.

    Raises:
        ValueError: If the value holds a NaN, an infinity, or an integer beyond 2^53.
    """
    return rfc8785.dumps(value)


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
