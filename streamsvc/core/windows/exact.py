"""Sums that are exact, and so the same in any order: numbers as digits in base 2^24, which are added digit by digit.

A finite double is an integer times 2^-1074, below 2^2098; the sum of its digits' columns loses nothing, is rounded once
at the end, and never overflows below 2^38 numbers. Arrays are numpy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, nan
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

BITS = 24
UNIT = 1074
"""Values are multiples of 2^-1074, their squares of 2^-2148."""

MAX_NUMBERS = 1 << 38

NAN, POSITIVE_INFINITY, NEGATIVE_INFINITY = 1_000, 1_001, 1_002
"""Buckets that count what has no digits."""

_MASK = (1 << BITS) - 1
_FRACTION = (1 << 52) - 1


def taken_apart(values: Floats) -> tuple[Ints, Ints, Ints]:
    """Sign (1 or -1), magnitude and power of finite values: ``sign * magnitude * 2^(power - 1074)``."""
    bits = values.view(np.int64)
    exponent = (bits >> 52) & 0x7FF
    magnitude = np.where(exponent > 0, (bits & _FRACTION) | (1 << 52), bits & _FRACTION)
    return np.where(bits < 0, -1, 1), magnitude, np.maximum(exponent - 1, 0)


def digits(sign: Ints, magnitude: Ints, power: Ints) -> list[tuple[Ints, Ints]]:
    """Places and digits of ``sign * magnitude * 2^power``, magnitude below 2^63: a pair of arrays for each place that
    a number may have, lowest first. Digits are below 2^25."""
    place, shift = np.divmod(power, BITS)
    return _shifted([(magnitude >> (BITS * n)) & _MASK for n in range(3)], sign, place, shift)


def square_digits(magnitude: Ints, power: Ints) -> list[tuple[Ints, Ints]]:
    """Likewise of ``(magnitude * 2^power)^2``."""
    place, shift = np.divmod(2 * power, BITS)
    a, b, c = ((magnitude >> (BITS * n)) & _MASK for n in range(3))
    columns = [a * a, 2 * a * b, 2 * a * c + b * b, 2 * b * c, c * c]
    limbs: list[Ints] = []
    carry = np.zeros_like(magnitude)
    for column in columns:
        limbs.append((column + carry) & _MASK)
        carry = (column + carry) >> BITS
    return _shifted([*limbs, carry], np.ones_like(magnitude), place, shift)


def _shifted(limbs: list[Ints], sign: Ints, place: Ints, shift: Ints) -> list[tuple[Ints, Ints]]:
    found: list[tuple[Ints, Ints]] = []
    above = np.zeros_like(place)
    for number, limb in enumerate(limbs):
        moved = limb << shift
        found.append((place + number, sign * (above + (moved & _MASK))))
        above = moved >> BITS
    return [*found, (place + len(limbs), sign * above)]


def total(columns: Mapping[int, int]) -> int:
    """The number whose digits were added: place -> sum of digits."""
    return sum(digit << (BITS * place) for place, digit in columns.items() if place < NAN)


def special(columns: Mapping[int, int]) -> float | None:
    """What a sum is if not all of its numbers are finite."""
    up, down = columns.get(POSITIVE_INFINITY, 0), columns.get(NEGATIVE_INFINITY, 0)
    if columns.get(NAN, 0) or (up and down):
        return nan
    return inf if up else -inf if down else None


def ratio(numerator: int, denominator: int) -> float:
    """The nearest double; infinite if there is none."""
    try:
        return numerator / denominator
    except OverflowError:
        return inf if numerator > 0 else -inf


def variance(count: int, sum_: int, squares: int, *, sample: bool) -> float | None:
    """``sum_``: in units of 2^-1074; ``squares``: in units of 2^-2148. ``None`` for too few numbers."""
    divisor = count * (count - 1) if sample else count * count
    if divisor == 0:
        return None
    return ratio(count * squares - sum_ * sum_, divisor << (2 * UNIT))
