"""A segment of a windowed pipeline while it fills: rows go into partials of windows, and late ones into objects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.core.log_keys import Cursor
from streamsvc.core.segments import FOREVER, NEVER, Control, Plan, Range, Standing
from streamsvc.core.windows.assignment import Ints
from streamsvc.core.windows.event_time import EventTime
from streamsvc.core.windows.lateness import Sorted, sort_out
from streamsvc.core.windows.watermarks import Mask, Run, Watermarks, is_ahead
from streamsvc.errors import LogCorrupt
from streamsvc.log.window_log import WindowLog
from streamsvc.records import NO_REJECTS, REJECTED, ROW, Batch, ObjectInfo, Split, Windowed, row_bounds
from streamsvc.runtime.segment import Encoded, OpenSegment, Recipe
from streamsvc.runtime.window_recipe import WindowRecipe

NO_EVENT_TIME = "no_event_time"
AHEAD_OF_TIME = "ahead_of_time"
"""Why a record is a reject: by its time it came before it happened, by more than clocks may differ."""

WINDOW_BOUNDS = [
    pa.field("window_start", pa.timestamp("us", tz="UTC")),
    pa.field("window_end", pa.timestamp("us", tz="UTC")),
]
"""Columns of late rows, behind their own: the window that they have missed."""


class WindowedSegment(OpenSegment):
    """As ``OpenSegment``; the objects of its sink hold what is late.

    began: the watermark of each split where the segment begins; looked up when its first row comes
    """

    def __init__(self, recipe: Recipe, window: WindowRecipe, began: Mapping[Split, int]) -> None:
        super().__init__(recipe)
        self._window = window
        self._watermarks = Watermarks(window.disorder_us, began)
        self._partials = window.aggregation.open()
        self._starts: set[int] = set()

    @property
    def windows(self) -> list[int]:
        return sorted(self._starts)

    @property
    def memory_bytes(self) -> int:
        return super().memory_bytes + self._partials.memory_bytes

    @property
    def largest_bytes(self) -> int:
        return max(super().largest_bytes, self._partials.memory_bytes)

    def watermark(self, split: Split) -> int:
        """Of the split, behind the last row that was taken in."""
        return self._watermarks.of(split)

    def close(self, segment: str) -> Encoded:
        encoded = super().close(segment)
        with self._window.lock:
            partials = self._partials.partials()
        return replace(encoded, partials=bytes(partials.to_ipc()))

    def _take(self, batch: Batch) -> Batch | None:
        rows, rejects = self._recipe.sift(batch)
        rows, times, untimed = self._timed(_in_read_order(rows), batch)
        rows, times, unbelieved = self._believed(rows, times, batch)
        found = sort_out(self._window.windows, self._window.lateness_us, self._watermarks, times, _runs(rows, batch))
        refused = self._fold(rows, times, found, batch)
        misplaced = self._keep_late(rows, found)
        self._refuse(batch, [*rejects, untimed, unbelieved, refused, misplaced])
        return None

    def _timed(self, rows: pa.RecordBatch, batch: Batch) -> tuple[pa.RecordBatch, Ints, pa.RecordBatch]:
        """Rows that have a time, their times, and rejects of the others."""
        time = self._window.time
        column = batch.arrivals().take(rows[ROW]) if time.column is None else rows[time.column]
        times, there = time.times(column)
        if there.all():
            return rows, times, NO_REJECTS
        values = column.filter(pa.array(~there)).cast(_readable(column.type)).cast(pa.string()).to_pylist()
        errors = [_why(time, value) for value in values]
        return rows.filter(pa.array(there)), times[there], _rejected(rows, ~there, NO_EVENT_TIME, errors)

    def _believed(self, rows: pa.RecordBatch, times: Ints, batch: Batch) -> tuple[pa.RecordBatch, Ints, pa.RecordBatch]:
        """Rows that are not too far ahead of their arrival, their times, and rejects of the others, whose windows would
        stay open until their time comes. Where no arrival is known, nobody can tell."""
        limit, column = self._window.max_ahead_us, self._window.time.column
        if limit is None or column is None:
            return rows, times, NO_REJECTS
        arrivals = batch.arrivals().take(rows[ROW])
        known = arrivals.is_valid().to_numpy(zero_copy_only=False)
        at = pc.fill_null(arrivals.cast(pa.int64()), 0).to_numpy() * 1_000
        ahead = is_ahead(times, at, known, limit)
        if not ahead.any():
            return rows, times, NO_REJECTS
        errors = [
            f"{column} is {leads // 1_000_000} s ahead of the record's arrival, and `max_ahead` {limit // 1_000_000} s"
            for leads in (times - at)[ahead].tolist()
        ]
        return rows.filter(pa.array(~ahead)), times[~ahead], _rejected(rows, ahead, AHEAD_OF_TIME, errors)

    def _fold(self, rows: pa.RecordBatch, times: Ints, found: Sorted, batch: Batch) -> pa.RecordBatch:
        """Pairs that are in time go into the partials; answers the rows that do not go in."""
        in_time = ~found.late
        starts = found.starts[in_time]
        if not len(starts):
            return NO_REJECTS
        self._starts.update(np.unique(starts).tolist())
        members = None
        if (chosen := found.rows(in_time)) is not None:
            kept, members = np.unique(chosen, return_inverse=True)
            if len(kept) < rows.num_rows:
                rows, times = rows.take(pa.array(kept)), times[kept]
            if found.members is None:
                members = None
        with self._window.lock:
            return self._partials.add(
                Windowed(
                    rows,
                    pa.array(times),
                    pa.array(starts),
                    None if members is None else pa.array(members, pa.int32()),
                    batch,
                )
            )

    def _keep_late(self, rows: pa.RecordBatch, found: Sorted) -> pa.RecordBatch:
        """Pairs that are late go into objects, with the window that they have missed."""
        count = int(found.late.sum())
        if not count:
            return NO_REJECTS
        self.tally.late += count
        members = found.late.nonzero()[0] if found.members is None else found.members[found.late]
        late = rows.take(pa.array(members))
        for field, bounds in zip(WINDOW_BOUNDS, (found.starts, found.ends), strict=True):
            late = late.append_column(field, pa.array(bounds[found.late]).cast(field.type))
        written = self._objects.write(late)
        assert written.excess_row is None, "late rows have one partition"
        return written.rejects


def open_segment(recipe: Recipe, began: Mapping[Split, int]) -> OpenSegment:
    return OpenSegment(recipe) if recipe.window is None else WindowedSegment(recipe, recipe.window, began)


def _readable(kind: pa.DataType) -> pa.DataType:
    """Arrow has no text for times that are out of its calendar."""
    return pa.int64() if pa.types.is_timestamp(kind) else kind


def _why(time: EventTime, value: str | None) -> str:
    column = time.column or "the arrival"
    if value is None:
        return f"{column} is null"
    unit, hint = (f" {time.unit}", "; is `time.unit` right?") if time.unit else ("", "")
    return f"{column} is {value}{unit}, which is not in the years 1 to 9999{hint}"


def _rejected(rows: pa.RecordBatch, which: Mask, reason: str, errors: list[str]) -> pa.RecordBatch:
    reasons = pa.repeat(pa.scalar(reason, pa.string()), len(errors))
    columns = [rows[ROW].filter(pa.array(which)), reasons, pa.array(errors, pa.string())]
    return pa.RecordBatch.from_arrays(columns, schema=REJECTED)


def _in_read_order(rows: pa.RecordBatch) -> pa.RecordBatch:
    numbers = rows[ROW].to_numpy()
    if (numbers[1:] >= numbers[:-1]).all():
        return rows
    return rows.take(pa.array(np.argsort(numbers, kind="stable")))


def _runs(rows: pa.RecordBatch, batch: Batch) -> list[Run]:
    """Which rows came of which span of the batch."""
    bounds = [(span.split, start, end) for span, start, end in row_bounds(batch.spans)]
    edges = np.searchsorted(rows[ROW].to_numpy(), [edge for _, start, end in bounds for edge in (start, end)])
    return [
        Run(split, int(start), int(end))
        for (split, _, _), start, end in zip(bounds, edges[::2], edges[1::2], strict=True)
    ]


def check_windows(plan: Plan, segment: OpenSegment) -> None:
    """The ranges that were read again must have moved the watermarks as the plan says. Raises ``LogCorrupt``."""
    if not isinstance(segment, WindowedSegment):
        return
    for split, wanted in plan.ranges.items():
        if not wanted.is_lift and segment.watermark(split) != wanted.reached:
            raise LogCorrupt(
                "a segment that is read again has other event times than when it was planned",
                hint="Something between the source and the windows depends on more than the records.",
                segment=plan.segment,
                split=split,
                planned=wanted.reached,
                found=segment.watermark(split),
            )


# What a segment wants


def with_watermarks(
    ranges: Mapping[Split, Range], segment: OpenSegment, began: Mapping[Split, int]
) -> dict[Split, Range]:
    """Ranges of a windowed segment say where the watermark of their split is before and behind them."""
    assert isinstance(segment, WindowedSegment)
    return {
        split: replace(wanted, watermark=began[split], reached=segment.watermark(split))
        for split, wanted in ranges.items()
    }


def lift(cursor: Cursor, watermark: int, to: int) -> Range:
    """An empty range that lifts its idle split."""
    return Range(cursor, cursor.position, watermark=watermark, reached=to, is_lift=True)


# Where splits go on


@dataclass(frozen=True, slots=True)
class Place:
    """Of a split in the log: where its next claim goes, and its watermark there."""

    cursor: Cursor
    watermark: int = NEVER


class Family(Protocol):
    """What a source knows of splits that come and go."""

    async def splits(self) -> Iterable[Split]: ...

    def parents(self) -> Mapping[Split, Collection[Split]]: ...


async def take_over(
    log: WindowLog, source: Family, splits: Collection[Split], finish: Callable[[Plan], Awaitable[list[ObjectInfo]]]
) -> dict[Split, Place]:
    """Let the splits join, if nobody has, and only then ask where they go on.

    Of one that counts no more nothing is in time: it was sought back, or is there again.
    """
    view = await log.join(splits, await source.splits(), source.parents())
    standings = await log.recover_standings(splits, finish)
    return {split: Place(at.cursor, _watermark_of(split, at, view.control)) for split, at in standings.items()}


def _watermark_of(split: Split, at: Standing, control: Control) -> int:
    if split in control.ended:
        return FOREVER
    return at.watermark.us if at.watermark else control.joined[split]
