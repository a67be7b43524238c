"""Records of the KCL as a batch. The only Python object per record is the one that the line was parsed to."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import pyarrow as pa

from streamsvc.core.kinesis_positions import FromTime, parse_position, position_after, position_before, positions_before
from streamsvc.records import METADATA, Batch, Position, Span, Split
from streamsvc.sources.kinesis.kcl.protocol import Record

_RECORD_BYTES = 200
"""What CPython holds for a record beside its data: the key, its place in lists, the time."""


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
    """From a boundary on, the records behind it, as the native engine makes them."""
    values = pa.array([record.data or b"" for record in records], pa.binary())
    sequences = pa.array([record.sequence_number for record in records], pa.string())
    subs = pa.array([record.sub_sequence_number or 0 for record in records], pa.int64())
    offsets = positions_before(sequences, subs)
    keys = [(record.partition_key or "").encode() or None for record in records]
    times = [record.approximate_arrival_timestamp for record in records]
    return Batch(
        spans=(Span(split, len(records), first, after(records[-1])),),
        values=values,
        offsets=offsets,
        position_text=lambda positions: positions,
        arrivals=lambda: pa.array(times, METADATA["_timestamp"]),
        keys=lambda: pa.array(keys, METADATA["_key"]),
        headers=lambda: pa.nulls(len(records), METADATA["_headers"]),
        nbytes=values.nbytes + offsets.nbytes + _RECORD_BYTES * len(records),
    )
