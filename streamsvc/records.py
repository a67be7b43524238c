"""The Arrow schemas and small value types that every room shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa

Split: TypeAlias = str
"""A unit of input read in order, by a name that is unique for ever (Kafka: ``topic@partition.topic-id``)."""

Position: TypeAlias = str
"""A boundary between two records of a split. Text order is read order (Kafka: the offset, 20 digits)."""

ROW = "_row"
"""Hidden ``int32`` column: the index, in its batch, of the record that a row was made from."""

METADATA = {
    "_key": pa.binary(),
    "_headers": pa.map_(pa.string(), pa.binary()),
    "_timestamp": pa.timestamp("ms", tz="UTC"),
    "_split": pa.string(),
    "_position": pa.string(),
}
"""Columns a pipeline may ``include:``; what the source knows of a record besides its value."""

REJECTED = pa.schema([(ROW, pa.int32()), ("reason", pa.string()), ("error", pa.string())])
"""Rejects inside a batch. ``reason`` is one short word of a fixed set, for metrics; ``error`` is for people."""

NO_REJECTS = pa.RecordBatch.from_pylist([], schema=REJECTED)


@dataclass(frozen=True, slots=True)
class Span:
    """A run of records of one split inside a batch. ``rows`` may be 0: the position moved, no record came.

    A gap between ``first`` and the first record (compaction, control records) belongs to the span.
    """

    split: Split
    rows: int
    first: Position
    to: Position


@dataclass(frozen=True, slots=True)
class Batch:
    """Raw records as they were read: columns of equal length, the rows of ``spans`` one after another.

    values:    binary, null for a tombstone
    offsets:   int64 for Kafka, string for Kinesis: what ``position_text`` turns into a Position
    arrivals:  timestamp[ms, UTC]: when the broker or stream took the record; null if it does not say
    keys:      makes binary, one a record; called only where keys are wanted
    headers:   makes map<string, binary>; called only where headers are wanted
    """

    spans: tuple[Span, ...]
    values: pa.Array
    offsets: pa.Array
    arrivals: pa.Array
    keys: Callable[[], pa.Array]
    headers: Callable[[], pa.Array]
    position_text: Callable[[pa.Array], pa.Array]
    nbytes: int

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Sifted:
    """What a decoder or a transform made of a batch: the rows that passed, the records that did not.

    rows:    the step's columns and ``_row``
    rejects: schema ``REJECTED``
    """

    rows: pa.RecordBatch
    rejects: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class DataObject:
    """An encoded object, not yet in the store. ``body`` is a list of buffers to be put one after another."""

    key: str
    body: list[pa.Buffer | bytes]
    rows: int

    @property
    def nbytes(self) -> int:
        return sum(len(part) for part in self.body)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as an outcome names it. ``kind`` is ``data`` or ``rejects``; ``url`` is the whole address."""

    url: str
    rows: int
    nbytes: int
    kind: str = "data"


Ranges: TypeAlias = Mapping[Split, tuple[Position, Position]]


def ranges_of(spans: Iterable[Span]) -> dict[Split, tuple[Position, Position]]:
    """The half-open range of every split, from spans in read order."""
    ranges: dict[Split, tuple[Position, Position]] = {}
    for span in spans:
        first = ranges[span.split][0] if span.split in ranges else span.first
        ranges[span.split] = (first, span.to)
    return ranges


def row_bounds(spans: Iterable[Span]) -> Iterator[tuple[Span, int, int]]:
    """Each span with the half-open range of batch rows it covers."""
    start = 0
    for span in spans:
        yield span, start, start + span.rows
        start += span.rows
