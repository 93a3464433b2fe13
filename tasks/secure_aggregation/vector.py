"""The two passes over a vector: a partner's quantize-mask-hash, and the coordinator's add-unmask-decode.

Why: both are bound by memory, so all that happens to a block happens while it is in cache.
Runs: anywhere. Source: own; measured in ``benchmarks/secure_aggregation.py``.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_contracts.errors import AgreementViolation
from tasks.secure_aggregation.masking import BLOCK_BYTES, Block, MaskStreams, Segment
from tasks.secure_aggregation.protocol import Attempt
from tasks.secure_aggregation.quantization import LaneCode, LaneEncoder, Values

Contribution = Mapping[str, Values]


@dataclass(frozen=True)
class SecureSum:
    """The exact sum over the survivors, and all that the coordinator learns.

    Attributes:
        values: Sum by lane, shape ``(lane.length,)``: float64 where the lane clips, else exact int64.
        survivors: Whose vectors were summed, sorted.
        n_clipped: By clipping lane, how many values of all survivors together lay beyond the clip.
    """

    values: Mapping[str, npt.NDArray[np.float64] | npt.NDArray[np.int64]]
    survivors: tuple[str, ...]
    n_clipped: Mapping[str, int]


def mask_contribution(
    attempt: Attempt, contribution: Contribution, streams: MaskStreams, *, me: str, rounding_key: bytes
) -> tuple[memoryview, bytes]:
    """Quantize, mask and hash a contribution, block by block.

    Args:
        attempt: The attempt.
        contribution: One array per lane.
        streams: All masks of this partner.
        me: This partner, for error messages.
        rounding_key: 32 secret bytes that key the rounding.

    Returns:
        The masked vector, read-only, and its SHA-256.

    Raises:
        AgreementViolation: If the contribution does not fit the plan's lanes or is not finite.
    """
    _check_contribution(attempt, contribution, me=me)
    body = np.zeros(attempt.layout.n_bytes, np.uint8)
    hasher = hashlib.sha256()
    encoders = {
        segment: LaneEncoder(
            LaneCode(segment.lane, n_partners=len(attempt.plan.cohort)),
            rounding_key=rounding_key,
            context=attempt.rounding_context,
        )
        for segment in attempt.layout.segments
    }
    for block in attempt.layout.blocks():
        values = contribution.get(block.segment.lane.name)
        if block.segment is attempt.layout.clip_counts:
            values = _clip_counts(encoders)
        ring = block.of(body)
        if values is not None:
            piece = values[block.elements]
            encoders[block.segment].encode_into(ring[: piece.size], piece)
        streams.apply_to(ring)
        hasher.update(ring.data)
    body.flags.writeable = False
    return body.data, hasher.digest()


def unmask_sum(
    attempt: Attempt, bodies: Sequence[memoryview], streams: MaskStreams, *, survivors: tuple[str, ...]
) -> SecureSum:
    """Add the survivors' masked vectors, remove the masks and decode, block by block.

    Args:
        attempt: The attempt.
        bodies: The survivors' masked vectors.
        streams: All masks that remain in their sum.
        survivors: Their names.

    Returns:
        The exact sum.
    """
    vectors = [np.frombuffer(body, np.uint8) for body in bodies]
    accumulator = np.empty(BLOCK_BYTES, np.uint8)
    totals = {segment: _empty_total(segment) for segment in attempt.layout.segments}
    for block in attempt.layout.blocks():
        ring = _add_up(block, vectors, accumulator)
        streams.apply_to(ring)
        elements = block.elements
        code = LaneCode(block.segment.lane, n_partners=len(attempt.plan.cohort))
        code.decode_into(totals[block.segment][elements], ring[: elements.stop - elements.start])
    clipping = [lane.name for lane in attempt.plan.lanes if lane.clip is not None]
    counts = attempt.layout.clip_counts
    return SecureSum(
        values={s.lane.name: total for s, total in totals.items() if s is not counts},
        survivors=survivors,
        n_clipped=dict(zip(clipping, totals[counts].tolist(), strict=True)) if counts else {},
    )


def _add_up(
    block: Block, vectors: Sequence[npt.NDArray[np.uint8]], accumulator: npt.NDArray[np.uint8]
) -> npt.NDArray[np.unsignedinteger]:
    ring = accumulator[: block.stop - block.start].view(block.segment.dtype)
    np.add(block.of(vectors[0]), block.of(vectors[1]), out=ring)
    for vector in vectors[2:]:
        np.add(ring, block.of(vector), out=ring)
    return ring


def _empty_total(segment: Segment) -> npt.NDArray[np.float64] | npt.NDArray[np.int64]:
    if segment.lane.clip is None:
        return np.empty(segment.lane.length, np.int64)
    return np.empty(segment.lane.length, np.float64)


def _clip_counts(encoders: Mapping[Segment, LaneEncoder]) -> npt.NDArray[np.int64]:
    counts = [encoder.n_clipped for segment, encoder in encoders.items() if segment.lane.clip is not None]
    return np.array(counts, np.int64)


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
