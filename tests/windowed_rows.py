"""Rows with their windows, as the runtime hands them to an aggregation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa

from streamsvc.records import ROW, Batch, Span, Window, Windowed
from streamsvc.transforms.aggregation.aggregation import AggregationRules, WindowAggregation

MINUTE_US = 60_000_000


def position(offset: int) -> str:
    return f"{offset:020d}"


def windowed(
    rows: pa.Table,
    times: Sequence[int],
    places: Sequence[tuple[str, int]],
    starts: Sequence[Sequence[int]] | None = None,
) -> Windowed:
    """``places``: split and offset of each row; ``starts``: its windows, or else the one minute that it is in."""
    spans = []
    for split, group in groupby(places, key=lambda place: place[0]):
        offsets = [offset for _, offset in group]
        spans.append(Span(split, len(offsets), position(offsets[0]), position(offsets[-1] + 1)))
    count = rows.num_rows
    batch = Batch(
        spans=tuple(spans),
        values=pa.nulls(count, pa.binary()),
        offsets=pa.array([offset for _, offset in places], pa.int64()),
        position_text=lambda offsets: pa.array([position(offset) for offset in offsets.to_pylist()], pa.string()),
        arrivals=lambda: pa.nulls(count, pa.timestamp("ms", "UTC")),
        keys=lambda: pa.nulls(count, pa.binary()),
        headers=lambda: pa.nulls(count, pa.map_(pa.string(), pa.binary())),
        nbytes=0,
    )
    numbered = rows.append_column(ROW, pa.array(range(count), pa.int32())).combine_chunks()
    record_batch = pa.RecordBatch.from_arrays([c.combine_chunks() for c in numbered.columns], schema=numbered.schema)
    if starts is None:
        single = [time // MINUTE_US * MINUTE_US for time in times]
        return Windowed(record_batch, pa.array(times, pa.int64()), pa.array(single, pa.int64()), None, batch)
    members = [row for row, own in enumerate(starts) for _ in own]
    every = [start for own in starts for start in own]
    return Windowed(
        record_batch, pa.array(times, pa.int64()), pa.array(every, pa.int64()), pa.array(members, pa.int64()), batch
    )


def minutes(*starts: int) -> list[Window]:
    return [Window(start, start + MINUTE_US) for start in starts]


def aggregation(schema: pa.Schema, group_by: Sequence[str] = (), **aggregate: str) -> WindowAggregation:
    return WindowAggregation(AggregationRules({name: name for name in group_by}, aggregate), schema)


def results(aggregation: WindowAggregation, rows: pa.Table) -> list[dict[str, Any]]:
    """Of rows that are all in the first minute, one after another in one split; without the window's columns."""
    opened = aggregation.open()
    places = [("s", offset) for offset in range(rows.num_rows)]
    assert opened.add(windowed(rows, list(range(rows.num_rows)), places)).num_rows == 0
    finished = aggregation.finish(opened.partials(), minutes(0))
    assert finished.faults == ()
    return finished.rows.drop_columns(["window_start", "window_end"]).to_pylist()


def cut(rows: pa.Table, lengths: Sequence[int]) -> Iterator[slice]:
    """Slices of these lengths, one after another, and the rest."""
    start = 0
    for length in lengths:
        yield slice(start, min(start + length, rows.num_rows))
        start = min(start + length, rows.num_rows)
    yield slice(start, rows.num_rows)
