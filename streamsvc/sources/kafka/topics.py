"""Questions about topics: their splits, where these begin and end, what a group has committed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import OFFSET_SPEC_EARLIEST, OFFSET_SPEC_LATEST

from streamsvc.core.offsets import position_of
from streamsvc.errors import SourceUnavailable, StreamsvcError
from streamsvc.records import Position, Split
from streamsvc.sources.kafka import failures
from streamsvc.sources.kafka.client_log import topic_id_text
from streamsvc.sources.kafka.splits import Partition, SplitName, parse_split

REQUEST_TIMEOUT_S = 10.0
METADATA_TIMEOUT_S = 1.0
"""Of requests that hold a thread: short, so that the process can end meanwhile. A worker asks again for ever."""

ONLOOKER_TIMEOUT_S = 3.0
"""For a command, which asks once: long enough to connect from afar."""

_MOCK_CLUSTER = "mockCluster"
"""How librdkafka's mock cluster, which the demo runs on, names itself (rdkafka_mock.c)."""

Positions: TypeAlias = dict[Split, Position]


@dataclass(frozen=True, slots=True)
class Described:
    """The topics as they are now. ``missing`` names those that are not there."""

    splits: Mapping[Partition, Split]
    missing: frozenset[str]

    def has(self, split: Split) -> bool:
        return self.splits.get(parse_split(split).partition) == split


class Topics:
    """Raises ``SourceUnavailable`` and ``SourceRefused``. Every call may be cancelled."""

    def __init__(
        self, admin: AdminClient, topics: Sequence[str], brokers: str, *, patience_s: float = METADATA_TIMEOUT_S
    ) -> None:
        self._admin = admin
        self._brokers = brokers
        self._patience_s = patience_s
        self._topics = list(topics)
        self._has_ids: bool | None = None

    async def describe(self) -> Described:
        if self._has_ids is None:
            self._has_ids = not (await self._cluster_id()).startswith(_MOCK_CLUSTER)
        return await (self._describe() if self._has_ids else self._list())

    async def _cluster_id(self) -> str:
        try:
            return await asyncio.to_thread(self._admin.cluster_id, self._patience_s)
        except KafkaException as error:
            raise failures.no_answer(failures.kafka_error(error), self._brokers) from None

    async def _list(self) -> Described:
        """Without topic ids: the mock cluster, which lives in one process, does not answer what ``_describe`` asks."""
        try:
            found = (await asyncio.to_thread(self._admin.list_topics, timeout=self._patience_s)).topics
        except KafkaException as error:
            raise failures.no_answer(failures.kafka_error(error), self._brokers) from None
        present = [topic for topic in self._topics if topic in found]
        partitions = [Partition(topic, number) for topic in present for number in sorted(found[topic].partitions)]
        return Described(
            {partition: SplitName(partition, "").text for partition in partitions},
            frozenset(self._topics) - frozenset(present),
        )

    async def _describe(self) -> Described:
        answers = await _answers(
            self._admin.describe_topics(TopicCollection(self._topics), request_timeout=REQUEST_TIMEOUT_S)
        )
        splits: dict[Partition, Split] = {}
        missing: set[str] = set()
        for topic, answer in answers.items():
            if isinstance(answer, KafkaException):
                error = failures.kafka_error(answer)
                if not failures.is_unknown_topic(error):
                    raise failures.of_request(
                        error, "the topic cannot be looked up", topic=topic, brokers=self._brokers
                    ) from None
                missing.add(topic)
                continue
            topic_id = topic_id_text(answer.topic_id)
            for number in sorted(info.id for info in answer.partitions):
                partition = Partition(topic, number)
                splits[partition] = SplitName(partition, topic_id).text
        return Described(splits, frozenset(missing))

    async def live(self) -> list[Split]:
        """All splits. A topic that is not there is an error: it would look like one without records."""
        described = await self.describe()
        if described.missing:
            names = ", ".join(sorted(described.missing))
            hint = "Create it, or correct `topics`; a worker that is waiting for it goes on by itself."
            raise SourceUnavailable(f"there is no such topic: {names}", hint=hint, brokers=self._brokers)
        return list(described.splits.values())

    async def earliest(self, splits: Iterable[Split]) -> Positions:
        """The first record that is still there, or where it would be."""
        return await self._offsets(splits, OFFSET_SPEC_EARLIEST)

    async def ends(self, splits: Iterable[Split]) -> Positions:
        """Where a reader of committed records comes to its end now."""
        return await self._offsets(splits, OFFSET_SPEC_LATEST)

    async def at_time(self, splits: Sequence[Split], moment: datetime) -> Positions:
        """The first record with this timestamp or a later one; the end, if there is none."""
        found = await self._offsets(splits, int(moment.timestamp() * 1000))
        return {**await self.ends(splits), **found}

    async def committed(self, splits: Iterable[Split], group: str) -> Positions:
        """Where the group is, for the splits of which it has committed something."""
        by_partition = {parse_split(split).partition: split for split in splits}
        request = ConsumerGroupTopicPartitions(group, [TopicPartition(*partition) for partition in by_partition])
        answers = await _answers(self._admin.list_consumer_group_offsets([request], request_timeout=REQUEST_TIMEOUT_S))
        answer = answers[group]
        if isinstance(answer, KafkaException):
            raise self._offsets_failed(failures.kafka_error(answer), group) from None
        positions: Positions = {}
        for found in answer.topic_partitions:
            if found.error is not None:
                raise self._offsets_failed(found.error, group) from None
            if found.offset >= 0:
                positions[by_partition[Partition(found.topic, found.partition)]] = position_of(found.offset)
        return positions

    def _offsets_failed(self, error: KafkaError, group: str) -> StreamsvcError:
        what = "committed offsets cannot be looked up"
        return failures.of_request(error, what, group=group, brokers=self._brokers)

    async def _offsets(self, splits: Iterable[Split], where: int) -> Positions:
        """where: a time in epoch milliseconds, or one of the negative numbers that stand for an end"""
        by_partition = {parse_split(split).partition: split for split in splits}
        if not by_partition:
            return {}
        answers = await _answers(
            self._admin.list_offsets(
                {TopicPartition(*partition): OffsetSpec.for_timestamp(where) for partition in by_partition},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=REQUEST_TIMEOUT_S,
            )
        )
        positions: Positions = {}
        for key, answer in answers.items():
            split = by_partition[Partition(key.topic, key.partition)]
            if isinstance(answer, KafkaException):
                error = failures.kafka_error(answer)
                raise failures.of_request(
                    error, "offsets cannot be looked up", split=split, brokers=self._brokers
                ) from None
            if answer.offset >= 0:
                positions[split] = position_of(answer.offset)
        return positions


async def _answers(futures: Mapping[Any, Future[Any]]) -> dict[Any, Any]:
    """What the admin client answered, or the exception, for each key."""
    answers = await asyncio.gather(*map(asyncio.wrap_future, futures.values()), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, KafkaException):
            raise answer
    return dict(zip(futures, answers, strict=True))
