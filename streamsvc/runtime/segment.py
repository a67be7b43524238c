"""A segment while it fills: raw batches in, encoded objects out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from time import thread_time

import pyarrow as pa

from streamsvc.contracts import Decoder, OpenObjects, OpenRejects, RejectSink, Sink, Transform
from streamsvc.records import METADATA, ROW, Batch, DataObject, ObjectInfo, Position, Split, ranges_of, row_bounds
from streamsvc.runtime.window_recipe import FOLDING_VERSION, WindowRecipe


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one configuration makes of records. Each part is called by one thread at a time.

    window: of a windowed pipeline; then ``sink`` is for what is late, and has one partition
    """

    decoder: Decoder
    include: tuple[str, ...]
    transforms: tuple[Transform, ...]
    sink: Sink
    rejects: RejectSink
    window: WindowRecipe | None = None

    @property
    def version(self) -> int:
        """Which rows and partials it makes of given records under one configuration, as plans have it: who would make
        others does not finish them."""
        return self.decoder.version + (FOLDING_VERSION if self.window is not None else 0)

    def sift(self, batch: Batch) -> tuple[pa.RecordBatch, list[pa.RecordBatch]]:
        """Rows with ``_row``, and the rejects of every step."""
        sifted = self.decoder.decode(batch.values)
        rows, rejects = sifted.rows, [sifted.rejects]
        for name in self.include:
            rows = rows.append_column(pa.field(name, METADATA[name]), metadata_of(batch, name).take(rows[ROW]))
        for transform in self.transforms:
            sifted = transform.apply(rows)
            rows = sifted.rows
            rejects.append(sifted.rejects)
        return rows, rejects


def metadata_of(batch: Batch, name: str) -> pa.Array:
    """One of ``METADATA``, a value a record."""
    match name:
        case "_key":
            return batch.keys()
        case "_headers":
            return batch.headers()
        case "_timestamp":
            return batch.arrivals()
        case "_split":
            return batch.split_names().cast(pa.string())
        case _:
            return batch.position_text(batch.offsets)


@dataclass(slots=True)
class Tally:
    """What went through a segment. ``late``: of a windowed one, pairs of a row and a window."""

    records: int = 0
    raw_bytes: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    cpu_seconds: float = 0.0
    late: int = 0


@dataclass(slots=True)
class Encoded:
    """A segment that is closed and not yet in the store. ``partials``: Arrow IPC, for the log."""

    objects: list[DataObject]
    rejects: list[DataObject]
    partials: bytes | None = None


class OpenSegment:
    """Not thread-safe: one call at a time, from any thread."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._objects: OpenObjects = recipe.sink.open()
        self._rejects: OpenRejects = recipe.rejects.open()
        self.ranges: dict[Split, tuple[Position, Position]] = {}
        self.first_records: dict[Split, Position] = {}
        self.tally = Tally()

    @property
    def windows(self) -> list[int]:
        """Starts of the windows that it has partials of."""
        return []

    @property
    def memory_bytes(self) -> int:
        return self._objects.memory_bytes + self._rejects.memory_bytes

    @property
    def largest_bytes(self) -> int:
        """The largest object so far, as it would be in the store."""
        return self._objects.largest_bytes

    def add(self, batch: Batch) -> Batch | None:
        """Take the batch in; what is answered did not fit (one partition too many) and opens the next segment."""
        began = thread_time()
        rest = self._take(batch) if len(batch) else None
        taken = batch if rest is None else batch.before(len(batch) - len(rest))
        self._note(taken)
        self.tally.cpu_seconds += thread_time() - began
        return rest

    def close(self, segment: str) -> Encoded:
        """Encode the rest, under the keys of this segment."""
        began = thread_time()
        encoded = Encoded(self._objects.close(segment), self._rejects.close(segment))
        self.tally.cpu_seconds += thread_time() - began
        return encoded

    def _take(self, batch: Batch) -> Batch | None:
        rows, rejects = self._recipe.sift(batch)
        written = self._objects.write(rows)
        if written.excess_row is not None:
            head = batch.before(written.excess_row)
            if len(head):
                self._take(head)
            return batch.after(written.excess_row)
        self._refuse(batch, (*rejects, written.rejects))
        return None

    def _refuse(self, batch: Batch, rejects: Iterable[pa.RecordBatch]) -> None:
        for refused in rejects:
            if refused.num_rows:
                self._rejects.add(batch, refused)
                self.tally.rejects.update(refused["reason"].to_pylist())

    def _note(self, batch: Batch) -> None:
        for split, (first, to) in ranges_of(batch.spans).items():
            self.ranges[split] = (self.ranges.get(split, (first, to))[0], to)
        for span, start, _ in row_bounds(batch.spans):
            if span.rows and span.split not in self.first_records:
                self.first_records[span.split] = batch.position(start)
        self.tally.records += len(batch)
        self.tally.raw_bytes += batch.nbytes


async def publish(recipe: Recipe, encoded: Encoded) -> list[ObjectInfo]:
    """Data first, rejects after it."""
    objects = await recipe.sink.publish(encoded.objects)
    if recipe.window is not None:
        objects = [replace(item, kind="late") for item in objects]
    return [*objects, *await recipe.rejects.publish(encoded.rejects)]
