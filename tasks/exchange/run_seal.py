"""The seal of a run: what its parties say to each other, closed to whoever runs the mailbox.

Why: plans, opened sums, shares of masks and models are the consortium's own. Masked vectors are not sealed again:
they are noise to everybody already, and large. Runs: on every site. Source: AES-SIV (RFC 5297): deterministic, so
that the same message posted again is the same bytes; keys by HKDF-SHA256 (RFC 5869), names by HMAC (RFC 2104).
"""

import hmac
from collections.abc import Iterable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from typing_extensions import Buffer

from data_contracts.envelope import Kind, Slot
from data_contracts.errors import ProtocolError, UpdateMismatch
from data_contracts.references import BlobReference
from tasks.exchange.sealing import derive_secret

SEALED_CONTRACT = "sealed@1"
SEGMENT_BYTES = 2**22
TAG_BYTES = 16
# Said before there is a key, sealed to one recipient each, or noise already.
OPEN_KINDS = frozenset({Kind.RUN_KEY, Kind.ROSTER_ACCEPTED, Kind.CONSORTIUM_SECRET, Kind.MASKED})
_BODY, _BLOB = b"motet/sealed-body/v1\x00", b"motet/sealed-blob/v1\x00"


class RunSeal:
    """The keys that follow from the key of one run.

    Args:
        key: 32 bytes that the run's parties share.
        run_id: The run.
    """

    def __init__(self, key: bytes, *, run_id: str) -> None:
        self._run_id = run_id
        self._bodies = AESSIV(derive_secret(key, b"run/bodies", length=64))
        self._blobs = AESSIV(derive_secret(key, b"run/blobs", length=64))
        self._names = derive_secret(key, b"run/names", length=32)

    def seal(self, chunks: Iterable[Buffer], *, slot: Slot) -> bytes:
        """Seal the body of a message to its slot: 16 bytes more."""
        return self._bodies.encrypt(b"".join(map(bytes, chunks)), [_BODY, _place(slot)])

    def open(self, sealed: Buffer, *, slot: Slot) -> bytes:
        """Open the body of a message.

        Raises:
            ProtocolError: If it was not sealed to this slot under this run's key.
        """
        try:
            return self._bodies.decrypt(bytes(sealed), [_BODY, _place(slot)])
        except (InvalidTag, ValueError):
            raise ProtocolError(
                f"'{slot.kind}' of '{slot.sender}' in round {slot.round} is not sealed with the key of run "
                f"'{slot.run_id}'; who sent it holds another key than this site"
            ) from None

    def name_of(self, reference: BlobReference) -> str:
        """Under which name a blob lies in the mailbox: its run, and 64 hexadecimal characters that only the key explains."""
        return f"{self._run_id}/{hmac.digest(self._names, reference.sha256.encode(), 'sha256').hex()}"

    @staticmethod
    def sealed_size(n_bytes: int) -> int:
        """Bytes of a sealed blob of so many bytes."""
        return n_bytes + TAG_BYTES * max(1, -(-n_bytes // SEGMENT_BYTES))

    def sealed(self, chunks: Iterable[Buffer], reference: BlobReference) -> Iterator[bytes]:
        """Seal a blob, segment by segment."""
        count = max(1, -(-reference.bytes // SEGMENT_BYTES))
        for index, segment in enumerate(_segments(chunks, SEGMENT_BYTES)):
            yield self._blobs.encrypt(segment, [_BLOB, _segment(reference, index, count)])

    def opened(self, chunks: Iterable[Buffer], reference: BlobReference, *, who: str) -> Iterator[bytes]:
        """Open a blob, segment by segment.

        Raises:
            UpdateMismatch: If a segment was not sealed under this run's key, or stands elsewhere.
        """
        count = max(1, -(-reference.bytes // SEGMENT_BYTES))
        for index, segment in enumerate(_segments(chunks, SEGMENT_BYTES + TAG_BYTES)):
            try:
                yield self._blobs.decrypt(segment, [_BLOB, _segment(reference, index, count)])
            except (InvalidTag, ValueError):
                raise UpdateMismatch(
                    f"the mailbox's copy of the {reference.contract} of '{who}' does not open with the run's key"
                ) from None


def _place(slot: Slot) -> bytes:
    return "\x00".join(
        (slot.run_id, str(slot.round), str(slot.attempt), slot.kind.value, slot.sender)
    ).encode()


def _segment(reference: BlobReference, index: int, count: int) -> bytes:
    return f"{reference.sha256}\x00{index}\x00{count}".encode()


def _segments(chunks: Iterable[Buffer], size: int) -> Iterator[bytes]:
    """Join and cut chunks into segments of a size, the last one shorter; at least one, perhaps empty."""
    waiting, any_left = bytearray(), False
    for chunk in chunks:
        waiting += chunk
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
            any_left = True
    if waiting or not any_left:
        yield bytes(waiting)
