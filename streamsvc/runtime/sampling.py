"""A look at the first records of a source, before anybody reads it."""

from __future__ import annotations

import asyncio

import pyarrow as pa

from streamsvc.contracts import Source
from streamsvc.records import Position, Split

PAUSE_S = 1.0


async def sample(source: Source, records: int) -> pa.Array:
    """About so many of the first values, evenly from every split; waits until there is at least one.

    Answers binary without nulls. Raises what the source raises."""
    while True:
        starts, ends = await source.first_positions(), await source.ends()
        ranges = {split: (first, ends[split]) for split, first in starts.items() if first < ends.get(split, first)}
        if ranges and len(values := await _read(source, ranges, max(1, records // len(ranges)))):
            return values
        await asyncio.sleep(PAUSE_S)


async def _read(source: Source, ranges: dict[Split, tuple[Position, Position]], each: int) -> pa.Array:
    taken: list[pa.Array] = [pa.array([], pa.binary())]
    for split, wanted in sorted(ranges.items()):
        left = each
        async for batch in source.read_range({split: wanted}):
            values = batch.values.drop_null().slice(0, left)
            taken.append(values)
            left -= len(values)
            if left <= 0:
                break
    return pa.concat_arrays(taken)
