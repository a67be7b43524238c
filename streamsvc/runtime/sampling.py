"""A look at the first records of a source, before anybody reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pyarrow as pa
import stamina

from streamsvc.contracts import Source
from streamsvc.errors import SourceUnavailable
from streamsvc.records import Position, Split
from streamsvc.runtime.observer import Observer

T = TypeVar("T")

PAUSE_S = 1.0


async def when_answered(ask: Callable[[], Awaitable[T]], observer: Observer) -> T:
    """What ``ask`` answers, however long the source does not; the observer is told meanwhile."""

    def is_worth_waiting(error: Exception) -> bool:
        if isinstance(error, SourceUnavailable):
            observer.part_failed("source", error.what)
        return isinstance(error, SourceUnavailable)

    async for attempt in stamina.retry_context(on=is_worth_waiting, attempts=None, timeout=None):
        with attempt:
            answer = await ask()
            observer.part_mended("source")
            return answer
    raise AssertionError("attempts do not end")


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
