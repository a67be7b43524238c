"""What the runtime asks of the parts it is given. Adapters implement these; ``app.py`` chooses which.

Resources are async context managers: a normal exit drains, an exit by exception aborts. Back-pressure is an
``await`` on something bounded and nothing else; there is no nack. Sync methods are called in worker threads,
one call at a time per object.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import pyarrow as pa

from streamsvc.records import (
    Batch,
    DataObject,
    Finished,
    ObjectInfo,
    Partials,
    Position,
    Ranges,
    Sifted,
    Split,
    Window,
    Windowed,
)


@dataclass(frozen=True, slots=True)
class Assigned:
    """These splits are ours from now on. Nothing is read of them before ``Source.start_at``."""

    splits: tuple[Split, ...]


@dataclass(frozen=True, slots=True)
class Revoked:
    """These splits are being taken. The source holds them back until ``Source.release`` or ``deadline_s``.

    ``deadline_s`` is seconds from the event; 0 means that they are already gone.
    """

    splits: tuple[Split, ...]
    deadline_s: float


SplitEvent: TypeAlias = Assigned | Revoked


@dataclass(frozen=True, slots=True)
class Lag:
    """What lies between a position and the end of its split: so many records (Kafka), or so long a time (Kinesis: the
    age of the record to be read next). ``None``: the source does not say."""

    records: int | None = None
    milliseconds: int | None = None


class Source(AbstractAsyncContextManager["Source"], Protocol):
    """Reads splits in order. Never skips, never moves a position by itself.

    Raises ``SourceUnavailable`` (try again), ``SourceRefused`` and ``PositionLost`` (stop).
    """

    @property
    def group(self) -> str:
        """Those who share the splits with this member: kind and name of the consumer group or the application. Workers
        of one log are of one group."""
        ...

    def reads(self, split: Split) -> bool:
        """Whether the split is of one of our topics, or our stream, be it there or not: told by its name."""
        ...

    @property
    def problem(self) -> str | None:
        """Why nothing may be coming, in words; ``None`` while the source answers and this member has its place. One
        that stands by, since there are more members than splits, is well."""
        ...

    def assignments(self) -> AsyncIterator[SplitEvent]:
        """Endless. The runtime consumes it in its own task, apart from ``read``."""
        ...

    def start_at(self, positions: Mapping[Split, Position]) -> None:
        """Read these assigned splits from here on. Also moves a split that is being read: what is buffered
        of it is dropped, and no batch from before is handed out after this call."""
        ...

    def stop_reading(self, splits: Sequence[Split]) -> None:
        """Hand out no more batches of these splits; they stay assigned until ``release``."""
        ...

    def release(self, splits: Sequence[Split]) -> None:
        """What was read of revoked splits has landed: let the next owner have them."""
        ...

    async def read(self) -> Batch:
        """The next records of any started splits; waits until there are some. Cancelling loses nothing."""
        ...

    def read_range(self, ranges: Ranges) -> AsyncIterator[Batch]:
        """Exactly these half-open ranges, owned or not, then the end. For finishing a segment.

        Raises ``PositionLost`` when the first record of a range is gone."""
        ...

    async def splits(self) -> Sequence[Split]:
        """All live splits, whoever owns them."""
        ...

    async def first_positions(self) -> Mapping[Split, Position]:
        """Where the configured ``start`` (earliest, latest, a time, or positions committed by whom we replace)
        puts every live split. Asked once in the life of a pipeline, to make ``start.json``."""
        ...

    @property
    def first_position(self) -> Position:
        """Before the first record that any split can have: where a split begins that appeared after
        ``start.json`` (Kafka: offset 0). A constant, so that every worker claims the same key."""
        ...

    async def ends(self) -> Mapping[Split, Position]:
        """Where every live split ends now."""
        ...

    async def lag(self, places: Mapping[Split, Position]) -> Mapping[Split, Lag]:
        """How far these positions are behind the ends of their splits; without splits that it knows nothing of."""
        ...

    def at_end(self, places: Mapping[Split, Position]) -> frozenset[Split]:
        """Those of these splits behind whose position the source had nothing more when it last answered. A hint, from
        memory, and never a proof: more may have come since."""
        ...

    def parents(self) -> Mapping[Split, frozenset[Split]]:
        """Of the live splits that came from others (Kinesis: by a split or a merge of shards): from which, though these
        may be gone. From memory; Kafka's partitions have no parents."""
        ...

    async def expired(self, places: Mapping[Split, Position]) -> frozenset[Split]:
        """Those of these splits that it had and has no longer, and that go on behind these positions: their records are
        lost (Kinesis: retention has passed a closed shard, or the stream was created anew). Kafka's partitions stay."""
        ...

    def acknowledge(self, positions: Mapping[Split, Position]) -> None:
        """Landed up to here. For lag tools and for leaving us; best effort, never read back by us."""
        ...


class Inspectable(Source, Protocol):
    """A source that commands look into."""

    async def positions_at(self, start: str) -> Mapping[Split, Position]:
        """Of every live split: ``earliest``, ``latest``, or the first record at an ISO time."""
        ...

    async def recent(self, records: int) -> Ranges:
        """About the last so many records of each live split; without splits that hold none."""
        ...

    async def owners(self) -> Mapping[Split, str]:
        """Which worker has which split, where the source knows (Kinesis: by its leases)."""
        ...

    def position(self, text: str) -> Position:
        """A place in one split, as people write it (Kafka: an offset). Raises ``ValueError``: what would do."""
        ...


class Decoder(Protocol):
    """Raw values to typed columns. Pure: the same bytes give the same rows for the same ``version``."""

    @property
    def version(self) -> int:
        """Raised whenever the same bytes would give other rows."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """The columns of every ``rows``, without ``_row``."""
        ...

    def decode(self, values: pa.Array) -> Sifted:
        """values: binary, null for a tombstone (which becomes a row of nulls). Bad data never raises."""
        ...


class Transform(Protocol):
    """One row-wise step over columns. ``_row`` goes through it."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of every ``rows``, without ``_row``."""
        ...

    def apply(self, rows: pa.RecordBatch) -> Sifted:
        """A row whose expression fails is a reject, never its neighbours."""
        ...


class OpenPartials(Protocol):
    """The partials of one segment while it fills. One call at a time."""

    @property
    def memory_bytes(self) -> int:
        """All that is held."""
        ...

    def add(self, rows: Windowed) -> pa.RecordBatch:
        """Fold rows in. What is answered (schema ``REJECTED``) was folded into none of its windows: reason
        ``aggregate`` (an expression fails for it) or ``too_many_groups`` (its split has brought as many groups into
        this segment as it may). Which rows these are is a function of each split's rows in read order, whatever the
        batches."""
        ...

    def partials(self) -> Partials:
        """Of all rows so far. More may be added afterwards."""
        ...


class Aggregation(Protocol):
    """What becomes of the rows of a window: states that merge in any order and grouping to the same result.

    One call at a time for an aggregation and everything opened from it.
    """

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the rows that it reads."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """The columns of every result, after ``having`` and ``then``."""
        ...

    def open(self) -> OpenPartials: ...

    def merge(self, parts: Sequence[Partials]) -> Partials:
        """Of no parts: empty partials. Raises ``ValueError``: a part is of another aggregation."""
        ...

    def finish(self, partials: Partials, windows: Sequence[Window]) -> Finished:
        """The results of these windows, whatever else is inside. Also for a provisional look: nothing is changed."""
        ...


class FormatWriter(Protocol):
    """Encodes the rows of one object."""

    @property
    def nbytes(self) -> int:
        """The size of the object so far."""
        ...

    @property
    def memory_bytes(self) -> int:
        """All that the writer holds."""
        ...

    def write(self, rows: pa.Table) -> None:
        """Some of the rows, in the columns of the schema. Encoded before it returns."""
        ...

    def close(self) -> list[pa.Buffer | bytes]:
        """The whole object, in parts that follow one another."""
        ...


class Format(Protocol):
    """How objects are encoded: the same rows in the same pieces give the same bytes."""

    @property
    def suffix(self) -> str:
        """How names of objects end: ``.parquet``, ``.json.zst``."""
        ...

    @property
    def chunk_rows(self) -> int:
        """After so many rows, or ``chunk_bytes`` of Arrow data, a writer wants its next piece."""
        ...

    @property
    def chunk_bytes(self) -> int: ...

    def open(self, schema: pa.Schema) -> FormatWriter:
        """Raises ``ArrowNotImplementedError`` for a type that the format does not have."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """What ``OpenObjects.write`` did. ``excess_row``: the ``_row`` of the first row that would have needed one
    partition too many; then nothing was written, and the segment is to be cut before that record."""

    rejects: pa.RecordBatch
    excess_row: int | None = None


class OpenObjects(Protocol):
    """The objects of one segment while it fills: one for each partition, encoded as rows come."""

    @property
    def largest_bytes(self) -> int:
        """The largest object, as it would be in the store."""
        ...

    @property
    def memory_bytes(self) -> int:
        """All that is held, encoded or not."""
        ...

    @property
    def rows(self) -> int: ...

    def write(self, rows: pa.RecordBatch) -> Written: ...

    def close(self, segment: str) -> list[DataObject]:
        """Encode the rest. Keys are made from the segment's id and the partition, never from the clock."""
        ...


class Sink(Protocol):
    """Where rows go."""

    def open(self) -> OpenObjects: ...

    async def publish(self, objects: Sequence[DataObject]) -> list[ObjectInfo]:
        """Create every object; one that exists is this segment's own. Answers what is in the store.

        Raises ``StoreUnavailable`` (try again: the same call) and ``StoreRefused``."""
        ...


class ResultSink(Protocol):
    """Where the results of windows go."""

    async def publish(self, window: Window, results: Finished) -> list[ObjectInfo]:
        """Bring the results of one window to where they belong; answers what is there, nothing for a topic.

        Others may do the same for the same window, at once or much later: names of objects and keys of messages are
        made of the window alone, and results are the same whoever makes them. Raises ``Retryable`` (try again: the
        same call) and ``Fatal``."""
        ...


class OpenRejects(Protocol):
    """The records of one segment that could not be decoded or placed, with their bytes."""

    @property
    def memory_bytes(self) -> int: ...

    @property
    def rows(self) -> int: ...

    def add(self, batch: Batch, rejects: pa.RecordBatch) -> None:
        """rejects: schema ``REJECTED``; coordinates and bytes are taken from the batch."""
        ...

    def close(self, segment: str) -> list[DataObject]: ...


class RejectSink(Protocol):
    """Where rejects go."""

    def open(self) -> OpenRejects: ...

    async def publish(self, objects: Sequence[DataObject]) -> list[ObjectInfo]:
        """As ``Sink.publish``; the objects are of kind ``rejects``."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A listed object."""

    key: str
    nbytes: int


class ObjectStore(Protocol):
    """Create-only objects under one prefix. Keys are relative to it, plain text, ``/`` between parts.

    Every method raises ``StoreUnavailable`` (effect unknown: try again) and ``StoreRefused``.
    """

    @property
    def url(self) -> str:
        """Address of the prefix, without credentials."""
        ...

    async def create(self, key: str, body: bytes | Sequence[pa.Buffer | bytes]) -> bool:
        """Put if absent. ``False``: the store says it exists, or that another create is under way, which says
        nothing about whose it is: read the key."""
        ...

    async def get(self, key: str) -> bytes | None:
        """``None``: there is no such object."""
        ...

    async def size(self, key: str) -> int | None: ...

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Entry]:
        """Keys that start with ``prefix`` (a folder, ending in ``/``, or empty), in text order, after ``after``.

        What is there from the call to the last entry is answered; what comes or goes meanwhile may be or not."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Absent keys are no error."""
        ...
