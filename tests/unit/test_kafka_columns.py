"""Kafka messages to columns: what a topic may hold that no column may."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, Message

from streamsvc.core.offsets import position_of
from streamsvc.records import METADATA, Span
from streamsvc.sources.kafka.columns import FIRST_MS, LAST_MS, batch_of


def arrivals(*times: tuple[int, int]) -> list[int | None]:
    messages = [
        Message(topic="t", partition=0, offset=offset, value=b"x", timestamp=time) for offset, time in enumerate(times)
    ]
    span = Span("t/0", len(times), position_of(0), position_of(len(times)))
    column = batch_of([span], messages).arrivals()
    assert column.type == METADATA["_timestamp"]
    return column.cast("int64").to_pylist()


def test_the_calendar_is_that_of_python() -> None:
    assert datetime.min.replace(tzinfo=UTC).timestamp() * 1000 == FIRST_MS
    assert int(datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()) * 1000 + 999 == LAST_MS


@pytest.mark.parametrize("time", [FIRST_MS - 1, LAST_MS + 1, 2**63 - 1, -(2**63) + 1])
def test_times_that_no_calendar_has_are_null(time: int) -> None:
    made = TIMESTAMP_CREATE_TIME
    assert arrivals((made, 5), (made, time), (made, FIRST_MS), (made, LAST_MS), (TIMESTAMP_NOT_AVAILABLE, -1)) == [
        5,
        None,
        FIRST_MS,
        LAST_MS,
        None,
    ]


def test_headers_count_as_memory_and_are_whole_whether_they_were_counted_or_not() -> None:
    headers: list[tuple[str, str | bytes | None]] = [("trace", b"x" * 10_000), ("none", None)]
    messages = [Message(topic="t", partition=0, offset=offset, value=b"x", headers=headers) for offset in range(100)]
    span = Span("t/0", 100, position_of(0), position_of(100))
    batch = batch_of([span], messages)
    assert 100 * 10_000 < batch.nbytes < 1.3 * 100 * 10_000
    assert batch.headers().to_pylist() == [headers] * 100


def test_records_without_any_time() -> None:
    assert arrivals((TIMESTAMP_NOT_AVAILABLE, -1)) == [None]
    assert arrivals() == []
