"""What one configuration makes of windows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from streamsvc.contracts import Aggregation, ResultSink
from streamsvc.core.windows.assignment import Windows
from streamsvc.core.windows.control import Result
from streamsvc.core.windows.event_time import EventTime
from streamsvc.records import Finished, Partials, Window

FOLDING_VERSION = 1_000
"""Added to the decoder's version in the plans of windowed pipelines. To be raised by 1,000 whenever given rows become
other partials, late rows or rejects than before."""


@dataclass(frozen=True, slots=True)
class WindowRecipe:
    """What becomes of rows, until they are partials; and of partials, if this is of a pipeline that runs.

    digest:       of all that results hang on: a pipeline never changes it
    disorder_us:  the watermark of a split trails its newest event by this
    lateness_us:  how long a window is kept open after the watermark has passed its end
    max_ahead_us: an event further ahead of its arrival is a reject; ``None``: none is
    lock:         held for every call to the aggregation: a segment is encoded while the next one fills
    """

    digest: str
    windows: Windows
    time: EventTime
    disorder_us: int
    lateness_us: int
    max_ahead_us: int | None
    aggregation: Aggregation
    results: Results | None = None
    lock: Lock = field(default_factory=Lock)


class Results:
    """Partials to results, in a thread, apart from what fills segments.

    aggregation: like that of the segments, but nobody else's
    sink:        where results go
    hold:        is told how many bytes are being merged and written
    """

    hold: Callable[[int], None] = staticmethod(lambda _: None)

    def __init__(self, aggregation: Aggregation, sink: ResultSink) -> None:
        self._aggregation = aggregation
        self._turn = asyncio.Lock()
        self._held_bytes = 0
        self._sink = sink

    @contextmanager
    def holding(self, nbytes: int) -> Iterator[None]:
        """So much is in memory meanwhile."""
        self._held_bytes += nbytes
        self.hold(self._held_bytes)
        try:
            yield
        finally:
            self._held_bytes -= nbytes
            self.hold(self._held_bytes)

    async def merge(self, parts: Sequence[Partials]) -> Partials:
        """While they are merged there is about as much again."""
        nbytes = 2 * sum(part.nbytes for part in parts)
        with self.holding(nbytes):
            return await self._merge(parts)

    async def _merge(self, parts: Sequence[Partials]) -> Partials:
        async with self._turn:
            return await asyncio.to_thread(self._aggregation.merge, parts)

    async def finish(self, partials: Partials, window: Window) -> Finished:
        async with self._turn:
            return await asyncio.to_thread(self._aggregation.finish, partials.only([window.start_us]), [window])

    async def write(self, partials: Partials, window: Window) -> Result:
        """Raises what the sink raises."""
        finished = await self.finish(partials, window)
        objects = await self._sink.publish(window, finished)
        return Result(window, finished.rows.num_rows, objects, list(finished.faults))
