"""Which splits are ours. Leases know shards; here they get the names of their splits, and the graph is kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from streamsvc.contracts import Assigned, Revoked, SplitEvent
from streamsvc.core.kinesis_positions import END, kcl_checkpoint
from streamsvc.core.shards import ShardGraph, ShardId, ShardInfo, shard_from_parent
from streamsvc.errors import Retryable, SourceUnavailable
from streamsvc.records import Position, Split
from streamsvc.sources.kinesis import failures
from streamsvc.sources.kinesis.counts import Counts
from streamsvc.sources.kinesis.health import Health
from streamsvc.sources.kinesis.lease_keeper import Asked, Gained, LeaseEvent, Leases, Lost
from streamsvc.sources.kinesis.pacing import Backoff
from streamsvc.sources.kinesis.splits import is_split_of, parse_split
from streamsvc.sources.kinesis.stream import Stream

LIST_EVERY_S = 300.0
"""As a safety net: children come with the last answer from their parent, or with a row of the lease table."""


class Shards:
    """The shards of the stream as far as they are known, by the names of their splits."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._graph = ShardGraph()
        self._created_s = 0
        self._listed_at = float("-inf")

    @property
    def known(self) -> Mapping[ShardId, ShardInfo]:
        return self._graph.shards

    @property
    def created_s(self) -> int:
        """When the stream was created, seconds since the epoch."""
        return self._created_s

    @property
    def is_due(self) -> bool:
        return self._graph.must_list or not self.is_fresh(LIST_EVERY_S)

    def is_fresh(self, for_s: float) -> bool:
        return time.monotonic() - self._listed_at < for_s

    async def list(self) -> None:
        """Ask the stream. Raises ``SourceUnavailable`` and ``SourceRefused``."""
        self._created_s = (await self._stream.summary()).created_s
        self._graph.list_all(await self._stream.shards())
        self._listed_at = time.monotonic()

    def meet(self, children: Iterable[Mapping[str, Any]]) -> None:
        self._graph.meet(shard_from_parent(child) for child in children)

    def split(self, shard: ShardId) -> Split:
        return self._stream.name_of(shard, self._created_s)

    def by_split(self) -> dict[Split, ShardInfo]:
        return {self.split(shard): info for shard, info in self.known.items()}

    def parents(self) -> dict[Split, frozenset[Split]]:
        return {
            self.split(shard): frozenset(map(self.split, info.parents))
            for shard, info in self.known.items()
            if info.parents
        }

    def expired(self, splits: Iterable[Split]) -> frozenset[Split]:
        """Those of this stream, or of an older one of its name, that are there no longer. A shard that is newer than
        all that are listed is not: numbers of shards only grow."""
        newest = max(self.known, default="")
        names = {split: parse_split(split) for split in splits if is_split_of(self._stream.name, split)}
        return frozenset(
            split
            for split, name in names.items()
            if name.created_s < self._created_s
            or (name.created_s == self._created_s and name.shard < newest and name.shard not in self.known)
        )


class Stops(Protocol):
    def stop(self, splits: Iterable[Split]) -> None: ...


class Ownership:
    """All calls come from the event loop. ``run`` raises what is ``Fatal``; it consumes the events of the leases."""

    def __init__(
        self,
        shards: Shards,
        leases: Leases,
        reader: Stops,
        health: Health,
        counts: Counts,
        on_gone: Callable[[ShardId], None],
    ) -> None:
        self.events: asyncio.Queue[SplitEvent | BaseException] = asyncio.Queue()
        self._shards = shards
        self._leases = leases
        self._reader = reader
        self._health = health
        self._counts = counts
        self._on_gone = on_gone
        self._owned: set[Split] = set()
        self._look = asyncio.Event()

    def has(self, split: Split) -> bool:
        return split in self._owned

    async def run(self) -> None:
        """Endless. The leases must be open."""
        self._leases.offer(self._shards.known, self._shards.created_s)
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(self._follow_leases()), group.create_task(self._keep_listing())]
            # A group does not mind a task that was cancelled; without one of these, shards would stand still unheard.
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            raise SourceUnavailable("leases or shards are watched no longer")

    def ended(self, children: Iterable[Mapping[str, Any]]) -> None:
        """A shard was read to its end. Who its children are, if that is known; else the stream is asked."""
        rows = list(children)
        self._shards.meet(rows)
        if rows:
            self._leases.offer(self._shards.known, self._shards.created_s)
        if not rows or self._shards.is_due:
            self._look.set()

    def landed(self, positions: Mapping[Split, Position]) -> None:
        """Up to here. Ended shards leave us, and their children may begin."""
        places = {parse_split(split).shard: kcl_checkpoint(place) for split, place in positions.items()}
        self._leases.checkpoint({shard: place for shard, place in places.items() if place is not None})
        ended = tuple(split for split, place in positions.items() if place == END and split in self._owned)
        self._owned.difference_update(ended)
        for split in ended:
            self._on_gone(parse_split(split).shard)
        if ended:
            self._reader.stop(ended)
            self._counts.leases(held=len(self._owned))
            self.events.put_nowait(Revoked(ended, 0.0))

    def release(self, splits: Iterable[Split]) -> None:
        leaving = [split for split in splits if split in self._owned]
        self._reader.stop(leaving)
        self._owned.difference_update(leaving)
        self._counts.leases(held=len(self._owned))
        self._leases.give([parse_split(split).shard for split in leaving])

    async def _follow_leases(self) -> None:
        async for event in self._leases.events():
            match event:
                case Gained():
                    await self._take_over(event.shards)
                case Lost():
                    self._lose(event)
                case Asked():
                    splits = self._named(event)
                    if splits:
                        self.events.put_nowait(Revoked(splits, event.deadline_s))

    async def _take_over(self, shards: frozenset[ShardId]) -> None:
        """Those that the stream has no longer, too: whether anything of them was lost, the log knows."""
        if not shards <= self._shards.known.keys():
            await self._list()
        splits = tuple(sorted(map(self._shards.split, shards)))
        self._owned.update(splits)
        self._counts.leases(held=len(self._owned), taken=len(splits))
        if splits:
            self.events.put_nowait(Assigned(splits))

    def _lose(self, event: Lost) -> None:
        splits = self._named(event)
        self._owned.difference_update(splits)
        self._counts.leases(held=len(self._owned), lost=len(splits))
        self._reader.stop(splits)
        if splits:
            self.events.put_nowait(Revoked(splits, 0.0))

    def _named(self, event: LeaseEvent) -> tuple[Split, ...]:
        return tuple(sorted(split for split in map(self._shards.split, event.shards) if split in self._owned))

    async def _keep_listing(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LIST_EVERY_S):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            await self._list()

    async def _list(self) -> None:
        """However long it takes."""
        backoff = Backoff("listing")
        while True:
            try:
                await self._shards.list()
            except Retryable as error:
                self._health.failed("stream", error)
                await asyncio.sleep(backoff.failed(throttled=failures.is_throttle(error)))
            else:
                self._health.well("stream")
                self._leases.offer(self._shards.known, self._shards.created_s)
                return
