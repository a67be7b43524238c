"""Topics of librdkafka's mock cluster, which is what the demo runs on. It answers no question about topic ids and
none of an admin client about offsets, so metadata and a consumer's watermarks stand in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import OFFSET_SPEC_EARLIEST

from streamsvc.core.offsets import position_of
from streamsvc.records import Split
from streamsvc.sources.kafka import failures
from streamsvc.sources.kafka.splits import Partition, SplitName, parse_split
from streamsvc.sources.kafka.topics import REQUEST_TIMEOUT_S, Described, Positions, Topics

CLUSTER_PREFIX = "mockCluster"
"""How the mock names itself (librdkafka, rdkafka_mock.c)."""


async def open_topics(admin: AdminClient, topics: Sequence[str], make_consumer: Callable[[], Consumer]) -> Topics:
    """The topics of whichever cluster answers; of a real one, if none answers yet."""
    try:
        cluster = await asyncio.to_thread(admin.list_topics, timeout=REQUEST_TIMEOUT_S)
    except KafkaException:
        return Topics(admin, topics)
    if str(cluster.cluster_id).startswith(CLUSTER_PREFIX):
        return MockTopics(admin, topics, await asyncio.to_thread(make_consumer))
    return Topics(admin, topics)


class MockTopics(Topics):
    """Splits have no topic id: the mock is gone before its topics could be made anew."""

    def __init__(self, admin: AdminClient, topics: Sequence[str], consumer: Consumer) -> None:
        super().__init__(admin, topics)
        self._consumer = consumer

    async def describe(self) -> Described:
        try:
            found = (await asyncio.to_thread(self._admin.list_topics, timeout=REQUEST_TIMEOUT_S)).topics
        except KafkaException as error:
            raise failures.of_request(failures.kafka_error(error), "the topics cannot be looked up") from None
        present = [topic for topic in self._topics if topic in found]
        partitions = [Partition(topic, number) for topic in present for number in sorted(found[topic].partitions)]
        splits = {partition: SplitName(partition, "").text for partition in partitions}
        return Described(splits, frozenset(self._topics) - frozenset(present))

    async def _offsets(self, splits: Iterable[Split], where: int) -> Positions:
        positions: Positions = {}
        for split in splits:
            partition = TopicPartition(*parse_split(split).partition)
            try:
                low, high = await asyncio.to_thread(
                    self._consumer.get_watermark_offsets, partition, timeout=REQUEST_TIMEOUT_S
                )
            except KafkaException as error:
                raise failures.of_request(failures.kafka_error(error), "offsets", split=split) from None
            positions[split] = position_of(low if where == OFFSET_SPEC_EARLIEST else high)
        return positions
