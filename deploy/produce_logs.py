"""Writes lifelike access logs to a topic, at a steady rate, until it is stopped."""

from __future__ import annotations

import argparse
import signal
import threading
from datetime import UTC, datetime

from confluent_kafka import Producer

from streamsvc.testing.access_logs import AccessLogs

TICKS_A_SECOND = 10


def produce(brokers: str, topic: str, rate: int, stopped: threading.Event) -> None:
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "compression.type": "lz4"})
    logs = AccessLogs(seed=datetime.now(UTC).second, start=datetime.now(UTC), lines_a_second=rate)
    while not stopped.wait(1 / TICKS_A_SECOND):
        for line in logs.lines(max(1, rate // TICKS_A_SECOND)):
            _put(producer, topic, line, stopped)
        producer.poll(0)
    producer.flush(10)


def _put(producer: Producer, topic: str, line: bytes, stopped: threading.Event) -> None:
    """Waits where the broker is slower than we are."""
    while not stopped.is_set():
        try:
            producer.produce(topic, line)
        except BufferError:
            producer.poll(1)
        else:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--rate", type=int, default=1000, help="lines a second")
    options = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    produce(options.brokers, options.topic, options.rate, stopped)


if __name__ == "__main__":
    main()
