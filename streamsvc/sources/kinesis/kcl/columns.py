"""Records of the KCL as a batch. The only Python object per record is the one that the line was parsed to."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import pyarrow as pa

from streamsvc.core.kinesis_positions import FromTime, parse_position, position_after, position_before
from streamsvc.records import METADATA, Batch, Position, Span, Split
from streamsvc.sources.kinesis.kcl.protocol import Record

_RECORD_BYTES = 300
"""What CPython holds for a record beside its payload."""


def before(record: Record) -> Position:
    return position_before(record.sequence_number, record.sub_sequence_number or 0)


def after(record: Record) -> Position:
    return position_after(record.sequence_number, record.sub_sequence_number or 0)


def records_from(position: Position, records: Sequence[Record]) -> Sequence[Record]:
    """Those at or behind a boundary; the records of a shard are in order."""
    place = parse_position(position)
    if isinstance(place, FromTime):
        times = (record.approximate_arrival_timestamp for record in records)
        first = next((row for row, time in enumerate(times) if time is not None and time >= place.ms), len(records))
    else:
        first = bisect_left(records, position, key=before)
    return records[first:]


def batch_of(split: Split, first: Position, records: Sequence[Record]) -> Batch:
    """From a boundary on, the records behind it. Kinesis knows no headers and no tombstones."""
    values = pa.array([record.data or b"" for record in records], pa.binary())
    keys = pa.array([(record.partition_key or "").encode() for record in records], pa.binary())
    times = pa.array([record.approximate_arrival_timestamp for record in records], METADATA["_timestamp"])
    return Batch(
        spans=(Span(split, len(records), first, after(records[-1])),),
        values=values,
        offsets=pa.array([before(record) for record in records], pa.string()),
        position_text=lambda offsets: offsets,
        arrivals=lambda: times,
        keys=lambda: keys,
        headers=lambda: pa.nulls(len(records), METADATA["_headers"]),
        nbytes=2 * values.nbytes + keys.nbytes + _RECORD_BYTES * len(records),
    )


def end_of(split: Split, first: Position, end: Position) -> Batch:
    """The position moves to the end of a shard; no record comes."""
    nothing = pa.array([], pa.binary())
    return Batch(
        spans=(Span(split, 0, first, end),),
        values=nothing,
        offsets=pa.array([], pa.string()),
        position_text=lambda offsets: offsets,
        arrivals=lambda: pa.array([], METADATA["_timestamp"]),
        keys=lambda: nothing,
        headers=lambda: pa.array([], METADATA["_headers"]),
        nbytes=0,
    )
