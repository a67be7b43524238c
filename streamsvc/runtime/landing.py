"""One segment at a time is planned, claimed, written and decided, while the next one fills."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from time import monotonic

from streamsvc.core.segments import Outcome, Plan, Range
from streamsvc.log.segment_log import SegmentLog
from streamsvc.records import ObjectInfo, Ranges, Split
from streamsvc.runtime.observer import Observer
from streamsvc.runtime.segment import Encoded, OpenSegment, Recipe, publish


@dataclass(frozen=True, slots=True)
class Identity:
    """What a plan says of who made it, and how new segments are named."""

    pipeline: str
    config: str
    decode_version: int
    new_segment: Callable[[], str]


class Lander:
    """Lands segments of one pipeline. ``threads`` encodes; it is the caller's to shut down."""

    def __init__(
        self, identity: Identity, log: SegmentLog, recipe: Recipe, threads: Executor, observer: Observer
    ) -> None:
        self._identity = identity
        self._log = log
        self._recipe = recipe
        self._threads = threads
        self._observer = observer
        self._task: asyncio.Task[Outcome] | None = None
        self.ranges: Ranges = {}
        self.held_bytes = 0

    @property
    def busy(self) -> bool:
        """A segment is landing, or has landed and was not asked for."""
        return self._task is not None

    @property
    def done(self) -> bool:
        """``result`` would answer, or raise, at once."""
        return self._task is not None and self._task.done()

    def begin(
        self, segment: OpenSegment, ranges: Mapping[Split, Range], reason: str, on_done: Callable[[], None]
    ) -> None:
        """Start landing; ``on_done`` is called when there is an outcome, or a failure that ``result`` raises."""
        assert self._task is None, "one segment lands at a time"
        self.ranges = {split: (wanted.cursor.position, wanted.to) for split, wanted in ranges.items()}
        self.held_bytes = segment.memory_bytes
        self._task = asyncio.create_task(self._land(segment, ranges, reason))
        self._task.add_done_callback(lambda _: on_done())

    async def result(self) -> tuple[Outcome, Ranges] | None:
        """Wait for what is landing; ``None`` if nothing is. A cancelled wait does not stop the landing."""
        if self._task is None:
            return None
        outcome = await asyncio.shield(self._task)
        landed, self._task, self.ranges, self.held_bytes = self.ranges, None, {}, 0
        return outcome, landed

    async def abandon(self) -> None:
        """Stop where it is, as a crash would; whoever recovers the splits will finish or abort it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.exception()

    async def _land(self, segment: OpenSegment, ranges: Mapping[Split, Range], reason: str) -> Outcome:
        began = monotonic()
        name = self._identity.new_segment()
        encoding = asyncio.get_running_loop().run_in_executor(self._threads, segment.close, name)
        try:
            plan = await self._log.plan(
                name,
                ranges,
                config=self._identity.config,
                decode_version=self._identity.decode_version,
                windows=segment.windows,
            )
            outcome = await self._log.land(plan, self._writer(plan, encoding))
        finally:
            encoding.cancel()
        self._observer.landed(outcome, segment.tally, reason=reason, seconds=monotonic() - began)
        return outcome

    def _writer(self, plan: Plan, encoding: asyncio.Future[Encoded]) -> Callable[[], Awaitable[list[ObjectInfo]]]:
        async def write() -> list[ObjectInfo]:
            encoded = await asyncio.shield(encoding)
            if encoded.partials is not None and plan.windows:
                await self._log.save_partials(plan.segment, encoded.partials)
            return await publish(self._recipe, encoded)

        return write
