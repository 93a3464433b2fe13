"""The passes over a vector: a partner's quantize-mask-hash, the coordinator's add-unmask-decode.

Why: all are bound by memory, so all that happens to a block happens while it is in cache, and threads share the
stretches. Runs: anywhere. Source: own; measured in ``benchmarks/secure_aggregation.py``.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_contracts.errors import AgreementViolation
from tasks.secure_aggregation.keys import DOMAIN
from tasks.secure_aggregation.masking import (
    BLOCK_BYTES,
    Block,
    Layout,
    Masks,
    RingArray,
    Segment,
    Stretch,
    in_threads,
)
from tasks.secure_aggregation.protocol import Attempt
from tasks.secure_aggregation.quantization import LaneCode, LaneEncoder, Values

Contribution = Mapping[str, Values]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SecureSum:
    """The exact sum over the survivors, and all that is learnt of their vectors.

    Attributes:
        values: Sum by lane, shape ``(lane.length,)``: float64 where the lane clips, else exact int64.
        survivors: Whose vectors were summed, sorted.
        n_clipped: By clipping lane, how many values of all survivors together lay beyond the clip.
    """

    values: Mapping[str, npt.NDArray[np.float64] | npt.NDArray[np.int64]]
    survivors: tuple[str, ...]
    n_clipped: Mapping[str, int]


def mask_contribution(
    attempt: Attempt, contribution: Contribution, masks: Masks, *, me: str, rounding_key: bytes, workers: int
) -> tuple[memoryview, bytes]:
    """Quantize, mask and hash a contribution, block by block.

    Args:
        attempt: The attempt.
        contribution: One array per lane.
        masks: All masks of this partner.
        me: This partner, for error messages.
        rounding_key: 32 secret bytes that key the rounding.
        workers: How many threads; the bytes do not depend on it.

    Returns:
        The masked vector, read-only, and its digest as :func:`body_digest` defines it.

    Raises:
        AgreementViolation: If the contribution does not fit the plan's lanes or is not finite.
    """
    _check_contribution(attempt, contribution, me=me)
    layout = attempt.layout
    body = np.zeros(layout.n_bytes, np.uint8)

    def protect(stretch: Stretch, values: Values) -> tuple[int, bytes]:
        encoder = LaneEncoder(
            LaneCode(stretch.segment.lane, n_partners=len(attempt.plan.cohort)),
            rounding_key=rounding_key,
            context=attempt.rounding_context,
            first=(stretch.start - stretch.segment.start) // stretch.segment.dtype.itemsize,
        )
        return _protect(stretch, values, body, encoder, masks)

    counts = layout.clip_counts
    data = [stretch for stretch in layout.stretches() if stretch.segment is not counts]
    done = in_threads(lambda s: protect(s, contribution[s.segment.lane.name]), data, workers=workers)
    digests = [digests for _, digests in done]
    if counts is not None:  # known only now
        clipped = {segment: 0 for segment in layout.segments if segment.lane.clip is not None}
        for stretch, (n_clipped, _) in zip(data, done, strict=True):
            if stretch.segment in clipped:
                clipped[stretch.segment] += n_clipped
        last = Stretch(segment=counts, start=counts.start, stop=counts.stop)
        digests.append(protect(last, np.array(list(clipped.values()), np.int64))[1])
    body.flags.writeable = False
    return body.data, _root_digest(digests)


def _protect(
    stretch: Stretch, values: Values, body: Bytes, encoder: LaneEncoder, masks: Masks
) -> tuple[int, bytes]:
    """Encode, mask and hash one stretch; returns how many values were clipped, and the blocks' digests."""
    streams = masks.streams(start=stretch.start)
    digests = []
    for block in stretch.blocks():
        ring, piece = block.of(body), values[block.elements]
        encoder.encode_into(ring[: piece.size], piece)
        streams.apply_to(ring)
        digests.append(hashlib.sha256(ring.data).digest())
    return encoder.n_clipped, b"".join(digests)


def body_digest(layout: Layout, body: memoryview, *, workers: int) -> bytes:
    """Digest of a masked vector: SHA-256 over the SHA-256 of its blocks, so that threads share the work."""
    vector = np.frombuffer(body, np.uint8)

    def hash_blocks(stretch: Stretch) -> bytes:
        return b"".join(
            hashlib.sha256(vector[block.start : block.stop].data).digest() for block in stretch.blocks()
        )

    return _root_digest(in_threads(hash_blocks, layout.stretches(), workers=workers))


def _root_digest(block_digests: Iterable[bytes]) -> bytes:
    return hashlib.sha256(DOMAIN + b"body\x00" + b"".join(block_digests)).digest()


def unmask_sum(
    attempt: Attempt, bodies: Sequence[memoryview], masks: Masks, *, survivors: tuple[str, ...], workers: int
) -> SecureSum:
    """Add vectors, apply masks and decode, block by block.

    Args:
        attempt: The attempt.
        bodies: The survivors' masked vectors, or their blinded sum alone.
        masks: What removes all that still hides the sum.
        survivors: Their names.
        workers: How many threads.

    Returns:
        The exact sum.
    """
    totals = {segment: _empty_total(segment) for segment in attempt.layout.segments}

    def decode(block: Block, ring: RingArray) -> None:
        elements = block.elements
        code = LaneCode(block.segment.lane, n_partners=len(attempt.plan.cohort))
        code.decode_into(totals[block.segment][elements], ring[: elements.stop - elements.start])

    _add_up(attempt.layout, bodies, masks, finish=decode, workers=workers)
    clipping = [lane.name for lane in attempt.plan.lanes if lane.clip is not None]
    counts = attempt.layout.clip_counts
    return SecureSum(
        values={s.lane.name: total for s, total in totals.items() if s is not counts},
        survivors=survivors,
        n_clipped=dict(zip(clipping, totals[counts].tolist(), strict=True)) if counts else {},
    )


def add_blinded(attempt: Attempt, bodies: Sequence[memoryview], masks: Masks, *, workers: int) -> memoryview:
    """Add vectors and apply masks, but decode nothing: what is left is still hidden by the partners' blinding.

    Returns:
        The blinded sum, read-only, laid out as the masked vectors are.
    """
    total = np.empty(attempt.layout.n_bytes, np.uint8)

    def keep(block: Block, ring: RingArray) -> None:
        np.copyto(block.of(total), ring)

    _add_up(attempt.layout, bodies, masks, finish=keep, workers=workers)
    total.flags.writeable = False
    return total.data


def _add_up(
    layout: Layout,
    bodies: Sequence[memoryview],
    masks: Masks,
    *,
    finish: Callable[[Block, RingArray], None],
    workers: int,
) -> None:
    vectors = [np.frombuffer(body, np.uint8) for body in bodies]

    def add_stretch(stretch: Stretch) -> None:
        streams = masks.streams(start=stretch.start)
        accumulator = np.empty(BLOCK_BYTES, np.uint8)
        for block in stretch.blocks():
            ring = accumulator[: block.stop - block.start].view(block.segment.dtype)
            if len(vectors) == 1:
                np.copyto(ring, block.of(vectors[0]))
            else:
                np.add(block.of(vectors[0]), block.of(vectors[1]), out=ring)
            for vector in vectors[2:]:
                np.add(ring, block.of(vector), out=ring)
            streams.apply_to(ring)
            finish(block, ring)

    in_threads(add_stretch, layout.stretches(), workers=workers)


def _empty_total(segment: Segment) -> npt.NDArray[np.float64] | npt.NDArray[np.int64]:
    if segment.lane.clip is None:
        return np.empty(segment.lane.length, np.int64)
    return np.empty(segment.lane.length, np.float64)


def _check_contribution(attempt: Attempt, contribution: Contribution, *, me: str) -> None:
    got = {name: (array.dtype.name, array.shape) for name, array in contribution.items()}
    for lane in attempt.plan.lanes:
        dtypes = ("int64",) if lane.clip is None else ("float32", "float64")
        dtype, shape = got.pop(lane.name, ("no array", ()))
        if dtype not in dtypes or shape != (lane.length,):
            raise AgreementViolation(
                f"'{me}' contributes {dtype} of shape {shape} to lane '{lane.name}', the plan fixes "
                f"{' or '.join(dtypes)} of shape ({lane.length},)"
            )
    if got:
        raise AgreementViolation(
            f"'{me}' contributes lanes that the plan does not have: {', '.join(sorted(got))}"
        )
