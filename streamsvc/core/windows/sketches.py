"""Quantiles and distinct counts that merge to the same answer in any order: buckets with counts, registers with maxima.

Integers only until the answer, so that every machine puts a value into the same bucket (ADR 0020).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, inf, log, sqrt

import numpy as np
import numpy.typing as npt

from streamsvc.core.windows.exact import Floats, Ints
from streamsvc.core.windows.hashing import Hashes

MANTISSA_BITS = 6
"""Of a double that say which bucket it is in: 64 buckets from one power of two to the next, so that the middle of a
bucket is within 1/128 (0.8 %) of everything inside."""

REGISTER_BITS = 12
REGISTERS = 1 << REGISTER_BITS
"""Of a HyperLogLog: a standard error of 1.04 / sqrt(4096) = 1.6 %."""

_SHIFT = 52 - MANTISSA_BITS
_MAX_RANK = 64 - REGISTER_BITS + 1


def ordered(values: Floats) -> Ints:
    """Integers in the order of the values: -0.0 is 0.0, NaN is the greatest and one."""
    bits = np.where(np.isnan(values), np.nan, values + 0.0).view(np.int64)
    return np.where(bits < 0, np.int64(np.iinfo(np.int64).min) - bits, bits)


def from_ordered(numbers: Ints) -> Floats:
    """The values that ``ordered`` was given."""
    return np.where(numbers < 0, np.int64(np.iinfo(np.int64).min) - numbers, numbers).view(np.float64)


def quantile_buckets(values: Floats) -> npt.NDArray[np.int64]:
    """The bucket of each finite value: ascending with the values, and symmetric to zero."""
    numbers = ordered(values)
    return np.where(numbers < 0, ~(-numbers >> _SHIFT), numbers >> _SHIFT)


def quantile_bucket(buckets: Sequence[int], counts: Sequence[int], q: float) -> int:
    """The bucket that holds the value of rank ``floor(q * (n - 1))``; ``buckets`` ascending."""
    rank = floor(q * (sum(counts) - 1))
    for bucket, count in zip(buckets, counts, strict=True):
        rank -= count
        if rank < 0:
            return bucket
    return buckets[-1]


def middle(bucket: int) -> float:
    """Of a bucket; of the one around zero it is 0."""
    low, high = _bounds(bucket)
    return 0.0 if low == 0 else -_between(low, high) if bucket < 0 else _between(low, high)


def middle_integer(bucket: int) -> int:
    """The middle one of the integers in a bucket, for those that hold any."""
    low, high = (ceil(bound) for bound in _bounds(bucket))
    inside = (low + max(high - 1, low)) // 2
    return -inside if bucket < 0 else inside


def _bounds(bucket: int) -> tuple[float, float]:
    """Least magnitude inside, and least above."""
    magnitude = ~bucket if bucket < 0 else bucket
    low, high = np.array([magnitude << _SHIFT, (magnitude + 1) << _SHIFT], np.int64).view(np.float64).tolist()
    return low, min(high, float(np.finfo(np.float64).max))


def _between(low: float, high: float) -> float:
    return low + (high - low) / 2


def registers(values: Hashes) -> tuple[Ints, Ints]:
    """Register of each hash, and its rank: the place of the first 1 in the other bits, 1 to 53."""
    rest = (values & np.uint64((1 << (64 - REGISTER_BITS)) - 1)).astype(np.float64)
    _, bit_length = np.frexp(rest)
    return (values >> np.uint64(64 - REGISTER_BITS)).astype(np.int64), (_MAX_RANK - bit_length).astype(np.int64)


def distinct(ranks: Sequence[int]) -> int:
    """How many different hashes there were. ``ranks``: the greatest of each register that was met.

    Ertl's improved raw estimator (New cardinality estimation algorithms for HyperLogLog sketches, 2017, algorithm 6):
    no bias to correct, no ranges to switch between."""
    counts = [0] * (_MAX_RANK + 1)
    for rank in ranks:
        counts[rank] += 1
    counts[0] = REGISTERS - len(ranks)
    if counts[0] == REGISTERS:
        return 0
    z = REGISTERS * _tau(1 - counts[_MAX_RANK] / REGISTERS)
    for count in reversed(counts[1:_MAX_RANK]):
        z = 0.5 * (z + count)
    z += REGISTERS * _sigma(counts[0] / REGISTERS)
    return round(REGISTERS * REGISTERS / (2 * log(2) * z))


def _sigma(x: float) -> float:
    if x == 1:
        return inf
    y, z, before = 1.0, x, -1.0
    while z != before:
        x *= x
        before = z
        z += x * y
        y += y
    return z


def _tau(x: float) -> float:
    if x in {0.0, 1.0}:
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    while z != before:
        x = sqrt(x)
        before = z
        y *= 0.5
        z -= (1 - x) ** 2 * y
    return z / 3
