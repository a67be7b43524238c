"""A hash of column values that is the same on every machine and in every release: it is kept in partials.

64 bits, by the finalizer of SplitMix64 (Steele, Lea, Flood 2014) over eight bytes at a time. Not against adversaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types

Hashes: TypeAlias = npt.NDArray[np.uint64]

_SEED = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0x2545F4914F6CDD1D)
_WORD = 8


def can_hash(kind: pa.DataType) -> bool:
    return not types.is_nested(kind) and not types.is_decimal256(kind)


def hashes(column: pa.Array) -> Hashes:
    """One a value; equal values of one type have equal hashes. -0.0 is 0.0, and all NaN are one."""
    kind = column.type
    if types.is_decimal(kind):
        words = decimal_words(column).view(np.uint64)
        found = _mixed(_mixed(words[:, 0] ^ _SEED) ^ words[:, 1])
    elif types.is_string(kind) or types.is_binary(kind) or types.is_fixed_size_binary(kind):
        found = _of_texts(column.cast(pa.binary()))
    else:
        found = _mixed(_words(column) ^ _SEED)
    return np.where(column.is_null().to_numpy(zero_copy_only=False), _NULL, found) if column.null_count else found


def row_hashes(columns: Sequence[pa.Array]) -> Hashes:
    """One a row, of all its values."""
    found = hashes(columns[0])
    for column in columns[1:]:
        found = _mixed((found << np.uint64(1)) ^ hashes(column))
    return found


def text_hash(text: str) -> np.uint64:
    return np.uint64(hashes(pa.array([text], pa.string()))[0])


def combined(left: Hashes, right: Hashes) -> Hashes:
    return _mixed((left << np.uint64(1)) ^ right)


def scale_of(kind: pa.DataType) -> int:
    """Digits after the point."""
    return kind.scale if types.is_decimal(kind) else 0


def decimal_words(column: pa.Array) -> npt.NDArray[np.int64]:
    """Low and high word of each unscaled value (at null, anything)."""
    whole = column.cast(pa.decimal128(38, scale_of(column.type)))
    buffer = whole.buffers()[1]
    words = np.frombuffer(memoryview(buffer), "<i8") if buffer is not None else np.zeros(0, np.int64)
    return np.ascontiguousarray(words[2 * whole.offset :][: 2 * len(whole)]).reshape(-1, 2)


def plain_zero(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """0.0 for -0.0, and one NaN for all."""
    return np.where(np.isnan(values), np.nan, values + 0.0)


def _words(column: pa.Array) -> Hashes:
    kind = column.type
    if types.is_floating(kind):
        values = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
        return plain_zero(values).view(np.uint64)
    if types.is_uint64(kind):
        return np.asarray(column.fill_null(0).to_numpy(zero_copy_only=False), np.uint64)
    if types.is_date32(kind) or types.is_time32(kind):
        column = column.cast(pa.int32())
    numbers = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return np.asarray(numbers, np.int64).view(np.uint64)


def _of_texts(column: pa.Array) -> Hashes:
    """Eight bytes of all texts at a time."""
    if not len(column):
        return np.zeros(0, np.uint64)
    _, offset_buffer, data_buffer = column.buffers()
    assert offset_buffer is not None
    offsets = np.frombuffer(memoryview(offset_buffer), np.int32)[column.offset :][: len(column) + 1].astype(np.int64)
    first, end = int(offsets[0]), int(offsets[-1])
    padded = np.zeros(end - first + _WORD, np.uint8)
    if data_buffer is not None:
        padded[:-_WORD] = np.frombuffer(memoryview(data_buffer), np.uint8)[first:end]
    words = np.ndarray((end - first + 1,), "<u8", padded.data, strides=(1,))
    places, left = offsets[:-1] - first, np.diff(offsets)
    found = _mixed(left.view(np.uint64) ^ _SEED)
    rows = np.flatnonzero(left > 0)
    while len(rows):
        bits = np.minimum(left[rows], _WORD).astype(np.uint64) * np.uint64(8)
        word = words[places[rows]] & (np.uint64(0xFFFFFFFFFFFFFFFF) >> (np.uint64(64) - bits))
        found[rows] = _mixed(found[rows] ^ word)
        places[rows] += _WORD
        left[rows] -= _WORD
        rows = rows[left[rows] > 0]
    return found


def _mixed(words: Hashes) -> Hashes:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
