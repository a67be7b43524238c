"""Reading by GetRecords: shared throughput, an iterator that goes from answer to answer."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from streamsvc.core.shards import ShardId
from streamsvc.errors import SourceRefused, SourceUnavailable
from streamsvc.sources.kinesis import failures
from streamsvc.sources.kinesis.answers import Answer
from streamsvc.sources.kinesis.counts import Counts
from streamsvc.sources.kinesis.health import Health
from streamsvc.sources.kinesis.pacing import BYTES_PER_S, Backoff, Pace
from streamsvc.sources.kinesis.retrieval import Answered, Reading
from streamsvc.sources.kinesis.splits import parse_split
from streamsvc.sources.kinesis.stream import Stream

GET_RECORDS = "kinesis:GetRecords"
MAX_ANSWER_BYTES = 10 * 1024 * 1024
LEAST_BYTES = 64 * 1024

TEXT_AND_RECORDS = 2
"""For a moment an answer is held twice: as it came, and its records."""


class Paces:
    """How often each shard may be asked; by all that this process reads of it."""

    def __init__(self, on_throttled: Callable[[], Any] = lambda: None) -> None:
        self._paces: defaultdict[ShardId, Pace] = defaultdict(Pace)
        self._on_throttled = on_throttled

    async def turn(self, shard: ShardId) -> Pace:
        """Wait until the shard may be asked; it is then taken for asked."""
        pace = self._paces[shard]
        while (wait_s := pace.wait_s(time.monotonic())) > 0:  # noqa: ASYNC110 - another reader may have been first
            await asyncio.sleep(wait_s)
        pace.calls(time.monotonic())
        return pace

    def refused(self, shard: ShardId) -> None:
        """A GetRecords call was. ``turn`` waits for as long as that takes; nobody else needs to."""
        self._paces[shard].refused()
        self._on_throttled()

    def forget(self, shard: ShardId) -> None:
        self._paces.pop(shard, None)


class Polling:
    """Implements ``Retrieval``."""

    def __init__(self, stream: Stream, paces: Paces, health: Health, counts: Counts) -> None:
        self._stream = stream
        self._paces = paces
        self._health = health
        self._counts = counts

    async def answers(self, reading: Reading) -> AsyncGenerator[Answered, None]:
        shard, walk = parse_split(reading.split).shard, _Walk(Backoff(reading.split))
        while True:
            try:
                answer = await self._next(reading, walk)
            except SourceUnavailable as error:
                reading.reservation.give_back()
                await self._wait_out(shard, error, walk.backoff)
                continue
            walk.backoff.reset()
            self._health.well(shard)
            yield Answered(answer, walk.fresh)
            if answer.ended:
                return
            walk.fresh = walk.fresh and not answer.records

    async def _next(self, reading: Reading, walk: _Walk) -> Answer:
        """Iterators live five minutes: after a long wait for room, or a sleep of the machine, another is needed. Where
        a new one expires, too, that is a failure like others."""
        is_new = walk.iterator is None
        if walk.iterator is None:
            walk.iterator, walk.fresh = await self._stream.iterator(reading.split, reading.place()), True
        try:
            answer = await self._ask(reading, walk.iterator, walk.last)
        except SourceRefused as error:
            if error.where.get("cause") != failures.EXPIRED_ITERATOR:
                await self._stream.raise_lost(error, reading.split, reading.place())
                raise
            walk.iterator = None
            if is_new:
                raise SourceUnavailable("shard iterators expire as soon as they are made", **error.where) from None
            return await self._next(reading, walk)
        walk.iterator = answer.next_shard_iterator
        return answer

    async def _ask(self, reading: Reading, iterator: str, last: _Last) -> Answer:
        pace = await self._paces.turn(parse_split(reading.split).shard)
        await reading.reservation.take(TEXT_AND_RECORDS * last.next_bytes(time.monotonic()))
        began = time.monotonic()
        try:
            answer, nbytes = await self._stream.records(iterator)
        except SourceUnavailable:
            self._counts.failed()
            raise
        except SourceRefused:
            pace.let_through()
            self._counts.failed()
            raise
        record_bytes = answer.record_bytes()
        self._counts.answered(len(answer.records), record_bytes, time.monotonic() - began)
        pace.answered(record_bytes, at_tip=answer.at_tip)
        last.take(nbytes, time.monotonic(), at_tip=answer.at_tip)
        return answer

    async def _wait_out(self, shard: ShardId, error: SourceUnavailable, backoff: Backoff) -> None:
        """To be refused now and then is normal where several read a shard; for long it is not."""
        throttled = failures.is_throttle(error)
        wait_s = backoff.failed(throttled=throttled)
        if not throttled or backoff.is_long:
            self._health.failed(shard, error)
        if throttled and error.where.get("action") == GET_RECORDS:
            self._paces.refused(shard)
        else:
            await asyncio.sleep(wait_s)


class _Last:
    """How large the next answer of a shard may be: at the tip what a shard takes in the time, behind it anything."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._nbytes = MAX_ANSWER_BYTES

    def take(self, nbytes: int, at: float, *, at_tip: bool) -> None:
        self._nbytes = nbytes
        self._at = at if at_tip else None

    def next_bytes(self, now: float) -> int:
        if self._at is None:
            return min(MAX_ANSWER_BYTES, max(MAX_ANSWER_BYTES // 8, 2 * self._nbytes))
        return min(MAX_ANSWER_BYTES, LEAST_BYTES + int((now - self._at) * BYTES_PER_S))


@dataclass(slots=True)
class _Walk:
    """Through one shard. fresh: see ``Answered``"""

    backoff: Backoff
    last: _Last = field(default_factory=_Last)
    iterator: str | None = None
    fresh: bool = True
