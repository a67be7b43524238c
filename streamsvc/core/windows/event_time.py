"""The event time of rows, as int64 microseconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from streamsvc.core.windows.assignment import FIRST_TIME, LAST_TIME, Ints, in_range
from streamsvc.core.windows.watermarks import Mask

Unit = Literal["s", "ms", "us"]

_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_OUTSIDE = LAST_TIME + 1


@dataclass(frozen=True, slots=True)
class EventTime:
    """Where the time of a row is.

    column: of the rows; ``None``: when the record arrived
    unit:   of a number since the epoch; ``None``: the column is a timestamp
    """

    column: str | None
    unit: Unit | None = None

    def problem_with(self, kind: pa.DataType) -> str:
        """Why a column of this type cannot be it; empty if it can."""
        if self.unit is None and not types.is_timestamp(kind):
            return f"{self.column} is {kind}, not a timestamp; for a number since the epoch say its unit: s, ms or us"
        if self.unit is not None and not (types.is_integer(kind) or types.is_floating(kind)):
            return f"{self.column} is {kind}, which has no unit: it must be a number"
        return ""

    def times(self, column: pa.Array) -> tuple[Ints, Mask]:
        """Microseconds since the epoch, and which of them there are: not null, and of the years 1 to 9999.

        column: of a type without ``problem_with``, or arrivals: ``timestamp[ms]``
        """
        there = column.is_valid().to_numpy(zero_copy_only=False)
        if types.is_floating(column.type):
            times = _from_floats(column, _MICROSECONDS[self.unit or "us"])
        elif types.is_timestamp(column.type):
            times = _from_timestamps(column)
        else:
            times = _scaled(_integers(column), _MICROSECONDS[self.unit or "us"])
        return times, there & in_range(times)


def _from_timestamps(column: pa.Array) -> Ints:
    kind, ticks = column.type, _integers(column)
    assert isinstance(kind, pa.TimestampType)
    return ticks // 1_000 if kind.unit == "ns" else _scaled(ticks, _MICROSECONDS[kind.unit])


def _integers(column: pa.Array) -> Ints:
    """Null is 0; what int64 does not hold is far outside."""
    if types.is_uint64(column.type):
        numbers = pc.fill_null(column, 0).to_numpy()
        return np.asarray(np.minimum(numbers, np.uint64(_OUTSIDE)), np.int64)
    return np.asarray(pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy(), np.int64)


def _scaled(numbers: Ints, factor: int) -> Ints:
    return np.asarray(np.clip(numbers, FIRST_TIME // factor - 1, LAST_TIME // factor + 1) * factor, np.int64)


def _from_floats(column: pa.Array, factor: int) -> Ints:
    """The microsecond that the number lies in; what is no number is outside."""
    numbers = pc.fill_null(pc.cast(column, pa.float64()), np.nan).to_numpy()
    times = np.clip(np.nan_to_num(numbers, nan=np.inf) * factor, 2.0 * FIRST_TIME, 2.0 * LAST_TIME)
    return np.asarray(np.floor(times), np.int64)
