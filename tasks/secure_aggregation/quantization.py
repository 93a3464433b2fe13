"""Between a partner's numbers and the ring: clipping, stochastic rounding, exact integers, and back.

Why: sums in a ring of integers are exact and free of order, so anybody can repeat them bit for bit.
Runs: encoding on the partner, decoding on the coordinator.
Source: unbiased stochastic rounding ``floor(x * s + u)``; no wrap-around, proved in :class:`LaneCode`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_contracts.errors import AgreementViolation
from data_contracts.plan import Lane
from tasks.secure_aggregation.keys import KEY_BYTES, derive
from tasks.secure_aggregation.masking import BLOCK_BYTES, RING_DTYPES, Keystream, RingArray

SINGLE_PRECISION_BITS = 12  # up to here float32 rounds by less than 2^-12 of a step; beyond, float64 is used
_Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Values = _Real | npt.NDArray[np.int64]


@dataclass(frozen=True)
class LaneCode:
    """The code of one lane for a cohort: constructing it proves that no sum can wrap around.

    Each partner sends integers of magnitude at most ``largest = 2^(b-1) - 1``; the sum of n of them lies within
    ``n * largest``, and the constructor demands ``n * largest < 2^(R-1)``, the range of a signed R-bit integer.

    Attributes:
        lane: The lane.
        n_partners: Size of the cohort, the most that can ever be summed.
    """

    lane: Lane
    n_partners: int

    def __post_init__(self) -> None:
        """Prove the range."""
        if self.n_partners * self.largest >= 2 ** (self.lane.ring_bits - 1):
            raise AgreementViolation(
                f"lane '{self.lane.name}': the sum of {self.n_partners} partners' {self.lane.value_bits}-bit values "
                f"could wrap around a ring of {self.lane.ring_bits} bits; plan fewer value bits or a wider ring"
            )

    @property
    def largest(self) -> int:
        """Largest magnitude of one partner's integer."""
        return int(2 ** (self.lane.value_bits - 1)) - 1

    @property
    def scale(self) -> float:
        """Integer steps per unit, 1 for a lane of exact integers."""
        return 1.0 if self.lane.clip is None else self.largest / self.lane.clip

    def decode_into(self, out: npt.NDArray[np.float64] | npt.NDArray[np.int64], ring_sum: RingArray) -> None:
        """Turn a sum in the ring into the sum of the values.

        Args:
            out: float64 where the lane clips, else int64; shape as ``ring_sum``.
            ring_sum: Sum of at most ``n_partners`` encoded vectors, modulo the ring.
        """
        signed = ring_sum.view(f"<i{ring_sum.itemsize}")
        if self.lane.clip is None:
            np.copyto(out, signed)
        else:
            np.multiply(signed, 1.0 / self.scale, out=out)


class LaneEncoder:
    """Encodes one lane block after block, from any fourth element on.

    Args:
        code: The lane's code.
        rounding_key: 32 secret bytes of the partner; whoever knew them could undo the rounding.
        context: 32 bytes that name the round, so that a restart and a repeated attempt round alike.
        first: Which element of the lane comes first; a multiple of 4.

    Attributes:
        n_clipped: How many values so far lay beyond the clip.
    """

    def __init__(self, code: LaneCode, *, rounding_key: bytes, context: bytes, first: int = 0) -> None:
        if len(rounding_key) != KEY_BYTES:
            raise ValueError(f"the rounding key has {len(rounding_key)} bytes, expected {KEY_BYTES}")
        self.n_clipped = 0
        self._code = code
        single = code.lane.value_bits <= SINGLE_PRECISION_BITS
        key = derive(rounding_key, label="rounding", context=context + code.lane.name.encode())
        self._uniform = Keystream(key, start=first * np.dtype(np.uint32).itemsize)
        most = BLOCK_BYTES // RING_DTYPES[code.lane.ring_bits].itemsize
        self._scaled: _Real = np.empty(most, np.float32) if single else np.empty(most, np.float64)
        self._unit: _Real = np.empty_like(self._scaled)
        self._random = np.empty(most, np.uint32)

    def encode_into(self, out: RingArray, values: Values) -> None:
        """Encode the lane's next values.

        Args:
            out: Ring elements to write, shape ``(n,)``, at most a block.
            values: float32 or float64 where the lane clips, else int64; shape ``(n,)``.

        Raises:
            AgreementViolation: If a value is not finite, or an exact integer is out of range.
        """
        if not values.size:
            return
        low, high = values.min(), values.max()
        if self._code.lane.clip is None:
            self._check_integers(int(low), int(high))
            np.copyto(out, values.astype(out.dtype), casting="no")
        else:
            self._round_into(out, values, low=float(low), high=float(high))

    def _check_integers(self, low: int, high: int) -> None:
        if max(-low, high) > self._code.largest:
            raise AgreementViolation(
                f"lane '{self._code.lane.name}' holds an integer beyond its {self._code.lane.value_bits} bits; "
                f"plan more value bits"
            )

    def _round_into(self, out: RingArray, values: Values, *, low: float, high: float) -> None:
        if not (np.isfinite(low) and np.isfinite(high)):
            raise AgreementViolation(
                f"lane '{self._code.lane.name}' holds a value that is not a finite number; nothing was sent",
                advice="look for a diverged local training: lower the learning rate or clip its gradients",
            )
        clip, largest = self._code.lane.clip or 0.0, self._code.largest
        if max(-low, high) > clip:
            self.n_clipped += int(np.count_nonzero(np.abs(values) > clip))
            inside: npt.NDArray[Any] = np.clip(values, -clip, clip)
        else:
            inside = values
        scaled = self._scaled[: values.size]
        np.multiply(inside, self._code.scale, out=scaled, casting="same_kind")
        np.add(scaled, self._unit_interval(values.size), out=scaled)
        np.floor(scaled, out=scaled)
        if max(-low, high) * self._code.scale > largest - 1:  # rounding may go beyond the last step
            np.clip(scaled, -largest, largest, out=scaled)
        np.copyto(out.view(f"<i{out.itemsize}"), scaled, casting="unsafe")

    def _unit_interval(self, n: int) -> _Real:
        """The next n uniform numbers in [0, 1): of 24 bits as float32, of 32 bits as float64."""
        random, unit = self._random[:n], self._unit[:n]
        self._uniform.fill(random.view(np.uint8))
        if unit.dtype == np.float32:
            np.right_shift(random, np.uint32(8), out=random)
            np.copyto(unit, random, casting="same_kind")
            return np.multiply(unit, np.float32(2.0**-24), out=unit)
        return np.multiply(random, 2.0**-32, out=unit)


def encode(code: LaneCode, values: Values, *, rounding_key: bytes, context: bytes) -> tuple[RingArray, int]:
    """Encode a whole lane.

    Args:
        code: The lane's code.
        values: Shape ``(lane.length,)``; float32 or float64 where the lane clips, else int64.
        rounding_key: 32 secret bytes of the partner.
        context: 32 bytes that name the round.

    Returns:
        Ring elements, shape ``(lane.length,)``, and how many values were clipped.

    Raises:
        AgreementViolation: If a value is not finite or out of range.
    """
    out = np.empty(code.lane.length, RING_DTYPES[code.lane.ring_bits])
    encoder = LaneEncoder(code, rounding_key=rounding_key, context=context)
    step = BLOCK_BYTES // out.itemsize
    for start in range(0, out.size, step):
        encoder.encode_into(out[start : start + step], values[start : start + step])
    return out, encoder.n_clipped


def decode(code: LaneCode, ring_sum: RingArray) -> npt.NDArray[np.float64] | npt.NDArray[np.int64]:
    """Decode a whole lane: float64 where the lane clips, else exact int64; shape ``(lane.length,)``."""
    exact = code.lane.clip is None
    out = np.empty(ring_sum.shape, np.int64) if exact else np.empty(ring_sum.shape, np.float64)
    code.decode_into(out, ring_sum)
    return out
