"""Masks at memory speed: AES-256-CTR keystreams added to a vector in its ring, one pass for all of them.

Why: masking is bound by memory, so each block stays in cache while every stream of the attempt passes over it;
a counter can start anywhere, so threads work on stretches of their own and the bytes stay the same.
Runs: anywhere. Source: Bonawitz et al. 2017 §4 for the masks; NIST SP 800-38A for CTR; the block-major layout
is own, measured in ``benchmarks/secure_aggregation.py``.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from data_contracts.plan import Lane, RoundPlan

BLOCK_BYTES = 256 * 1024
"""What is encoded, masked and hashed at a time, and **part of the signed format**: a vector's digest is taken over these blocks'.

Large enough that threads seldom wait for the interpreter between two calls, small enough that keystream, accumulator and operand
stay in a level-2 cache of a megabyte; a thread holds about eight such blocks.
"""
STRETCH_BYTES = 4 * BLOCK_BYTES  # what a thread does at a time: long enough that starting it costs nothing
CIPHER_BLOCK_BYTES = 16
ALIGNMENT_BYTES = 64  # every lane begins on a cache line; the gap holds zeros, masked like everything else
RING_DTYPES: dict[int, np.dtype[np.unsignedinteger]] = {
    16: np.dtype("<u2"),
    32: np.dtype("<u4"),
    64: np.dtype("<u8"),
}
RingArray = npt.NDArray[np.unsignedinteger]
Done = TypeVar("Done")


@dataclass(frozen=True)
class Segment:
    """Where one lane lies in the vector.

    Attributes:
        lane: The lane.
        start: First byte; a multiple of 64.
        stop: Byte after the last of the zero-padded lane; a multiple of 64.
    """

    lane: Lane
    start: int
    stop: int

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Unsigned little-endian integer of the lane's ring."""
        return RING_DTYPES[self.lane.ring_bits]


@dataclass(frozen=True)
class Block:
    """A stretch of one segment that fits in cache; ``start`` and ``stop`` count bytes of the vector."""

    segment: Segment
    start: int
    stop: int

    @property
    def elements(self) -> slice:
        """Which elements of the lane the block holds, its padding left out."""
        size = self.segment.dtype.itemsize
        first = (self.start - self.segment.start) // size
        return slice(first, min((self.stop - self.segment.start) // size, self.segment.lane.length))

    def of(self, vector: npt.NDArray[np.uint8]) -> RingArray:
        """View of the block in a vector of bytes, as ring elements, padding included."""
        return vector[self.start : self.stop].view(self.segment.dtype)


@dataclass(frozen=True)
class Stretch:
    """Consecutive blocks of one segment, worked on by one thread; ``start`` and ``stop`` count bytes."""

    segment: Segment
    start: int
    stop: int

    def blocks(self) -> Iterator[Block]:
        """The blocks in order; together they cover every byte of the stretch once."""
        for start in range(self.start, self.stop, BLOCK_BYTES):
            yield Block(segment=self.segment, start=start, stop=min(start + BLOCK_BYTES, self.stop))


@dataclass(frozen=True)
class Layout:
    """How the lanes of a plan lie in the one vector that is masked.

    Lanes follow each other in the plan's order. If any lane clips, one more follows: exact counts of clipped
    values, one per clipping lane, so that the clipped fraction is known only as a sum.

    Attributes:
        segments: All lanes in order, that of the clip counts included.
        n_bytes: Size of the vector.
        clip_counts: The segment of the clip counts, if any lane clips.
    """

    segments: tuple[Segment, ...]
    n_bytes: int
    clip_counts: Segment | None

    @classmethod
    def of(cls, plan: RoundPlan) -> "Layout":
        """Lay out the lanes of a plan."""
        lanes = list(plan.lanes)
        n_clipping = sum(lane.clip is not None for lane in lanes)
        if n_clipping:
            lanes.append(Lane(name="clipped", length=n_clipping, ring_bits=64, value_bits=53))
        segments, start = [], 0
        for lane in lanes:
            stop = start + _padded(lane.length * RING_DTYPES[lane.ring_bits].itemsize)
            segments.append(Segment(lane=lane, start=start, stop=stop))
            start = stop
        return cls(segments=tuple(segments), n_bytes=start, clip_counts=segments[-1] if n_clipping else None)

    def stretches(self) -> tuple[Stretch, ...]:
        """All stretches in order; together they cover every byte of the vector once."""
        return tuple(
            Stretch(segment=segment, start=start, stop=min(start + STRETCH_BYTES, segment.stop))
            for segment in self.segments
            for start in range(segment.start, segment.stop, STRETCH_BYTES)
        )


class Keystream:
    """AES-256-CTR keystream under a key that serves one stream only (so the counter starts at zero).

    Args:
        key: 32 secret bytes.
        start: From which byte of the stream on; a multiple of 16.
    """

    def __init__(self, key: bytes, *, start: int = 0) -> None:
        counter, beyond = divmod(start, CIPHER_BLOCK_BYTES)
        if beyond:
            raise ValueError(
                f"a keystream starts at a multiple of {CIPHER_BLOCK_BYTES} bytes, not at {start}"
            )
        nonce = counter.to_bytes(CIPHER_BLOCK_BYTES, "big")
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor()

    def fill(self, out: npt.NDArray[np.uint8]) -> None:
        """Write the next bytes of the stream; ``out`` holds at most twice ``BLOCK_BYTES`` bytes."""
        self._encryptor.update_into(_ZEROS[: out.nbytes], out.data)


@dataclass(frozen=True)
class Masks:
    """The keys of all masks that one vector gets.

    Attributes:
        added: Keys of the streams that are added.
        subtracted: Keys of the streams that are subtracted.
    """

    added: tuple[bytes, ...] = field(default=(), repr=False)
    subtracted: tuple[bytes, ...] = field(default=(), repr=False)

    def streams(self, *, start: int = 0) -> "MaskStreams":
        """The masks as streams, from a byte of the vector on."""
        return MaskStreams(self, start=start)


class MaskStreams:
    """All masks of one vector, consumed block after block.

    Args:
        masks: Their keys.
        start: The byte of the vector that comes first; a multiple of 16.
    """

    def __init__(self, masks: Masks, *, start: int) -> None:
        self._added = [Keystream(key, start=start) for key in masks.added]
        self._subtracted = [Keystream(key, start=start) for key in masks.subtracted]
        self._buffer = np.empty(BLOCK_BYTES, np.uint8)

    def apply_to(self, block: RingArray) -> None:
        """Add and subtract the streams' next stretch, in place; unsigned wrap-around is the ring's modulus."""
        raw = self._buffer[: block.nbytes]
        keystream = raw.view(block.dtype)
        for stream in self._added:
            stream.fill(raw)
            np.add(block, keystream, out=block)
        for stream in self._subtracted:
            stream.fill(raw)
            np.subtract(block, keystream, out=block)


def in_threads(work: Callable[[Stretch], Done], stretches: Sequence[Stretch], *, workers: int) -> list[Done]:
    """Do a piece of work for every stretch, some at a time; ciphers, hashes and numpy release the interpreter.

    Returns:
        What the work returned, in the stretches' order.
    """
    if workers <= 1 or len(stretches) <= 1:
        return [work(stretch) for stretch in stretches]
    with ThreadPoolExecutor(max_workers=min(workers, len(stretches))) as threads:
        return list(threads.map(work, stretches))


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


_ZEROS = memoryview(bytes(2 * BLOCK_BYTES))  # slices of it copy nothing
