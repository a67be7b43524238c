"""Where shards begin and end, for who does not read them: the first start, ``--until-end``, ``status``."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from streamsvc.config_sources import Kpl
from streamsvc.contracts import Lag
from streamsvc.core.kinesis_positions import (
    AT_TIMESTAMP,
    BEGINNING,
    END,
    KclCheckpoint,
    position_at_time,
    position_before,
    position_of_checkpoint,
)
from streamsvc.core.kpl import EVERYTHING, deaggregate
from streamsvc.core.shards import ShardId, ShardInfo, ancestors
from streamsvc.errors import PositionLost, SourceRefused, SourceUnavailable
from streamsvc.records import Position, Split
from streamsvc.sources.kinesis import failures
from streamsvc.sources.kinesis.answers import Answer, Record
from streamsvc.sources.kinesis.pacing import Backoff
from streamsvc.sources.kinesis.polling import Paces
from streamsvc.sources.kinesis.splits import parse_split
from streamsvc.sources.kinesis.stream import Stream

LOOK_BACK_S = (1, 60, 3600, 24 * 3600, 7 * 24 * 3600)
AT_ONCE = 16

T = TypeVar("T")


class Places:
    """Looks into shards by polling. Waits out throttling; raises ``SourceUnavailable`` and what is ``Fatal``."""

    def __init__(self, stream: Stream, paces: Paces, kpl: Kpl) -> None:
        self._stream = stream
        self._paces = paces
        self._kpl = kpl

    async def ends(self, splits: Mapping[Split, ShardInfo]) -> dict[Split, Position]:
        """``END`` for closed shards, else behind the newest record; ``BEGINNING`` if the shard holds none."""

        async def end(split: Split) -> Position:
            if splits[split].closed:
                return END
            newest = await self.newest(split)
            return BEGINNING if newest is None else newest[0]

        return await for_each(end, splits)

    async def newest(self, split: Split) -> tuple[Position, int] | None:
        """The boundary behind the newest record, and when that arrived (ms since the epoch); ``None``: it has none."""
        last = await self._last(split, 1)
        if not last:
            return None
        return self._behind(last[-1]), round((last[-1].approximate_arrival_timestamp or 0.0) * 1000)

    async def recent(self, splits: Collection[Split], records: int) -> dict[Split, tuple[Position, Position]]:
        """The last so many records of each shard, aggregates counted as one; without shards that hold none."""
        found = await for_each(lambda split: self._last(split, records), splits)
        return {
            split: (position_before(last[0].sequence_number), self._behind(last[-1]))
            for split, last in found.items()
            if last
        }

    async def _last(self, split: Split, count: int) -> Sequence[Record]:
        """Looks back further and further until there are enough, and each time from there reads on to the tip."""
        now = time.time()
        starts = [position_at_time(int((now - back_s) * 1000)) for back_s in LOOK_BACK_S]
        last: deque[Record] = deque(maxlen=count)
        for start in (*starts, BEGINNING):
            last.clear()
            async for answer in self._answers(split, start):
                last += answer.records
            if len(last) == count:
                break
        return last

    def _behind(self, record: Record) -> Position:
        if not self._kpl.deaggregate:
            return position_before(record.sequence_number, 1)
        users = deaggregate([record.partition_key], [record.data], EVERYTHING, "keep")
        return position_before(record.sequence_number, users.last_sub)

    async def lags(self, places: Mapping[Split, Position]) -> dict[Split, Lag]:
        return await for_each(lambda split: self._lag(split, places[split]), places)

    async def _lag(self, split: Split, position: Position) -> Lag:
        """The age of the record to be read next."""
        if position == END:
            return Lag(milliseconds=0)
        async for answer in self._answers(split, position, limit=1):
            return Lag(milliseconds=answer.millis_behind_latest)
        return Lag(milliseconds=0)

    async def _answers(self, split: Split, start: Position, limit: int | None = None) -> AsyncIterator[Answer]:
        """Until the shard has no more, or has ended."""
        shard, backoff = parse_split(split).shard, Backoff(split)
        iterator: str | None = None
        while True:
            try:
                iterator = iterator or await self._stream.iterator(split, start)
                pace = await self._paces.turn(shard)
                answer, _ = await self._stream.records(iterator, limit)
            except SourceUnavailable as error:
                if not failures.is_throttle(error):
                    raise
                if iterator is None:
                    await asyncio.sleep(backoff.failed(throttled=True))
                else:
                    self._paces.refused(shard)
                continue
            pace.answered(answer.record_bytes(), at_tip=False)
            yield answer
            iterator = answer.next_shard_iterator
            if answer.ended or answer.at_tip:
                return


def starts(start: str, splits: Mapping[Split, ShardInfo], now: float) -> dict[Split, Position]:
    """``trim_horizon`` (or ``earliest``), ``latest``, or an ISO time. now: seconds since the epoch"""
    if start in ("trim_horizon", "earliest"):
        return dict.fromkeys(splits, BEGINNING)
    if start == "latest":
        moment = position_at_time(int(now * 1000))
        return {split: END if info.closed else moment for split, info in splits.items()}
    return dict.fromkeys(splits, position_at_time(int(datetime.fromisoformat(start).timestamp() * 1000)))


def left_by_kcl(
    splits: Mapping[Split, ShardInfo], rows: Mapping[ShardId, KclCheckpoint], now: float
) -> dict[Split, Position]:
    """Where a KCL application has left off.

    A shard without a row was finished, and its row deleted, if a descendant has a row; else it was never begun. now:
    seconds since the epoch. Raises ``SourceRefused`` for rows that say only that the KCL began at a time."""
    begun = ancestors({info.shard: info for info in splits.values()}, rows)
    found: dict[Split, Position] = {}
    for split, info in splits.items():
        row = rows.get(info.shard)
        if row is None:
            found[split] = END if info.shard in begun else BEGINNING
        elif row.sequence == AT_TIMESTAMP:
            raise SourceRefused(
                "the KCL application was started at a time, and this shard has no checkpoint yet",
                hint="Set `start` to that time; it is only in the configuration of the KCL application.",
                shard=info.shard,
            )
        else:
            found[split] = position_of_checkpoint(row) or position_at_time(int(now * 1000))
    return found


async def for_each(look: Callable[[Split], Awaitable[T]], splits: Collection[Split]) -> dict[Split, T]:
    """A few at once; the others wait. Splits whose shard is gone meanwhile are left out."""
    few = asyncio.Semaphore(AT_ONCE)
    found: dict[Split, T] = {}

    async def one(split: Split) -> None:
        async with few:
            try:
                found[split] = await look(split)
            except PositionLost:
                return

    try:
        async with asyncio.TaskGroup() as group:
            for split in splits:
                group.create_task(one(split))
    except* (SourceUnavailable, SourceRefused) as failed:
        raise failed.exceptions[0] from None
    return {split: found[split] for split in splits if split in found}
