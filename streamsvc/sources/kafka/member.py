"""Membership of the consumer group, on a thread of its own. Fetches nothing: every partition is paused.

Blocking in a rebalance callback holds back only the partitions that leave, since the protocol is cooperative, and
only this client: reading goes on beside it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from streamsvc.sources.kafka import failures
from streamsvc.sources.kafka.clients import ConsumerRecipe
from streamsvc.sources.kafka.splits import Partition

_LOG = logging.getLogger("streamsvc.kafka")

POLL_S = 0.2
LEAVE_POLL_S = 0.05
REJOIN_S = 1.0

LEAVE_S = 2.5
"""How long a group that does not answer is asked to let us go. It is part of ``CLOSE_S``."""

CLOSE_S = 5.0
"""How long leaving the group may take. Without a broker, librdkafka waits out the session for the last commit."""


@dataclass(frozen=True, slots=True)
class Gained:
    partitions: tuple[Partition, ...]


@dataclass(frozen=True, slots=True)
class Leaving:
    """Held until released, or until ``deadline`` (``time.monotonic``); a deadline in the past: they are gone."""

    partitions: tuple[Partition, ...]
    deadline: float


MemberEvent: TypeAlias = Gained | Leaving


class Member:
    """``report`` is called on the event loop. All other methods may be called from any thread.

    Who exits normally leaves the group, so that others have its partitions at once. A static member that fails or dies
    keeps its place until its session is over: it may be back sooner."""

    def __init__(
        self,
        recipe: ConsumerRecipe,
        topics: list[str],
        hold_s: float,
        report: Callable[[MemberEvent | KafkaError], None],
    ) -> None:
        self._recipe = recipe
        self._topics = topics
        self._hold_s = hold_s
        self._report = report
        self._loop = asyncio.get_running_loop()
        # Shared with the thread, under the condition's lock.
        self._changed = threading.Condition()
        self._held: set[Partition] = set()
        self._to_commit: dict[Partition, int] = {}
        self._closing = False
        self._leaves = False
        # The thread's own.
        self._owned: set[Partition] = set()
        self._rejected = False

    async def __aenter__(self) -> Self:
        ended: Future[None] = Future()
        # A daemon: the process need not wait for it to end.
        threading.Thread(target=self._run_until, args=(ended,), name="kafka-member", daemon=True).start()
        self._thread = asyncio.wrap_future(ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            self._leaves = kind is None
            self._changed.notify_all()
        _, late = await asyncio.wait([self._thread], timeout=CLOSE_S)
        for thread in late:
            thread.cancel()

    async def ended(self) -> None:
        """Raises what the thread ended of."""
        await asyncio.shield(self._thread)

    def release(self, partitions: Iterable[Partition]) -> None:
        """Let go of partitions that are leaving."""
        with self._changed:
            self._held.difference_update(partitions)
            self._changed.notify_all()

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Soon, and if it fails, not at all: the next commit says more anyway."""
        with self._changed:
            self._to_commit.update(offsets)

    # The thread

    def _run_until(self, ended: Future[None]) -> None:
        ended.set_running_or_notify_cancel()
        try:
            self._run()
            ended.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised by ``ended``
            ended.set_exception(error)

    def _run(self) -> None:
        while not self._closing:
            with self._recipe.consumer(self._on_error) as consumer:
                self._take_part(consumer)
            with self._changed:
                self._changed.wait_for(lambda: self._closing, REJOIN_S)

    def _take_part(self, consumer: Consumer) -> None:
        """Until closing, or until the group does not want this client; then another one must be made."""
        self._rejected = False
        consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        while not self._closing and not self._rejected:
            message = consumer.poll(POLL_S)
            error = message.error() if message is not None else None
            if error is not None:
                self._on_error(error)
            self._commit(consumer)
        self._commit(consumer)
        if self._recipe.is_static:
            self._end_static(consumer)

    def _end_static(self, consumer: Consumer) -> None:
        """Static members do not leave when they close (KIP-345), but do when they unsubscribe while they are open
        (librdkafka, rdkafka_cgrp.c). With KIP-848 they cannot: they say that they will be back (member epoch -2)."""
        if self._leaves and self._recipe.is_classic and not self._rejected:
            give_up_at = time.monotonic() + LEAVE_S
            consumer.unsubscribe()
            while consumer.memberid() and time.monotonic() < give_up_at:
                consumer.poll(LEAVE_POLL_S)
        elif self._closing and self._owned:
            _LOG.info(
                "the group keeps the place of this worker: its %d partitions are read on when it is back, or by others"
                " after %s",
                len(self._owned),
                "`session.timeout.ms` (45 s)" if self._recipe.is_classic else "the broker's session timeout (45 s)",
            )

    def _on_error(self, error: KafkaError) -> None:
        error = failures.unveiled(error)
        if failures.waits_for_former_self(error):
            self._rejected = True
        self._say(error)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gained = _named(partitions)
        consumer.incremental_assign([TopicPartition(*partition, OFFSET_END) for partition in gained])
        if gained:
            consumer.pause(partitions)
        self._owned.update(gained)
        self._say(Gained(gained))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        leaving = _named(partitions)
        deadline = time.monotonic() + self._hold_s
        with self._changed:
            self._held.update(leaving)
        self._say(Leaving(leaving, deadline))
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._held.isdisjoint(leaving), self._hold_s)
            self._held.difference_update(leaving)
        self._commit(consumer)
        self._let_go(consumer, leaving, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        lost = _named(partitions)
        self._say(Leaving(lost, time.monotonic()))
        self._let_go(consumer, lost, partitions)

    def _let_go(self, consumer: Consumer, gone: tuple[Partition, ...], partitions: list[TopicPartition]) -> None:
        self._owned.difference_update(gone)
        consumer.incremental_unassign(partitions)

    def _commit(self, consumer: Consumer) -> None:
        with self._changed:
            offsets, self._to_commit = self._to_commit, {}
        ours = [TopicPartition(*partition, offset) for partition, offset in offsets.items() if partition in self._owned]
        if ours:
            try:
                consumer.commit(offsets=ours, asynchronous=True)
            except KafkaException as error:
                self._say(failures.kafka_error(error))

    def _say(self, event: MemberEvent | KafkaError) -> None:
        with suppress(RuntimeError):  # the loop has ended before the thread
            self._loop.call_soon_threadsafe(self._report, event)


def _named(partitions: Iterable[TopicPartition]) -> tuple[Partition, ...]:
    return tuple(Partition(partition.topic, partition.partition) for partition in partitions)
