"""Results of windows as records of a topic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from types import TracebackType
from typing import Self, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamsvc.core.json_text import json_objects
from streamsvc.errors import StreamsvcError
from streamsvc.records import Finished, ObjectInfo, Window
from streamsvc.sinks.kafka import failures

POLL_S = 0.1

Record: TypeAlias = tuple[str, str]
"""Key and value."""

NewProducer: TypeAlias = Callable[[Callable[[KafkaError], None]], Producer]
"""Given what hears of the client's errors. Raises ``SourceRefused`` if the client cannot be made."""


class KafkaResults:
    """A ``ResultSink``, and an async context manager around its use. The brokers are looked for when the first results
    come; a client that fails is not used again.

    The key of a record is window and group, its value the result, both as JSON objects. Every record has been taken
    by all replicas when ``publish`` returns.
    """

    def __init__(self, new_producer: NewProducer, topic: str, brokers: str) -> None:
        self._new_producer = new_producer
        self._topic = topic
        self._brokers = brokers
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"results-{topic}")
        self._client: _Client | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.submit(self._let_go)
        self._thread.shutdown(wait=False)

    async def publish(self, window: Window, results: Finished) -> list[ObjectInfo]:
        given_up = Event()
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._send, results, given_up)
        finally:
            given_up.set()
        return []

    def _send(self, results: Finished, given_up: Event) -> None:
        if not results.rows.num_rows:
            return
        client = self._client = self._client or _Client(self._new_producer)
        try:
            client.send(self._topic, _records(results), given_up)
        except KafkaException as error:
            self._let_go()
            raise self._explained(error, client) from None

    def _explained(self, error: KafkaException, client: _Client) -> StreamsvcError:
        cause = error.args[0] if error.args else None
        cause = cause if isinstance(cause, KafkaError) else KafkaError(KafkaError.UNKNOWN, str(error))
        return failures.explained(cause, self._topic, self._brokers, was_connected=client.was_connected)

    def _let_go(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


@dataclass(slots=True)
class _Batch:
    """Records on their way: how many, and why the first of those that failed did."""

    waiting: int = 0
    failure: KafkaError | None = None

    def on_delivery(self, error: KafkaError | None, _: Message) -> None:
        self.waiting -= 1
        self.failure = self.failure or error


class _Client:
    """A producer and what it says. One thread uses it. Raises ``KafkaException``, and is then done with."""

    def __init__(self, new_producer: NewProducer) -> None:
        self._trouble: KafkaError | None = None
        self.was_connected = False
        self._producer = new_producer(self._on_error)

    def send(self, topic: str, records: Iterator[Record], given_up: Event) -> None:
        """Returns when all have been taken, or the caller has given up."""
        self._trouble = None
        batch = _Batch()
        for key, value in records:
            while not self._queued(topic, key, value, batch) and not given_up.is_set():
                self._wait(batch)
        while batch.waiting and not given_up.is_set():
            self._wait(batch)

    def close(self) -> None:
        """What is still on its way is dropped."""
        self._producer.purge()
        self._producer.poll(0)

    def _queued(self, topic: str, key: str, value: str, batch: _Batch) -> bool:
        try:
            self._producer.produce(topic, value.encode(), key.encode(), on_delivery=batch.on_delivery)
        except BufferError:
            return False
        batch.waiting += 1
        return True

    def _wait(self, batch: _Batch) -> None:
        waiting = batch.waiting
        self._producer.poll(POLL_S)
        self.was_connected |= batch.waiting < waiting and batch.failure is None
        if batch.failure is not None:
            timed_out = batch.failure.code() == KafkaError._MSG_TIMED_OUT
            raise KafkaException((timed_out and self._trouble) or batch.failure)
        if self._trouble is not None and not self.was_connected and failures.is_no_entry(self._trouble):
            raise KafkaException(self._trouble)

    def _on_error(self, error: KafkaError) -> None:
        """The last is most often the cause of a time-out."""
        if self._trouble is None or not failures.is_no_entry(self._trouble):
            self._trouble = error


def _records(results: Finished) -> Iterator[Record]:
    keys = iter(results.keys().to_pylist())
    for batch in results.rows.to_batches():
        yield from zip(keys, json_objects(batch).to_pylist(), strict=False)
