"""Fills a topic with plain access logs: no stamps, no ledger; what ``loadtest.bench`` reads."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from confluent_kafka import KafkaError, Message, Producer

from streamsvc.testing.access_logs import AccessLogs, Form

_START = datetime(2026, 11, 24, 22, 30, tzinfo=UTC)
_CHUNK = 10_000


def fill(brokers: str, topic: str, form: Form, records: int) -> dict[str, float]:
    """Every partition gets the same number of records. Raises ``RuntimeError`` if one was not taken."""
    producer = Producer(
        {"bootstrap.servers": brokers, "acks": "all", "linger.ms": 20, "queue.buffering.max.messages": 500_000}
    )
    partitions = len(producer.list_topics(topic, timeout=30).topics[topic].partitions)
    logs = AccessLogs(1, _START, form=form)
    refused: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refused.append(error)

    began, size = time.monotonic(), 0
    while logs.made < records:
        first = logs.made
        for number, line in enumerate(logs.lines(min(_CHUNK, records - first)), first):
            producer.produce(topic, line, partition=number % partitions, on_delivery=on_delivery)
            size += len(line)
        while len(producer) > 10 * _CHUNK:
            producer.poll(0.05)
    producer.flush()
    if refused:
        raise RuntimeError(f"{len(refused)} records were not taken; the first: {refused[0]}")
    return {"records": logs.made, "bytes_a_record": size / logs.made, "seconds": time.monotonic() - began}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.fill", description=__doc__)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--form", choices=("combined", "json"), default="combined")
    parser.add_argument("--records", required=True, type=int)
    given = parser.parse_args(arguments)
    print(json.dumps(fill(given.brokers, given.topic, given.form, given.records)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
