"""Where the contract of sources is played: in memory, and on a real broker. Both know the same few moves."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal

from confluent_kafka import IsolationLevel, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import OFFSET_SPEC_LATEST

from loadtest.kafka_broker import KafkaBroker
from streamsvc.config_sources import KafkaSource as KafkaOptions
from streamsvc.contracts import Source
from streamsvc.core.kinesis_positions import FromRecord, parse_position, position_after, position_before
from streamsvc.core.offsets import offset_of, position_of
from streamsvc.records import Position, Split
from streamsvc.sources.kafka.source import KafkaSource
from streamsvc.testing.memory_source import MemorySource, MemoryTopic, Record
from tests.kcl_group import KclGroup
from tests.kinesis_sources import Scene

Start = Literal["earliest", "latest", "committed"]


class Stage(ABC):
    """A topic of three splits, addressed by number."""

    hold_s: float
    """How long a split that must go is held at most."""

    learns_of_loss = False
    """A member hears afterwards, by a second event, that a split which it did not release was taken from it."""

    @abstractmethod
    def member(self, start: Start = "earliest") -> AbstractAsyncContextManager[Source]:
        """One more member of the group."""

    @abstractmethod
    def append(self, split: int, *records: Record) -> None: ...

    @abstractmethod
    def abort(self, split: int, records: int) -> None:
        """An aborted transaction: offsets that hold no record for a reader."""

    @abstractmethod
    def expire(self, split: int, before: int) -> None:
        """Retention takes what lies before this offset."""

    @abstractmethod
    def number(self, split: Split) -> int: ...

    def before(self, split: int, record: int) -> Position:
        """The boundary before a record of the split, counted from 0; or behind the last."""
        return position_of(record)

    def counted(self, split: int, place: Position) -> int:
        """Which record has this place."""
        return offset_of(place)


class KinesisStage(Stage):
    """Three shards; members share them by leases."""

    hold_s = 3.0
    learns_of_loss = True

    def __init__(self, scene: Scene, retrieval: Literal["polling", "fanout"]) -> None:
        self._scene = scene
        self._retrieval = retrieval
        self._application = f"app-{uuid.uuid4().hex[:12]}"
        self._members = 0
        self._puts: list[list[str]] = [[], [], []]

    def member(self, start: Start = "earliest") -> AbstractAsyncContextManager[Source]:
        self._members += 1
        return self._scene.source(
            worker=f"worker-{self._members}",
            handover=self.hold_s,
            retrieval=self._retrieval,
            application=self._application,
            leases="dynamodb",
            failover=2.0,
            start={"earliest": "trim_horizon"}.get(start, start),
        )

    def append(self, split: int, *records: Record) -> None:
        """A millisecond apart, so that retention can take them one by one."""
        base = time.time() - 100.0
        for record in records:
            at = base + len(self._puts[split]) / 1000
            self._puts[split] += self._scene.put(record.value or b"", shard=split, at=at)

    def abort(self, split: int, records: int) -> None:
        raise NotImplementedError("Kinesis has no transactions")

    def expire(self, split: int, before: int) -> None:
        self._scene.trim(split, before)

    def number(self, split: Split) -> int:
        return int(split.partition(".")[0][-1])

    def before(self, split: int, record: int) -> Position:
        puts = self._puts[split]
        return position_before(puts[record]) if record < len(puts) else position_after(puts[-1])

    def counted(self, split: int, place: Position) -> int:
        found = parse_position(place)
        assert isinstance(found, FromRecord)
        return self._puts[split].index(found.sequence)


class KclStage(KinesisStage):
    """The same stream through the KCL bridge."""

    hold_s = 0.5
    learns_of_loss = False

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene, "polling")
        self._group = KclGroup(scene, self.hold_s)

    def member(self, start: Start = "earliest") -> AbstractAsyncContextManager[Source]:
        return self._group.member({"earliest": "trim_horizon"}.get(start, start))


class MemoryStage(Stage):
    hold_s = 0.3

    def __init__(self) -> None:
        self._topic = MemoryTopic(3, revoke_deadline_s=self.hold_s)

    def member(self, start: Start = "earliest") -> AbstractAsyncContextManager[Source]:
        return MemorySource(self._topic, start=start, batch_rows=7)

    def append(self, split: int, *records: Record) -> None:
        self._topic.append(self._topic.splits[split], *records)

    def abort(self, split: int, records: int) -> None:
        self._topic.skip(self._topic.splits[split], records + 1)

    def expire(self, split: int, before: int) -> None:
        self._topic.expire(self._topic.splits[split], before)

    def number(self, split: Split) -> int:
        return self._topic.splits.index(split)


class KafkaStage(Stage):
    hold_s = 0.8 * 1.5

    def __init__(self, broker: KafkaBroker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self._group = f"group-{uuid.uuid4().hex[:12]}"
        self._producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 0, "log_level": 0})

        self._admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})

    def member(self, start: Start = "earliest") -> AbstractAsyncContextManager[Source]:
        options = KafkaOptions(
            brokers=self._broker.bootstrap,
            topics=[self._topic],
            group=self._group,
            start=start,
            client={
                "session.timeout.ms": 1200,
                "heartbeat.interval.ms": 200,
                "max.poll.interval.ms": 1500,
                "fetch.wait.max.ms": 50,
            },
        )
        return KafkaSource(options, service="test", pipeline="test", instance=None, queue_bytes=16 * 1024 * 1024)

    def append(self, split: int, *records: Record) -> None:
        self._produce(self._producer, split, records)
        assert self._producer.flush(20) == 0

    def abort(self, split: int, records: int) -> None:
        settings = {"bootstrap.servers": self._broker.bootstrap, "transactional.id": uuid.uuid4().hex, "log_level": 0}
        producer = Producer(settings)
        producer.init_transactions()
        producer.begin_transaction()
        self._produce(producer, split, [Record(b"aborted")] * records)
        producer.flush()
        producer.abort_transaction()
        # The broker writes the control record after it has answered.
        while self._end(split, IsolationLevel.READ_COMMITTED) < self._end(split, IsolationLevel.READ_UNCOMMITTED):
            pass

    def expire(self, split: int, before: int) -> None:
        for deleted in self._admin.delete_records([TopicPartition(self._topic, split, before)]).values():
            deleted.result(20)

    def _end(self, split: int, isolation: IsolationLevel) -> int:
        where = {TopicPartition(self._topic, split): OffsetSpec.for_timestamp(OFFSET_SPEC_LATEST)}
        (answer,) = self._admin.list_offsets(where, isolation_level=isolation).values()
        return int(answer.result(20).offset)

    def number(self, split: Split) -> int:
        return int(split.rpartition("@")[2].partition(".")[0])

    def _produce(self, producer: Producer, split: int, records: Sequence[Record]) -> None:
        for record in records:
            headers: list[tuple[str, str | bytes | None]] | None = None if record.headers is None else [*record.headers]
            producer.produce(
                self._topic,
                value=record.value,
                key=record.key,
                partition=split,
                headers=headers,
                timestamp=record.timestamp_ms or 0,
            )
