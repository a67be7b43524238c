"""Results of windows for tests of sinks, and what a reader of a topic finds."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition

from streamsvc.core.json_text import json_objects
from streamsvc.records import Finished, Window

START = int(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()) * 1_000_000
WINDOW = Window(START, START + 300_000_000)
TIME = pa.timestamp("us", "UTC")


def finished(*groups: int, text: str = "") -> Finished:
    """A row a group."""
    bounds = {
        "window_start": pa.array([WINDOW.start_us] * len(groups), TIME),
        "window_end": pa.array([WINDOW.end_us] * len(groups), TIME),
    }
    keys = pa.record_batch({**bounds, "response": pa.array(groups, pa.int16())})
    rows = keys.append_column("requests", pa.array([group * 10 for group in groups], pa.int64()))
    rows = rows.append_column("text", pa.array([text] * len(groups), pa.string()))
    return Finished(pa.Table.from_batches([rows]), lambda: json_objects(keys), ())


def key(group: int) -> str:
    return f'{{"window_start":"2026-11-24T12:00:00Z","window_end":"2026-11-24T12:05:00Z","response":{group}}}'


def value(group: int, text: str = "") -> str:
    return f'{key(group)[:-1]},"requests":{group * 10},"text":"{text}"}}'


def read_topic(brokers: str, topic: str, partitions: int = 1) -> list[tuple[str, str]]:
    """Keys and values of all records that are there now."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "reader", "enable.auto.commit": False})
    places = [TopicPartition(topic, number, 0) for number in range(partitions)]
    left = {place.partition: consumer.get_watermark_offsets(place, timeout=20)[1] for place in places}
    consumer.assign(places)
    found: list[tuple[str, str]] = []
    while sum(left.values()) > len(found):
        message = consumer.poll(20)
        assert message is not None, f"{len(found)} of {sum(left.values())} records came"
        assert message.error() is None, message.error()
        found.append(((message.key() or b"").decode(), (message.value() or b"").decode()))
    consumer.close()
    return found
