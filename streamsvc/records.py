"""The Arrow schemas and small value types that every room shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import ipc

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


class Problem(str):
    """What is wrong with a configuration, for people; ``place``: the keys that lead there, which may be any text."""

    __slots__ = ("place", "what")

    place: tuple[str | int, ...]
    what: str

    def __new__(cls, what: str, *place: str | int) -> Self:
        """``what`` may be a problem with a place of its own, which is below this one."""
        if isinstance(what, Problem):
            place, what = (*place, *what.place), what.what
        made = super().__new__(cls, f"{'.'.join(map(str, place))}: {what}" if place else what)
        made.place, made.what = place, what
        return made


@dataclass(frozen=True, slots=True)
class Span:
    """A run of records of one split inside a batch. ``rows`` may be 0: the position moved, no record came.

    A gap between ``first`` and the first record (compaction, control records) belongs to the span.
    """

    split: Split
    rows: int
    first: Position
    to: Position


Column: TypeAlias = Callable[[], pa.Array]
"""A column that is made when somebody wants it, one value a record of the batch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Raw records as they were read: columns of equal length, the rows of ``spans`` one after another.

    values:        binary, null for a tombstone
    offsets:       int64 for Kafka, string for Kinesis; ``position_text`` makes each record's Position of it
    arrivals:      timestamp[ms, UTC]: when the broker or stream took the record; null if it does not say
    keys:          binary, null where the record has none
    headers:       map<string, binary>, null where the record has none
    nbytes:        what the batch holds in memory
    """

    spans: tuple[Span, ...]
    values: pa.Array
    offsets: pa.Array
    position_text: Callable[[pa.Array], pa.Array]
    arrivals: Column
    keys: Column
    headers: Column
    nbytes: int

    def __len__(self) -> int:
        return len(self.values)

    def position(self, row: int) -> Position:
        """The boundary before the record in this row."""
        return str(self.position_text(self.offsets.slice(row, 1))[0].as_py())

    def split_names(self) -> pa.Array:
        """dictionary<string>: the split of each record."""
        codes = [pa.repeat(pa.scalar(code, pa.int32()), span.rows) for code, span in enumerate(self.spans)]
        names = pa.array([span.split for span in self.spans], pa.string())
        return pa.DictionaryArray.from_arrays(pa.concat_arrays(codes or [pa.array([], pa.int32())]), names)

    def before(self, row: int) -> Batch:
        """The records before this row."""
        spans = [
            Span(span.split, min(end, row) - start, span.first, span.to if end <= row else self.position(row))
            for span, start, end in row_bounds(self.spans)
            if start < row
        ]
        return self._map(tuple(spans), lambda column: column.slice(0, row))

    def after(self, row: int) -> Batch:
        """This row's record and all behind it."""
        spans = [
            Span(span.split, end - max(start, row), span.first if start >= row else self.position(row), span.to)
            for span, start, end in row_bounds(self.spans)
            if start >= row or end > row
        ]
        return self._map(tuple(spans), lambda column: column.slice(row))

    def only(self, wanted: Callable[[Span], bool]) -> Batch:
        """The records of the spans that are wanted; the batch itself when all are."""
        kept = [(span, start, end) for span, start, end in row_bounds(self.spans) if wanted(span)]
        if len(kept) == len(self.spans):
            return self

        def pick(column: pa.Array) -> pa.Array:
            return pa.concat_arrays([column.slice(0, 0), *(column.slice(a, b - a) for _, a, b in kept)])

        return self._map(tuple(span for span, _, _ in kept), pick)

    def _map(self, spans: tuple[Span, ...], pick: Callable[[pa.Array], pa.Array]) -> Batch:
        values = pick(self.values)
        return Batch(
            spans=spans,
            values=values,
            offsets=pick(self.offsets),
            position_text=self.position_text,
            arrivals=lambda: pick(self.arrivals()),
            keys=lambda: pick(self.keys()),
            headers=lambda: pick(self.headers()),
            nbytes=self.nbytes * len(values) // max(len(self), 1),
        )


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


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """``[start_us, end_us)`` in event time, microseconds since the epoch."""

    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Windowed:
    """Rows of one batch, and the windows that they are in time for.

    rows:    the columns after all steps, and ``_row``, ascending; those that are in no pair are not looked at
    times:   int64, the event time of each row in microseconds since the epoch
    starts:  int64, ``start_us`` of a window, one a pair of row and window
    members: int32, the row (index in ``rows``) of each pair, ascending; ``None``: pair i is row i
    batch:   where the rows come from; leads from ``_row`` to split and position
    """

    rows: pa.RecordBatch
    times: pa.Array
    starts: pa.Array
    members: pa.Array | None
    batch: Batch


WINDOW = "window"
"""``int64`` column of ``Partials``: ``start_us`` of the window."""


@dataclass(frozen=True, slots=True)
class Partials:
    """Mergeable states by window and group: what a segment of a windowed pipeline makes of its rows.

    flat:     ``window``, the group's columns, and states of fixed size; one row for each window and group
    bucketed: ``group`` (int32: the row of ``flat`` that it belongs to), ``aggregate``, ``bucket``, ``weight``

    Equal rows make equal partials, whatever the batches, and in one order; columns and types are the aggregation's.
    """

    flat: pa.Table
    bucketed: pa.Table

    @property
    def nbytes(self) -> int:
        return self.flat.nbytes + self.bucketed.nbytes

    @property
    def groups(self) -> int:
        """Pairs of window and group."""
        return self.flat.num_rows

    @property
    def starts(self) -> list[int]:
        """``start_us`` of every window inside, ascending."""
        return sorted(pc.unique(self.flat[WINDOW]).to_pylist())

    def only(self, starts: Iterable[int]) -> Partials:
        """What belongs to these windows."""
        wanted = pa.array(list(starts), pa.int64())
        return self._filtered(pc.is_in(self.flat[WINDOW], wanted))

    def without(self, starts: Iterable[int]) -> Partials:
        """What does not belong to these windows."""
        unwanted = pa.array(list(starts), pa.int64())
        return self._filtered(pc.invert(pc.is_in(self.flat[WINDOW], unwanted)))

    def to_ipc(self) -> pa.Buffer:
        """Two Arrow IPC streams, one after the other, compressed with zstd. Equal partials are equal bytes."""
        sink = pa.BufferOutputStream()
        for table in (self.flat, self.bucketed):
            with ipc.new_stream(sink, table.schema, options=ipc.IpcWriteOptions(compression="zstd")) as stream:
                stream.write_table(table.combine_chunks())
        return sink.getvalue()

    @classmethod
    def from_ipc(cls, body: pa.Buffer | bytes) -> Partials:
        """Raises ``ValueError``: these bytes are no partials, or damaged."""
        try:
            source = pa.BufferReader(body)
            flat = ipc.open_stream(source).read_all()
            bucketed = ipc.open_stream(source).read_all()
            flat.validate(full=True)
            bucketed.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"no partials of windows: {error}") from error
        return cls(flat, bucketed)

    def _filtered(self, wanted: pa.ChunkedArray) -> Partials:
        """``wanted``: boolean, one a row of ``flat``."""
        kept = wanted.to_numpy()
        groups = self.bucketed["group"].to_numpy()
        bucketed = self.bucketed.filter(pa.array(kept[groups]))
        moved = pa.array((kept.cumsum() - 1)[bucketed["group"].to_numpy()], pa.int32())
        return Partials(self.flat.filter(wanted), bucketed.set_column(0, "group", moved))


@dataclass(frozen=True, slots=True)
class Finished:
    """The results of windows: deterministic in values and order.

    rows:   ``window_start, window_end: timestamp[us, UTC]`` and what follows, ordered by window and group
    keys:   string, one a row: window and group as a JSON object without blanks, its members always in this order:
            ``{"window_start":"2026-11-24T12:00:00Z","window_end":"2026-11-24T12:05:00Z","response":200}``
    faults: groups that have no result, each with why and all its values: a sum that its type cannot hold, an
            expression that fails over the aggregates. For logs and a metric
    """

    rows: pa.Table
    keys: Column
    faults: tuple[str, ...]
