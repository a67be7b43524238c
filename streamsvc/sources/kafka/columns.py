"""Kafka messages to columns. The only Python object per record is librdkafka's message itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from functools import cache
from itertools import chain, groupby
from operator import itemgetter
from typing import NamedTuple, TypeAlias, cast

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, Message

from streamsvc.core.offsets import positions_of
from streamsvc.records import METADATA, Batch, Span, row_bounds
from streamsvc.sources.kafka.splits import Partition

Records: TypeAlias = "list[Message[bytes, bytes]]"
Headers: TypeAlias = "Sequence[tuple[str, bytes | None]] | None"

FIRST_MS = (date(1, 1, 1) - date(1970, 1, 1)).days * 86_400_000
LAST_MS = (date(9999, 12, 31) - date(1970, 1, 1)).days * 86_400_000 + 86_399_999
"""The years 1 to 9999."""

_MESSAGE_BYTES = 136 + 33
"""What CPython holds for a message beside its payload: the message, and the head of its value."""


HEADERS_SAMPLE = 16
_HEADER_BYTES = 48
"""What librdkafka holds for a header beside its name and value."""


class Run(NamedTuple):
    """Messages of one partition, one after another: records, or one event."""

    partition: Partition
    records: Records
    event: KafkaError | None
    event_offset: int


def runs(messages: Records) -> Iterator[Run]:
    """The runs in a list of messages, in its order.

    Whether a message is a record is asked first: the value of an event is its error text.
    """
    if not any(map(Message.error, messages)):
        yield from _record_runs(messages)
        return
    start = 0
    for place, message in enumerate(messages):
        error = message.error()
        if error is not None:
            yield from _record_runs(messages[start:place])
            yield Run(_partition(message), [], error, offset_of_message(message))
            start = place + 1
    yield from _record_runs(messages[start:])


def _record_runs(messages: Records) -> Iterator[Run]:
    for topic, of_topic in groupby(messages, Message.topic):
        for number, of_partition in groupby(of_topic, Message.partition):
            assert topic is not None
            assert number is not None
            yield Run(Partition(topic, number), list(of_partition), None, -1)


def _partition(message: Message) -> Partition:
    """Of an event: without topic and number if it is about the whole client."""
    number = message.partition()
    return Partition(message.topic() or "", -1 if number is None else number)


def offset_of_message(message: Message) -> int:
    offset = message.offset()
    return -1 if offset is None else offset


def last_offset(records: Records) -> int:
    return offset_of_message(records[-1])


def batch_of(spans: Sequence[Span], records: Records) -> Batch:
    """The records of the spans, one after another, as columns.

    Keys, headers and times are made from the messages when asked for: the batch keeps them until it goes. What headers
    hold is reckoned from every sixteenth record: to look at all of them costs as much as reading them.
    """
    sampled = _headers_of(records[::HEADERS_SAMPLE])
    values = pa.array(list(map(Message.value, records)), pa.binary())
    keys = list(map(Message.key, records))
    return Batch(
        spans=tuple(spans),
        values=values,
        offsets=_offsets(spans, records),
        position_text=positions_of,
        arrivals=lambda: _timestamps(records),
        keys=lambda: pa.array(keys, METADATA["_key"]),
        headers=cache(lambda: _headers(records, sampled)),
        nbytes=2 * values.nbytes
        + sum(map(len, filter(None, keys)))
        + _MESSAGE_BYTES * len(records)
        + HEADERS_SAMPLE * sum(map(_header_bytes, filter(None, sampled))),
    )


def _offsets(spans: Sequence[Span], records: Records) -> pa.Array:
    """int64. Those of a span only rise, so where its first and last are as far apart as it is long, there is no gap."""
    columns = [pa.array([], pa.int64())]
    for span, start, end in row_bounds(spans):
        if span.rows:
            first, last = offset_of_message(records[start]), offset_of_message(records[end - 1])
            whole = last - first == span.rows - 1
            columns.append(
                pa.arange(first, last + 1) if whole else pa.array(map(Message.offset, records[start:end]), pa.int64())
            )
    return pa.concat_arrays(columns)


def _timestamps(records: Records) -> pa.Array:
    """Create time or log-append time, whichever the topic keeps; null if the record has none that a calendar has."""
    pairs = list(map(Message.timestamp, records))
    times = list(map(itemgetter(1), pairs))
    if any(kind == TIMESTAMP_NOT_AVAILABLE for kind, _ in pairs):
        times = [None if kind == TIMESTAMP_NOT_AVAILABLE else time for kind, time in pairs]
    return _of_the_calendar(pa.array(times, pa.int64())).cast(METADATA["_timestamp"])


def _of_the_calendar(times: pa.Array) -> pa.Array:
    """times: int64, milliseconds since the epoch. A producer may give any; outside of the years 1 to 9999 no reader
    of what is written has a date for it, so it becomes null."""
    extremes = pc.min_max(times)
    lowest, highest = extremes["min"].as_py(), extremes["max"].as_py()
    if lowest is None or (lowest >= FIRST_MS and highest <= LAST_MS):
        return times
    fits = pc.and_(pc.greater_equal(times, pa.scalar(FIRST_MS)), pc.less_equal(times, pa.scalar(LAST_MS)))
    return pc.if_else(fits, times, pa.scalar(None, pa.int64()))


def _headers_of(records: Records) -> list[Headers]:
    """To be called once for a message: where a header's name is not UTF-8, confluent-kafka answers with an exception
    set, and hands out a tuple with a hole when asked again. Such a record's headers are lost; what is kept says so.

    ``map`` makes a SystemError of that; a call in a loop that Python has specialised (3.11, a method without arguments)
    looks at nothing, and the exception would come up anywhere."""
    found: list[Headers] = []
    asked = map(Message.headers, records)
    while len(found) < len(records):
        try:
            found.extend(cast("Iterator[Headers]", asked))
        except SystemError:
            found.append([("(a header name was not UTF-8)", None)])
    return found


def _header_bytes(headers: Sequence[tuple[str, bytes | None]]) -> int:
    return sum(_HEADER_BYTES + len(name) + len(value or b"") for name, value in headers)


def _headers(records: Records, sampled: Sequence[Headers]) -> pa.Array:
    headers: list[Headers] = [None] * len(records)
    headers[::HEADERS_SAMPLE] = sampled
    for first in range(1, HEADERS_SAMPLE):
        headers[first::HEADERS_SAMPLE] = _headers_of(records[first::HEADERS_SAMPLE])
    return pa.array(headers, METADATA["_headers"])


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches in read order as one."""
    if len(batches) == 1:
        return batches[0]
    return Batch(
        spans=tuple(chain.from_iterable(batch.spans for batch in batches)),
        values=pa.concat_arrays([batch.values for batch in batches]),
        offsets=pa.concat_arrays([batch.offsets for batch in batches]),
        position_text=positions_of,
        arrivals=lambda: pa.concat_arrays([batch.arrivals() for batch in batches]),
        keys=lambda: pa.concat_arrays([batch.keys() for batch in batches]),
        headers=lambda: pa.concat_arrays([batch.headers() for batch in batches]),
        nbytes=sum(batch.nbytes for batch in batches),
    )
