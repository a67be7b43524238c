"""The stamping producer: access logs into a Kafka topic, each record stamped, each acknowledgement in a ledger.

``python -m loadtest.produce --brokers 127.0.0.1:9092 --topic access --ledger run.ledger --records 1000000``

It stops at ``--records``, or at SIGTERM or SIGINT with all that was sent acknowledged, and prints a summary as JSON.
Every record goes to a named partition, in turn, with ``acks=all`` and idempotence, and is tried for ever.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer

from loadtest.ledger import LedgerWriter
from loadtest.stamps import seq_of, stamped
from streamsvc.testing.access_logs import AccessLogs, Form

_CHUNK = 2_000


@dataclass(frozen=True)
class Order:
    """What is to be produced. ``records`` and ``rate`` (records a second): 0 means without limit."""

    brokers: str
    topic: str
    ledger: Path
    producer: str = "p0"
    form: Form = "combined"
    records: int = 0
    rate: float = 0.0
    splits: int = 0
    seed: int = 1
    malformed_share: float = 0.001
    start: datetime = datetime(2026, 11, 24, 22, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Produced:
    """What was."""

    records: int
    malformed: int
    bytes: int
    seconds: float


class ProduceFailed(Exception):
    """The broker refused a record for good."""


class StampingProducer:
    """Fills one order. Not thread-safe, except for ``stop``."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._logs = AccessLogs(order.seed, order.start, form=order.form, malformed_share=order.malformed_share)
        self._kafka = Producer(
            {
                "bootstrap.servers": order.brokers,
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": 0,
                "linger.ms": 5,
                "queue.buffering.max.messages": 200_000,
                "compression.type": "lz4",
            }
        )
        self._stopping = False
        self._failure: KafkaError | None = None
        self._bytes = 0

    def stop(self) -> None:
        """Send no more; from any thread or a signal handler."""
        self._stopping = True

    def run(self) -> Produced:
        """Raises ``ProduceFailed``; what was acknowledged before is in the ledger."""
        order = self._order
        splits = order.splits or self._count_partitions()
        about = {"topic": order.topic, "form": order.form, "seed": order.seed, "splits": splits}
        began = time.monotonic()
        with LedgerWriter(order.ledger, order.producer, about) as self._ledger:
            while not self._stopping and self._logs.made != (order.records or -1):
                self._send_chunk(splits)
                self._ledger.flush()
                self._check()
                if order.rate:
                    time.sleep(max(0.0, began + self._logs.made / order.rate - time.monotonic()))
            while self._kafka.flush(1.0) and self._failure is None:
                self._ledger.flush()
        self._check()
        return Produced(self._logs.made, len(self._logs.malformed), self._bytes, time.monotonic() - began)

    def _count_partitions(self) -> int:
        topic = self._kafka.list_topics(self._order.topic, timeout=30).topics[self._order.topic]
        if topic.error is not None:
            raise ProduceFailed(f"topic {self._order.topic}: {topic.error}")
        return len(topic.partitions)

    def _send_chunk(self, splits: int) -> None:
        """Record ``n`` of the log is record ``n // splits`` of split ``n % splits``."""
        order, first = self._order, self._logs.made
        count = min(_CHUNK, order.records - first) if order.records else _CHUNK
        if order.rate:
            count = max(1, min(count, int(order.rate / 10)))
        lines = self._logs.lines(count)
        bad = [number for number in range(first, first + count) if number in self._logs.malformed]
        for split in {number % splits for number in bad}:
            self._ledger.malformed(split, [number // splits for number in bad if number % splits == split])
        for number, line in enumerate(lines, first):
            seq, split = divmod(number, splits)
            value = stamped(line, order.producer, split, seq)
            self._bytes += len(value)
            self._send(split, value)
        self._kafka.poll(0)

    def _send(self, split: int, value: bytes) -> None:
        while True:
            try:
                self._kafka.produce(self._order.topic, value, partition=split, on_delivery=self._on_delivery)
            except BufferError:
                self._kafka.poll(0.1)
                self._check()
            else:
                return

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = error
            return
        value, split = message.value(), message.partition()
        assert value is not None
        assert split is not None
        self._ledger.acked(split, seq_of(value))

    def _check(self) -> None:
        if self._failure is not None:
            raise ProduceFailed(f"topic {self._order.topic}: {self._failure}")


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.produce", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True, help="must exist")
    parser.add_argument("--ledger", required=True, type=Path, help="a new file")
    parser.add_argument("--producer", default=Order.producer, help="name in the stamps; one a ledger")
    parser.add_argument("--form", choices=("combined", "json"), default=Order.form)
    parser.add_argument("--records", type=int, default=Order.records, help="how many; 0: until stopped")
    parser.add_argument("--rate", type=float, default=Order.rate, help="records a second; 0: as fast as can be")
    parser.add_argument("--splits", type=int, default=Order.splits, help="partitions to use; 0: all")
    parser.add_argument("--seed", type=int, default=Order.seed)
    parser.add_argument("--malformed-share", type=float, default=Order.malformed_share)
    parser.add_argument("--start", type=_utc, default=Order.start, help="time of the first line, ISO 8601")
    producer = StampingProducer(Order(**vars(parser.parse_args(arguments))))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: producer.stop())
    try:
        print(json.dumps(asdict(producer.run())), flush=True)
    except ProduceFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
