"""Reads partitions on a thread of its own, with a client that is in no group.

The thread does librdkafka's batch ``consume`` and makes columns at once; the event loop takes them. Between the two
is a queue bounded by bytes: while it is full, the thread does not consume, and librdkafka, whose own queue fills up,
stops fetching.

A split that is moved or stopped gets a new *turn*. What was read in an earlier turn is never handed out.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Self, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streamsvc.core.offsets import position_of
from streamsvc.records import Batch, Span, Split
from streamsvc.sources.kafka import failures
from streamsvc.sources.kafka.clients import ConsumerRecipe
from streamsvc.sources.kafka.columns import Records, Run, batch_of, joined, last_offset, offset_of_message, runs
from streamsvc.sources.kafka.splits import Partition, parse_split

CONSUME_RECORDS = 10_000
"""The interpreter is held while messages are made, about 0.5 us each: more at once would stall the event loop."""

BATCH_RECORDS = 50_000
BATCH_BYTES = 32 * 1024 * 1024
"""A batch is cut above either; it may be smaller, and is not waited for."""

IDLE_POLL_S = 0.1
LOOK_UP_S = 1.0
GATHER_S = 0.005
"""After the first record of a consume: more batching under a trickle, against five milliseconds of latency."""


@dataclass(frozen=True, slots=True)
class Start:
    """Read from this offset; up to ``end``, if there is one, which is then the last position handed out."""

    offset: int
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Stuck:
    """A split that is no longer read, with what it takes to go on: see ``Reader.go_on``.

    ``error=None``: its topic is another one than when the split got its name.
    """

    error: KafkaError | None
    split: Split
    turn: int
    start: Start


ReaderEvent: TypeAlias = Stuck | KafkaError
"""An error is about the whole client."""


@dataclass(slots=True)
class _Cursor:
    """A split that the thread reads, and up to where it has."""

    split: Split
    topic_id: str
    turn: int
    offset: int
    end: int | None


@dataclass(frozen=True, slots=True)
class _Order:
    """``start=None`` stops the split."""

    split: Split
    turn: int
    start: Start | None


class Reader:
    """``report`` is called on the event loop. All other methods are to be called from it."""

    def __init__(self, recipe: ConsumerRecipe, queue_bytes: int, report: Callable[[ReaderEvent], None]) -> None:
        self._recipe = recipe
        self._queue_bytes = queue_bytes
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="kafka-reader")
        self._ready = asyncio.Event()
        self._failure: BaseException | None = None
        self._turns: dict[Split, int] = {}
        self._next_turn = count(1)
        # Shared with the thread, under the condition's lock.
        self._changed = threading.Condition()
        self._orders: deque[_Order] = deque()
        self._queue: deque[tuple[Batch, tuple[int, ...]]] = deque()
        self._queued_bytes = 0
        self._closing = False
        # The thread's own.
        self._cursors: dict[Partition, _Cursor] = {}
        self._assigned: set[Partition] = set()
        self._topic_ids: dict[str, str] = {}
        # Written by the thread, read by anybody: one entry at a time, which the interpreter keeps whole.
        self._tips: dict[Split, int | None] = {}

    async def __aenter__(self) -> Self:
        self._thread = self._loop.run_in_executor(self._executor, self._run)
        self._thread.add_done_callback(self._on_thread_done)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        await asyncio.wait([self._thread])
        self._executor.shutdown(wait=False)

    @property
    def queued_bytes(self) -> int:
        return self._queued_bytes

    def tip(self, split: Split) -> int | None:
        """The offset at which the split had no more, if nothing has come of it since."""
        return self._tips.get(split)

    def start(self, starts: Mapping[Split, Start]) -> None:
        """Read these from there on; nothing that was read of them before is handed out after this call."""
        self._order((split, start) for split, start in starts.items())

    def stop(self, splits: Iterable[Split]) -> None:
        """Hand out nothing more of these."""
        self._order((split, None) for split in splits if split in self._turns)

    def go_on(self, stuck: Stuck) -> None:
        """Read the split from where it got stuck, unless it was moved or stopped meanwhile."""
        if self._turns.get(stuck.split) == stuck.turn:
            with self._changed:
                self._orders.append(_Order(stuck.split, stuck.turn, stuck.start))
                self._changed.notify_all()

    def fail(self, failure: BaseException) -> None:
        """Let ``read`` raise this from now on."""
        self._failure = self._failure or failure
        self._ready.set()

    async def read(self) -> Batch:
        """What is there, as soon as there is something. Cancelling loses nothing."""
        while True:
            if self._failure is not None:
                raise self._failure
            batch = self._take()
            if batch is not None:
                return batch
            self._ready.clear()
            await self._ready.wait()

    def _order(self, orders: Iterable[tuple[Split, Start | None]]) -> None:
        with self._changed:
            for split, start in orders:
                turn = next(self._next_turn)
                self._turns[split] = turn
                if start is None:
                    del self._turns[split]
                self._orders.append(_Order(split, turn, start))
            self._changed.notify_all()

    def _take(self) -> Batch | None:
        taken: list[Batch] = []
        rows = nbytes = 0
        with self._changed:
            while self._queue and rows < BATCH_RECORDS and nbytes < BATCH_BYTES:
                batch, turns = self._queue.popleft()
                self._queued_bytes -= batch.nbytes
                current = self._current(batch, turns)
                if current.spans:
                    taken.append(current)
                    rows += len(current)
                    nbytes += current.nbytes
            self._changed.notify_all()
        return joined(taken) if taken else None

    def _current(self, batch: Batch, turns: tuple[int, ...]) -> Batch:
        """Without the spans that were read in an earlier turn of their split."""
        turn_of_span = iter(turns)
        return batch.only(lambda span: self._turns.get(span.split) == next(turn_of_span))

    def _on_thread_done(self, thread: asyncio.Future[None]) -> None:
        self._failure = self._failure or thread.exception()
        self._ready.set()

    # The thread

    def _run(self) -> None:
        with self._recipe.consumer(self._say) as consumer:
            while self._obey(consumer):
                messages: Records = consumer.consume(1, IDLE_POLL_S)
                if messages:
                    messages += consumer.consume(CONSUME_RECORDS - 1, GATHER_S)
                    self._digest(consumer, messages)

    def _obey(self, consumer: Consumer) -> bool:
        """Do what was ordered; wait while the queue is full. False: the end."""
        while True:
            with self._changed:
                while not self._orders and not self._closing and self._queued_bytes >= self._queue_bytes:
                    self._changed.wait()
                if self._closing:
                    return False
                orders, self._orders = self._orders, deque()
            if not orders:
                return True
            self._carry_out(consumer, orders)

    def _carry_out(self, consumer: Consumer, orders: Iterable[_Order]) -> None:
        moved: set[Partition] = set()
        for order in orders:
            partition, topic_id = parse_split(order.split)
            if order.start is not None:
                start = order.start
                self._cursors[partition] = _Cursor(order.split, topic_id, order.turn, start.offset, start.end)
                moved.add(partition)
            elif partition in self._cursors and self._cursors[partition].split == order.split:
                del self._cursors[partition]
                moved.add(partition)
        self._reassign(consumer, moved)

    def _reassign(self, consumer: Consumer, partitions: set[Partition]) -> None:
        """Make librdkafka fetch these from their cursors, or no longer; what it has queued of them is dropped."""
        gone = partitions & self._assigned
        if gone:
            consumer.incremental_unassign([TopicPartition(*partition) for partition in sorted(gone)])
        wanted = partitions & self._cursors.keys()
        for topic in {partition.topic for partition in wanted} - {partition.topic for partition in self._assigned}:
            # A client that is connected already would find the leaders of a new topic only at its next look, in up
            # to a second. It finds them sooner when it is asked.
            with suppress(KafkaException):
                consumer.list_topics(topic, timeout=LOOK_UP_S)
        if wanted:
            consumer.incremental_assign(
                [TopicPartition(*partition, self._cursors[partition].offset) for partition in sorted(wanted)]
            )
        self._assigned = (self._assigned - gone) | wanted

    def _digest(self, consumer: Consumer, messages: Records) -> None:
        """Columns of what was consumed, for the queue."""
        suspects = self._heed_new_ids(consumer, self._recipe.log.take_new_ids())
        spans: list[Span] = []
        turns: list[int] = []
        records: Records = []
        finished: set[Partition] = set()
        for run in runs(messages):
            cursor = self._cursors.get(run.partition)
            if run.event is not None and run.event.code() != KafkaError._PARTITION_EOF:
                self._on_event(run.event, cursor, finished)
                continue
            if cursor is None or run.partition in suspects or not self._is_of_its_topic(run.partition, cursor):
                continue
            self._tips[cursor.split] = None if run.event is None else run.event_offset
            offset, taken = _within(cursor, run)
            if offset > cursor.offset:
                spans.append(Span(cursor.split, len(taken), position_of(cursor.offset), position_of(offset)))
                turns.append(cursor.turn)
                records += taken
                cursor.offset = offset
            if offset == cursor.end:
                del self._cursors[run.partition]
                finished.add(run.partition)
        self._reassign(consumer, finished)
        if spans:
            self._hand_out(batch_of(spans, records), tuple(turns))

    def _hand_out(self, batch: Batch, turns: tuple[int, ...]) -> None:
        with self._changed:
            self._queue.append((batch, turns))
            self._queued_bytes += batch.nbytes
        self._loop.call_soon_threadsafe(self._ready.set)

    def _heed_new_ids(self, consumer: Consumer, new_ids: Mapping[str, str]) -> set[Partition]:
        """Partitions whose records may be of another topic of that name: the list that was just consumed may hold
        records from before and after the change, so none of it is taken. Those that are of the topic that their
        split is named after are read again from their cursors."""
        suspects: set[Partition] = set()
        for topic, new_id in new_ids.items():
            known_id = self._topic_ids.get(topic)
            self._topic_ids[topic] = new_id
            for partition, cursor in list(self._cursors.items()):
                if partition.topic != topic or not cursor.topic_id or (known_id is None and new_id == cursor.topic_id):
                    continue
                suspects.add(partition)
                if new_id != cursor.topic_id:
                    del self._cursors[partition]
                    self._say(Stuck(None, cursor.split, cursor.turn, Start(cursor.offset, cursor.end)))
        self._reassign(consumer, suspects)
        return suspects

    def _is_of_its_topic(self, partition: Partition, cursor: _Cursor) -> bool:
        """False while this client still reads an older topic of the same name."""
        return not cursor.topic_id or self._topic_ids.get(partition.topic, cursor.topic_id) == cursor.topic_id

    def _on_event(self, error: KafkaError, cursor: _Cursor | None, finished: set[Partition]) -> None:
        if cursor is not None and failures.stops_reading(error):
            partition = parse_split(cursor.split).partition
            del self._cursors[partition]
            finished.add(partition)
            self._say(Stuck(error, cursor.split, cursor.turn, Start(cursor.offset, cursor.end)))
        else:
            self._say(error)

    def _say(self, event: ReaderEvent) -> None:
        self._loop.call_soon_threadsafe(self._report, event)


def _within(cursor: _Cursor, run: Run) -> tuple[int, Records]:
    """Where the run takes its cursor, and its records before the cursor's end."""
    reached = run.event_offset if run.event is not None else last_offset(run.records) + 1
    if cursor.end is None or reached <= cursor.end:
        return reached, run.records
    return cursor.end, run.records[: bisect_left(run.records, cursor.end, key=offset_of_message)]
