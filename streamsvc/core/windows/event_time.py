"""When rows are: int64 microseconds since the epoch, of a column or of their arrival."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from streamsvc.core.windows.assignment import FIRST_TIME, LAST_TIME

_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}


@dataclass(frozen=True, slots=True)
class EventTimes:
    """``column``: ``None`` for the arrival. ``unit``: of a column of whole numbers; ``None`` for timestamps."""

    column: str | None
    unit: Literal["s", "ms", "us"] | None = None

    def check(self, schema: pa.Schema) -> None:
        """Raises ``ValueError``: there is no such column, or it is of another type."""
        if self.column is None:
            return
        if self.column not in schema.names:
            raise ValueError(f"there is no column {self.column}; there are {', '.join(schema.names)}")
        kind = schema.field(self.column).type
        if self.unit is None and not types.is_timestamp(kind):
            number = types.is_integer(kind)
            advice = f"say in which unit: {{column: {self.column}, unit: ms}}" if number else "make a timestamp of it"
            raise ValueError(f"{self.column} is of type {kind}, and windows need a timestamp: {advice}")
        if self.unit is not None and not types.is_integer(kind):
            raise ValueError(f"{self.column} is of type {kind}: a unit is for columns of whole numbers; leave it out")

    def __call__(self, rows: pa.RecordBatch, arrivals: pa.Array) -> pa.Array:
        """int64, one a row; null where there is none. Beyond the years 1 to 9999 it is some time beyond them.

        arrivals: timestamp[ms, UTC], one a row"""
        column = arrivals if self.column is None else rows.column(self.column)
        if isinstance(column.type, pa.TimestampType):
            ticks = column.cast(pa.int64())
            return ticks if column.type.unit == "us" else _bounded(ticks, _MICROSECONDS[column.type.unit])
        assert self.unit is not None, "the columns were checked"
        return _bounded(column, _MICROSECONDS[self.unit])


def _bounded(ticks: pa.Array, microseconds: int) -> pa.Array:
    """Whole numbers of so many microseconds; what would overflow is just beyond the bounds."""
    if types.is_uint64(ticks.type):
        ticks = pc.min_element_wise(ticks, pa.scalar(LAST_TIME + 1, pa.uint64()))
    least, most = FIRST_TIME // microseconds - 1, LAST_TIME // microseconds + 1
    values = np.clip(ticks.cast(pa.int64()).fill_null(0).to_numpy(), least, most) * microseconds
    return pa.array(values, mask=ticks.is_null().to_numpy(zero_copy_only=False))
