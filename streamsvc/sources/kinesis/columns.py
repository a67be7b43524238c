"""Records of Kinesis to columns, with the position of each user record. Pure; called in a worker thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.config_sources import Kpl
from streamsvc.core.kinesis_positions import FromRecord, FromTime, parse_position, position_before, positions_before
from streamsvc.core.kpl import HashRange, UserRecords, deaggregate
from streamsvc.records import METADATA, Batch, Position, Span, Split
from streamsvc.sources.kinesis.answers import Record

_RECORD_BYTES = 200
"""What CPython holds for a record beside its data: the record, the heads of its values, its texts."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one answer holds for a split.

    batch:      one span; none of its records if the position moved and no record came
    is_whole:   the end that was asked for is reached
    earliest:   before the first record that was there
    missing:    that is not the one to begin with
    met:        what was met of aggregates, by name, and ``skipped``
    has_last:   the record that ends the range was among them
    """

    batch: Batch
    earliest: Position
    is_whole: bool = False
    missing: bool = False
    has_last: bool = False
    met: Counter[str] = field(default_factory=Counter)

    @property
    def to(self) -> Position:
        return self.batch.spans[0].to


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where an answer begins and what is wanted of it.

    first: of a time, what comes is left out until a record has arrived that late; only then is the place a record's
    fresh: it is the first since ``first`` was asked for, so it may hold records from before
    end:   records behind it are left out
    """

    split: Split
    hashes: HashRange
    first: Position
    fresh: bool
    end: Position | None = None


def piece_of(records: Sequence[Record], wanted: Wanted, kpl: Kpl) -> Piece:
    """records: of one answer, at least one"""
    values, keys = [record.data for record in records], [record.partition_key for record in records]
    if kpl.deaggregate:
        users = deaggregate(keys, values, wanted.hashes, kpl.out_of_range)
    else:
        users = UserRecords(keys, values, [1] * len(values), 1)
    sequences = pa.array([record.sequence_number for record in records], pa.string())
    rows = users.rows()
    offsets = positions_before(sequences.take(rows), users.subs())
    start, missing = _start(records, users.counts, wanted)
    stop, to = len(offsets), position_before(records[-1].sequence_number, users.last_sub)
    is_whole = wanted.end is not None and to >= wanted.end
    if wanted.end is not None and is_whole:
        stop = pc.sum(pc.less(offsets, wanted.end)).as_py() or 0
        to = wanted.end
    elif start == stop and isinstance(parse_position(wanted.first), FromTime):
        to = wanted.first  # what follows may be too early as well
    start, length = min(start, stop), max(0, stop - start)
    span = Span(wanted.split, length, wanted.first, to)
    return Piece(
        batch=_batch(span, users, records, offsets.slice(start, length), rows.slice(start, length), start),
        earliest=position_before(records[0].sequence_number),
        is_whole=is_whole,
        missing=missing,
        has_last=_has(records, wanted.end),
        met=users.met,
    )


def _start(records: Sequence[Record], counts: Sequence[int], wanted: Wanted) -> tuple[int, bool]:
    """How many user records to leave out, and whether the record is missing that was asked for."""
    match parse_position(wanted.first):
        case FromRecord(sequence, sub) if wanted.fresh:
            is_there = records[0].sequence_number == sequence
            return min(sub, counts[0]) if is_there else 0, not is_there
        case FromTime(ms):
            early = 0
            for record, count in zip(records, counts, strict=True):
                if record.approximate_arrival_timestamp is None or _ms(record.approximate_arrival_timestamp) >= ms:
                    break
                early += count
            return early, False
    return 0, False


def _has(records: Sequence[Record], end: Position | None) -> bool:
    place = None if end is None else parse_position(end)
    return isinstance(place, FromRecord) and any(record.sequence_number == place.sequence for record in records)


def _batch(
    span: Span, users: UserRecords, records: Sequence[Record], offsets: pa.Array, rows: pa.Array, start: int
) -> Batch:
    values = pa.array(users.values[start : start + span.rows], pa.binary())
    keys = users.keys[start : start + span.rows]
    times = [record.approximate_arrival_timestamp for record in records]
    return Batch(
        spans=(span,),
        values=values,
        offsets=offsets,
        position_text=lambda positions: positions,
        arrivals=lambda: _arrivals(times).take(rows),
        keys=lambda: pa.array([key.encode() or None for key in keys], METADATA["_key"]),
        headers=cache(lambda: pa.nulls(span.rows, METADATA["_headers"])),
        nbytes=values.nbytes + offsets.nbytes + sum(map(len, keys)) + _RECORD_BYTES * span.rows,
    )


def _arrivals(times: Sequence[float | None]) -> pa.Array:
    """times: seconds since the epoch"""
    return pa.array([None if time is None else _ms(time) for time in times], METADATA["_timestamp"])


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def moved(split: Split, first: Position, to: Position) -> Batch:
    """No record, and yet the position moves: a shard has ended."""
    return Batch(
        spans=(Span(split, 0, first, to),),
        values=pa.array([], pa.binary()),
        offsets=pa.array([], pa.string()),
        position_text=lambda positions: positions,
        arrivals=lambda: pa.array([], METADATA["_timestamp"]),
        keys=lambda: pa.array([], METADATA["_key"]),
        headers=lambda: pa.array([], METADATA["_headers"]),
        nbytes=0,
    )


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches in read order as one."""
    if len(batches) == 1:
        return batches[0]
    return Batch(
        spans=tuple(chain.from_iterable(batch.spans for batch in batches)),
        values=pa.concat_arrays([batch.values for batch in batches]),
        offsets=pa.concat_arrays([batch.offsets for batch in batches]),
        position_text=lambda positions: positions,
        arrivals=lambda: pa.concat_arrays([batch.arrivals() for batch in batches]),
        keys=lambda: pa.concat_arrays([batch.keys() for batch in batches]),
        headers=lambda: pa.concat_arrays([batch.headers() for batch in batches]),
        nbytes=sum(batch.nbytes for batch in batches),
    )
