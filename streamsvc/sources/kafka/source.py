"""The Kafka source: who owns which split, what is read of it, and what goes wrong.

A ``Member`` owns the membership of the consumer group and a ``Reader`` reads, each on a thread of its own. Both report
here, on the event loop, where partitions get the names of their splits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from confluent_kafka import KafkaError

from streamsvc.config import Aws
from streamsvc.config_sources import KafkaSource as Options
from streamsvc.contracts import Lag, SplitEvent
from streamsvc.core.offsets import offset_of, position_of
from streamsvc.errors import Fatal, PositionLost, Retryable, SourceRefused
from streamsvc.records import Batch, Position, Ranges, Split
from streamsvc.sources.kafka import failures
from streamsvc.sources.kafka.client_log import Logger
from streamsvc.sources.kafka.clients import MIN_QUEUE_BYTES, Clients
from streamsvc.sources.kafka.member import Member, MemberEvent
from streamsvc.sources.kafka.ownership import Health, Ownership
from streamsvc.sources.kafka.reader import Reader, ReaderEvent, Start, Stuck
from streamsvc.sources.kafka.splits import parse_split, topic_of
from streamsvc.sources.kafka.topics import METADATA_TIMEOUT_S, ONLOOKER_TIMEOUT_S, Topics

T = TypeVar("T")

_LOGGER = logging.getLogger("streamsvc.kafka")

RETRY_S = 1.0
RANGE_STALL_S = 5.0

MAX_HOLD_S = 60.0
"""How long a split that must go may wait for its segment to land. Longer than that, the store is down."""

SEEK_HINT = "`streamsvc seek` moves the pipeline to a position that exists, and records what is left out"


class KafkaSource:
    """Implements ``contracts.Source`` for the topics of one pipeline.

    service, pipeline: make the name of the consumer group, unless the configuration gives one
    instance:          this worker's ``group.instance.id``; ``None`` makes it a dynamic member
    queue_bytes:       what may be read ahead; while ``read_range`` runs, half as much again
    logger:            gets what librdkafka logs, without secrets
    joins:             ``False`` looks at the topics without becoming a member of the group: nothing is ever assigned

    While no broker answers, ``read`` waits: the client reconnects by itself, and ``problem`` says what is wrong.
    Requests for topics and offsets raise ``SourceUnavailable`` after ten seconds without an answer.
    """

    def __init__(
        self,
        options: Options,
        *,
        service: str,
        pipeline: str,
        instance: str | None,
        queue_bytes: int,
        aws: Aws | None = None,
        logger: Logger = _LOGGER,
        joins: bool = True,
    ) -> None:
        self._joins = joins
        self._options = options
        self._queue_bytes = max(queue_bytes, MIN_QUEUE_BYTES)
        group = options.group or f"{service}.{pipeline}"
        self._clients = Clients(options, group, options.instance_id or instance, aws, logger)
        self._health = Health()
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        admin = await asyncio.to_thread(self._clients.admin)
        self._topics = Topics(
            admin,
            self._options.topics,
            self._options.brokers,
            patience_s=METADATA_TIMEOUT_S if self._joins else ONLOOKER_TIMEOUT_S,
        )
        self._reader = self._make_reader(self._queue_bytes, self._on_reader)
        self._member = self._make_member()
        self._ownership = Ownership(self._topics, self._reader, self._member, self._health)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._reader)
            if self._joins:
                await stack.enter_async_context(self._member)
                self._spawn(self._member.ended())
            stack.push_async_callback(self._end_tasks)
            self._spawn(self._ownership.run())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @property
    def group(self) -> str:
        return f"Kafka group {self._clients.group}"

    def reads(self, split: Split) -> bool:
        return topic_of(split) in self._options.topics

    @property
    def problem(self) -> str | None:
        """Why nothing may be coming, in words; ``None`` while the brokers answer."""
        if self._failure is not None:
            return str(self._failure)
        waits = self._joins and not self._health.has_place
        return self._health.problem or ("the group has not said yet which partitions are ours" if waits else None)

    @property
    def first_position(self) -> Position:
        return position_of(0)

    async def assignments(self) -> AsyncIterator[SplitEvent]:
        while True:
            event = self._failure or await self._ownership.events.get()
            if isinstance(event, BaseException):
                raise event
            yield event

    def start_at(self, positions: Mapping[Split, Position]) -> None:
        self._reader.start({split: Start(offset_of(position)) for split, position in positions.items()})

    def stop_reading(self, splits: Sequence[Split]) -> None:
        self._reader.stop(splits)

    def release(self, splits: Sequence[Split]) -> None:
        self._ownership.release(splits)

    async def read(self) -> Batch:
        return await self._reader.read()

    async def read_range(self, ranges: Ranges) -> AsyncIterator[Batch]:
        ends = {split: to for split, (first, to) in ranges.items() if first < to}
        await self._check_live({split: ranges[split][0] for split in ends})

        def on_event(event: ReaderEvent) -> None:
            if isinstance(event, Stuck):
                self._spawn(self._examine(reader, event))
            else:
                self._on_error(event)

        reader = self._make_reader(max(self._queue_bytes // 2, MIN_QUEUE_BYTES), on_event)
        async with reader:
            reader.start({split: Start(offset_of(ranges[split][0]), offset_of(to)) for split, to in ends.items()})
            while ends:
                try:
                    async with asyncio.timeout(RANGE_STALL_S):
                        batch = await reader.read()
                except TimeoutError:
                    await self._check_reachable(ends)
                    continue
                for span in batch.spans:
                    if span.to == ends[span.split]:
                        del ends[span.split]
                yield batch

    async def splits(self) -> Sequence[Split]:
        return await self._or_failure(self._topics.live())

    async def first_positions(self) -> Mapping[Split, Position]:
        return await self.positions_at(self._options.start)

    async def positions_at(self, start: str) -> Mapping[Split, Position]:
        """Of every live split: ``earliest``, ``latest``, ``committed``, or the first record at an ISO time."""
        return await self._or_failure(self._positions_at(start))

    async def ends(self) -> Mapping[Split, Position]:
        return await self._or_failure(self._ends())

    async def lag(self, places: Mapping[Split, Position]) -> Mapping[Split, Lag]:
        ends = await self.ends()
        return {
            split: Lag(records=max(0, offset_of(ends[split]) - offset_of(place)))
            for split, place in places.items()
            if split in ends
        }

    def at_end(self, places: Mapping[Split, Position]) -> frozenset[Split]:
        return frozenset(split for split, place in places.items() if self._reader.tip(split) == offset_of(place))

    def parents(self) -> Mapping[Split, frozenset[Split]]:
        return {}

    async def expired(self, places: Mapping[Split, Position]) -> frozenset[Split]:
        return frozenset()

    def acknowledge(self, positions: Mapping[Split, Position]) -> None:
        self._member.commit(
            {
                parse_split(split).partition: offset_of(position)
                for split, position in positions.items()
                if self._ownership.may_commit(split)
            }
        )

    async def recent(self, records: int) -> Ranges:
        ends, begins = await self.ends(), await self.positions_at("earliest")
        starts = {
            split: max(begins[split], position_of(max(0, offset_of(end) - records))) for split, end in ends.items()
        }
        return {split: (starts[split], end) for split, end in ends.items() if starts[split] < end}

    async def owners(self) -> Mapping[Split, str]:
        return {}

    def position(self, text: str) -> Position:
        if not (text.isascii() and text.isdecimal()):
            raise ValueError("write earliest, latest, a time (2026-01-31T06:00:00Z), or, with --split, an offset")
        return position_of(int(text))

    # Requests

    async def _positions_at(self, start: str) -> Mapping[Split, Position]:
        splits = await self._topics.live()
        match start:
            case "earliest":
                return await self._topics.earliest(splits)
            case "latest":
                return await self._topics.ends(splits)
            case "committed":
                earliest = await self._topics.earliest(splits)
                return {**earliest, **await self._topics.committed(splits, self._clients.group)}
            case moment:
                return await self._topics.at_time(splits, datetime.fromisoformat(moment))

    async def _ends(self) -> Mapping[Split, Position]:
        return await self._topics.ends(await self._topics.live())

    async def _check_live(self, positions: Mapping[Split, Position]) -> None:
        described = await self._or_failure(self._topics.describe())
        for split, position in positions.items():
            if not described.has(split):
                raise _split_gone(split, position)

    async def _check_reachable(self, ends: Mapping[Split, Position]) -> None:
        """A range that ends beyond the end of its partition cannot be read: the log was cut off there."""
        try:
            now = await self._or_failure(self._topics.ends(ends))
        except Retryable:
            return
        for split, to in ends.items():
            if now[split] < to:
                what = "the partition ends before the range that must be read"
                raise PositionLost(what, hint=SEEK_HINT, split=split, position=to, end=now[split])

    async def _or_failure(self, answer: Coroutine[Any, Any, T]) -> T:
        """The answer, or the failure of the source if that is sooner: no password gets better by waiting for it."""
        task = asyncio.ensure_future(answer)
        failed = asyncio.ensure_future(self._failed.wait())
        try:
            await asyncio.wait({task, failed}, return_when=asyncio.FIRST_COMPLETED)
            if self._failure is not None:
                raise self._failure
            return task.result()
        finally:
            task.cancel()
            failed.cancel()
            await asyncio.gather(task, failed, return_exceptions=True)

    # Clients

    def _make_reader(self, queue_bytes: int, report: Callable[[ReaderEvent], None]) -> Reader:
        return Reader(self._clients.reader(queue_bytes // 2), queue_bytes // 2, report)

    def _make_member(self) -> Member:
        hold_s = min(MAX_HOLD_S, 0.8 * self._clients.max_poll_interval_s)
        return Member(self._clients.member(), self._options.topics, hold_s, self._on_member)

    # What the threads report

    def _on_reader(self, event: ReaderEvent) -> None:
        if isinstance(event, Stuck):
            self._spawn(self._examine(self._reader, event))
        else:
            self._on_error(event)

    def _on_member(self, event: MemberEvent | KafkaError) -> None:
        if isinstance(event, KafkaError):
            self._on_error(event)
        else:
            self._ownership.post(event)

    def _on_error(self, error: KafkaError) -> None:
        failure = failures.refused(error, was_connected=self._health.was_connected)
        if failures.waits_for_former_self(error):
            self._health.problem = "the group keeps this instance's place until the session of its last life is over"
        elif failure is not None:
            self._fail(failure)
        elif failures.is_unknown_topic(error):
            self._ownership.look()
        elif failures.is_no_connection(error):
            self._health.problem = failures.text_of(error)

    async def _examine(self, reader: Reader, stuck: Stuck) -> None:
        """Find out why a split is not read on; then read on, or fail."""
        failure: Fatal | None = None
        try:
            failure = await self._verdict(stuck)
        except Retryable as error:
            self._health.problem = error.what
        except Fatal as error:
            failure = error
        if failure is None:
            await asyncio.sleep(RETRY_S)
            reader.go_on(stuck)
        elif reader is not self._reader:
            reader.fail(failure)
        elif self._ownership.has(stuck.split):
            self._fail(failure)

    async def _verdict(self, stuck: Stuck) -> Fatal | None:
        """``None``: there is no reason to stop, or it shows elsewhere; reading on will tell."""
        split, position = stuck.split, position_of(stuck.start.offset)
        if not (await self._topics.describe()).has(split):
            if self._ownership.has(split):
                self._ownership.look()
                return None
            return _split_gone(split, position)
        if stuck.error is None:
            return None
        if not failures.is_out_of_range(stuck.error):
            return SourceRefused(
                f"a record cannot be read: {failures.text_of(stuck.error)}",
                hint=SEEK_HINT,
                split=split,
                position=position,
            )
        earliest, end = (await self._topics.earliest([split]))[split], (await self._topics.ends([split]))[split]
        if earliest <= position <= end:
            return None
        is_early = position < earliest
        what = f"the record to read next is {'no longer there' if is_early else 'beyond the end of its partition'}"
        return PositionLost(what, hint=SEEK_HINT, split=split, position=position, earliest=earliest, end=end)

    # Tasks

    def _fail(self, failure: BaseException) -> None:
        if self._failure is None:
            self._failure = failure
            self._failed.set()
            self._ownership.events.put_nowait(failure)
            self._reader.fail(failure)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _split_gone(split: Split, position: Position) -> PositionLost:
    what = "the topic of this split was deleted, or deleted and created anew"
    return PositionLost(what, hint=SEEK_HINT, split=split, position=position)
