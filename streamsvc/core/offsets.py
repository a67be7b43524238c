"""Kafka offsets as positions: 20 digits, so that text order is read order."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.records import Position

DIGITS = 20


def position_of(offset: int) -> Position:
    """The boundary before the record at this offset."""
    return f"{offset:0{DIGITS}}"


def offset_of(position: Position) -> int:
    return int(position)


def positions_of(offsets: pa.Array) -> pa.Array:
    """offsets: int64. Answers string."""
    return pc.utf8_lpad(pc.cast(offsets, pa.string()), DIGITS, "0")
