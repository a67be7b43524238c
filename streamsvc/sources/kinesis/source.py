"""The Kinesis source: which shards are ours, what is read of them, and what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from streamsvc.config import Aws
from streamsvc.config_sources import KinesisSource as Options
from streamsvc.contracts import Lag, SplitEvent
from streamsvc.core.kinesis_positions import BEGINNING, END, parse_position, position_before
from streamsvc.core.leases import LeasePolicy
from streamsvc.errors import PositionLost, Retryable, SourceUnavailable
from streamsvc.records import Batch, Position, Ranges, Split
from streamsvc.sources.kinesis import failures, places
from streamsvc.sources.kinesis.clients import Clients
from streamsvc.sources.kinesis.consumer import Consumer
from streamsvc.sources.kinesis.counts import Counts
from streamsvc.sources.kinesis.fanout import FanOut
from streamsvc.sources.kinesis.health import Health
from streamsvc.sources.kinesis.lease_keeper import AllShards, LeaseKeeper
from streamsvc.sources.kinesis.lease_table import LeaseTable
from streamsvc.sources.kinesis.ownership import Ownership, Shards
from streamsvc.sources.kinesis.pacing import Backoff
from streamsvc.sources.kinesis.polling import Paces, Polling
from streamsvc.sources.kinesis.reader import Reader, Start
from streamsvc.sources.kinesis.retrieval import Retrieval
from streamsvc.sources.kinesis.splits import is_split_of, parse_split
from streamsvc.sources.kinesis.stream import Stream

LISTED_FOR_S = 2.0
"""So long a listing is as good as a new one, for who asks what there is."""

_LOG = logging.getLogger("streamsvc.kinesis")


class KinesisSource:
    """Implements ``contracts.Source`` for one stream. Positions are those of ``core/kinesis_positions.py``.

    application: its name, unless the configuration gives one
    worker:      names this worker in the lease table; unique among live workers
    queue_bytes: what may be read ahead; while ``read_range`` runs, half as much again
    joins:       ``False`` looks at the stream without taking leases: nothing is ever assigned

    While Kinesis or DynamoDB does not answer, ``read`` waits, and ``problem`` says what is wrong. Entering raises
    ``SourceRefused`` where not even a client can be made (no region, no such profile).
    """

    def __init__(
        self,
        options: Options,
        *,
        application: str,
        worker: str,
        queue_bytes: int,
        aws: Aws,
        counts: Counts,
        joins: bool = True,
    ) -> None:
        self._options = options
        self._application = options.application or application
        self._table = options.lease_table or self._application
        self._worker = worker
        self._queue_bytes = queue_bytes
        self._joins = joins
        region = options.stream_arn.split(":")[3] if options.stream_arn else None
        self._clients = Clients(aws, region)
        self._lease_table: LeaseTable | None = None
        self._health = Health()
        self._counts = counts
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()
        self._is_open = False
        self._is_leaving = False

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._clients)
            self._stream = Stream(self._options, await self._clients.get("kinesis"))
            self._paces = Paces(self._counts.throttled)
            self._polling = Polling(self._stream, self._paces, self._health, self._counts)
            self._places = places.Places(self._stream, self._paces, self._options.kpl)
            self._shards = Shards(self._stream)
            self._leases = await self._make_leases()
            self._reader = await stack.enter_async_context(
                self._make_reader(self._retrieval(), self._queue_bytes, self)
            )
            self._ownership = Ownership(
                self._shards, self._leases, self._reader, self._health, self._counts, self._paces.forget
            )
            stack.push_async_callback(self._end_tasks)
            self._spawn(self._run())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def group(self) -> str:
        return f"Kinesis application {self._application}"

    def reads(self, split: Split) -> bool:
        return is_split_of(self._options.name, split)

    @property
    def problem(self) -> str | None:
        """Why nothing may be coming, in words; ``None`` while Kinesis and the lease table answer."""
        if self._failure is not None:
            return str(self._failure)
        return self._health.problem or (self._leases.problem if self._joins else None)

    @property
    def first_position(self) -> Position:
        return BEGINNING

    async def assignments(self) -> AsyncIterator[SplitEvent]:
        while True:
            event = self._failure or await self._ownership.events.get()
            if isinstance(event, BaseException):
                raise event
            yield event

    def start_at(self, positions: Mapping[Split, Position]) -> None:
        """Raises ``PositionLost`` for a shard that is gone, unless it is at its end."""
        for split in self._shards.expired(split for split, place in positions.items() if place != END):
            raise _expired(split, positions[split])
        self._reader.start({split: Start(place) for split, place in positions.items() if place != END})
        ended = {split: place for split, place in positions.items() if place == END}
        self._reader.stop(ended)
        self._ownership.landed(ended)

    def stop_reading(self, splits: Sequence[Split]) -> None:
        self._reader.stop(splits)

    def release(self, splits: Sequence[Split]) -> None:
        self._ownership.release(splits)

    async def read(self) -> Batch:
        return await self._reader.read()

    async def read_range(self, ranges: Ranges) -> AsyncIterator[Batch]:
        ends = {split: to for split, (first, to) in ranges.items() if first < to}
        await self._check_live({split: ranges[split][0] for split in ends})
        async with self._make_reader(self._polling, self._queue_bytes // 2, _InRange(self._counts)) as reader:
            reader.start({split: Start(ranges[split][0], to) for split, to in ends.items()})
            while ends:
                batch = await reader.read()
                for span in batch.spans:
                    if span.to == ends[span.split]:
                        del ends[span.split]
                yield batch

    async def splits(self) -> Sequence[Split]:
        await self._list_anew()
        return list(self._shards.by_split())

    async def first_positions(self) -> Mapping[Split, Position]:
        return await self.positions_at(self._options.start)

    async def positions_at(self, start: str) -> Mapping[Split, Position]:
        """Of every shard: ``trim_horizon`` (or ``earliest``), ``latest``, ``committed`` (the rows of a KCL), or an ISO
        time."""
        await self._list_anew()
        splits, now = self._shards.by_split(), time.time()
        if start == "committed":
            self._leases.offer(self._shards.known, self._shards.created_s)
            return places.left_by_kcl(splits, await self._leases.starting_checkpoints(), now)
        return places.starts(start, splits, now)

    async def recent(self, records: int) -> Ranges:
        await self._list_anew()
        return await self._places.recent(self._shards.by_split(), records)

    def position(self, text: str) -> Position:
        if text.isascii() and text.isdecimal():
            return position_before(text)
        try:
            parse_position(text)
        except ValueError:
            raise ValueError(
                "write trim_horizon, latest, a time (2026-01-31T06:00:00Z), or, with --split, a sequence number or a"
                " position as `status` shows it"
            ) from None
        return text

    async def ends(self) -> Mapping[Split, Position]:
        await self._list_anew()
        return await self._places.ends(self._shards.by_split())

    async def lag(self, places: Mapping[Split, Position]) -> Mapping[Split, Lag]:
        """Of a split that is being read, how far the reading is behind; of others, the stream is asked."""
        await self._open()
        live = self._shards.by_split()
        tips = {split: self._reader.tip(split) for split in places if split in live}
        known = {split: Lag(milliseconds=tip.milliseconds) for split, tip in tips.items() if tip is not None}
        asked = {split: places[split] for split in tips if split not in known}
        return known | await self._places.lags(asked)

    def at_end(self, places: Mapping[Split, Position]) -> frozenset[Split]:
        tips = {split: self._reader.tip(split) for split in places}
        return frozenset(
            split
            for split, place in places.items()
            if place == END or ((tip := tips[split]) and tip.milliseconds == 0 and tip.position == place)
        )

    def parents(self) -> Mapping[Split, frozenset[Split]]:
        return self._shards.parents()

    async def expired(self, places: Mapping[Split, Position]) -> frozenset[Split]:
        await self._open()
        unended = [split for split, place in places.items() if place != END]
        if self._shards.expired(unended):
            await self._shards.list()
        return self._shards.expired(unended)

    def acknowledge(self, positions: Mapping[Split, Position]) -> None:
        self._ownership.landed(positions)

    async def owners(self) -> Mapping[Split, str]:
        await self._open()
        leases = await self._lease_table.scan() if self._lease_table and await self._lease_table.exists() else []
        live = self._shards.known.keys()
        return {
            self._shards.split(lease.shard): lease.owner
            for lease in leases
            if lease.owner is not None and not lease.ended and lease.shard in live
        }

    # What the reader tells

    def ended(self, split: Split, children: list[dict[str, Any]] | None) -> None:
        _LOG.info("%s is closed and read to its end", split)
        self._ownership.ended(children or [])

    def met(self, counts: Counter[str]) -> None:
        self._counts.met(counts)

    def behind(self, split: Split, milliseconds: int | None) -> None:
        self._counts.behind(split, milliseconds)

    def trimmed(self, split: Split) -> None:
        self._counts.trimmed()

    async def newest_before(self, split: Split, ms: int) -> Position | None:
        try:
            newest = await self._places.newest(split)
        except SourceUnavailable:
            return None
        return newest[0] if newest is not None and newest[1] < ms else None

    # Parts

    def _retrieval(self) -> Retrieval:
        if self._options.retrieval == "polling" or not self._joins:
            return self._polling
        consumer = Consumer(self._stream, self._options.consumer_name or self._application)
        return FanOut(self._stream, consumer, self._polling, self._health, self._counts)

    def _make_reader(self, retrieval: Retrieval, queue_bytes: int, listener: Any) -> Reader:
        return Reader(
            retrieval, self._options.kpl, lambda shard: self._shards.known[shard].hashes, queue_bytes, listener
        )

    async def _make_leases(self) -> LeaseKeeper | AllShards:
        if self._options.leases == "none":
            return AllShards()
        self._lease_table = LeaseTable(await self._clients.get("dynamodb"), self._table)
        initial = {"trim_horizon": "TRIM_HORIZON", "committed": "TRIM_HORIZON", "latest": "LATEST"}
        policy = LeasePolicy(
            failover_s=self._options.failover,
            handover_s=self._options.handover_s,
            max_leases=self._options.max_leases,
            initial=initial.get(self._options.start, "AT_TIMESTAMP"),
        )
        return LeaseKeeper(self._lease_table, self._worker, policy)

    async def _run(self) -> None:
        """Until the source is left. Whoever looks from outside wants no more than to know that the stream is there."""
        await self._waited_out(self._open)
        if self._joins:
            async with self._leases:
                await self._ownership.run()

    async def _open(self) -> None:
        """Know the stream and its shards. Raises ``SourceUnavailable`` and ``SourceRefused``."""
        async with self._opening:
            if not self._is_open:
                await self._shards.list()
                self._is_open = True
                self._health.well("stream")

    async def _list_anew(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._is_open:
            await self._open()
        elif not self._shards.is_fresh(LISTED_FOR_S):
            await self._shards.list()

    async def _waited_out(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        backoff = Backoff(self._worker)
        while True:
            try:
                return await call()
            except Retryable as error:
                self._health.failed("stream", error)
                await asyncio.sleep(backoff.failed(throttled=failures.is_throttle(error)))

    async def _check_live(self, positions: Mapping[Split, Position]) -> None:
        """Raises ``PositionLost`` for what is no shard of this stream, or no longer."""
        await self._open()
        if not positions.keys() <= self._shards.by_split().keys():
            await self._shards.list()
        live = self._shards.by_split()
        for split, position in positions.items():
            if split not in live:
                await self._stream.check_same(split, position)
                raise _expired(split, position)

    # Tasks

    def _fail(self, failure: BaseException) -> None:
        if self._failure is None:
            self._failure = failure
            self._ownership.events.put_nowait(failure)
            self._reader.fail(failure)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            if not self._is_leaving:
                self._fail(SourceUnavailable("the stream is watched no longer", stream=self._stream.name))
        elif (error := task.exception()) is not None:
            self._fail(_first(error))

    async def _end_tasks(self) -> None:
        self._is_leaving = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


class _InRange:
    """Listens to a reader of ranges, which has nothing to say but what it misses: what it meets was counted before."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def ended(self, split: Split, children: list[dict[str, Any]] | None) -> None: ...

    def met(self, counts: Counter[str]) -> None: ...

    def behind(self, split: Split, milliseconds: int | None) -> None: ...

    def trimmed(self, split: Split) -> None:
        self._counts.trimmed()

    async def newest_before(self, split: Split, ms: int) -> Position | None:
        return None


def _expired(split: Split, position: Position) -> PositionLost:
    return PositionLost(
        "the shard is gone from the stream: retention has passed",
        hint=f"To go on without what it held: streamsvc seek --to end --give-up --split {split}",
        split=split,
        position=position,
        shard=parse_split(split).shard,
    )


def _first(error: BaseException) -> BaseException:
    """Of a group of tasks that failed."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
