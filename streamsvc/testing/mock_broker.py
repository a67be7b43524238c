"""librdkafka's own mock cluster, inside this process: a Kafka for a first minute, with nothing to install.

It keeps about 5 MB a partition, makes topics of four partitions when they are first written to, and starts at offset 0
in every run (https://docs.confluent.io/platform/current/clients/librdkafka/html/rdkafka__mock_8h.html).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from confluent_kafka import KafkaError, Message, Producer

PAUSE_S = 0.1


class MockBroker:
    """A context manager: the cluster lives as long as it is open. ``address`` is where clients find it."""

    def __init__(self) -> None:
        self._producer = Producer(
            {
                "test.mock.num.brokers": 1,
                "bootstrap.servers": "unused",
                "compression.type": "lz4",
                "linger.ms": 20,
                "log_level": 2,
            }
        )
        brokers = self._producer.list_topics(timeout=10).brokers.values()
        self.address = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        self.delivered = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def make_topic(self, topic: str) -> None:
        """To ask for a topic is to make it. A consumer that comes before it would wait for its next look."""
        self._producer.list_topics(topic, timeout=10)

    def produce(self, topic: str, make: Callable[[int], list[bytes]], per_second: int) -> None:
        """Write ``make(n)`` values to the topic, about so many a second, until ``stop_producing``."""
        self._thread = threading.Thread(target=self._keep_producing, args=(topic, make, per_second), daemon=True)
        self._thread.start()

    def stop_producing(self) -> None:
        """No more values; returns when those that were made are delivered."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._producer.flush(10)

    def _keep_producing(self, topic: str, make: Callable[[int], list[bytes]], per_second: int) -> None:
        while not self._stop.wait(PAUSE_S):
            for value in make(max(1, round(per_second * PAUSE_S))):
                self._producer.produce(topic, value, on_delivery=self._count)
            self._producer.poll(0)

    def _count(self, error: KafkaError | None, _: Message) -> None:
        self.delivered += error is None

    def __enter__(self) -> MockBroker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_producing()
