"""A windowed pipeline on a topic, and a storm around it: kills, and a member that comes and goes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, Message, Producer

from loadtest.chaos import INSTANCES, Workers, wait_until
from loadtest.stage import PIPELINE, Stage, local_store

_MEMBER_FOR_S = 2.0
_PAUSE_S = (1.0, 8.0)


@dataclass(frozen=True, kw_only=True)
class WindowStage(Stage):
    """Requests and bytes by response. ``window``: settings that are not the usual ones."""

    window: dict[str, Any] = field(default_factory=dict)
    commit_every: str = "5s"

    @property
    def group(self) -> str:
        """Of the workers' consumers."""
        return f"loadtest-{self.topic}.{PIPELINE}"

    def pipeline(self, interval: str) -> dict[str, Any]:
        window = {
            "tumble": "5m",
            "time": "datetime",
            "disorder": "60s",
            "lateness": "30s",
            "group_by": ["response"],
            "aggregate": {"requests": "count(*)", "bytes": "sum(bytes)"},
            "interval": self.commit_every,
            "late": {"path": f"{self.store.url}/late"},
        }
        pipeline = super().pipeline(interval)
        return {**pipeline, "window": {**window, **self.window}, "sink": {"path": self.store.lake}}


@contextmanager
def window_stage(
    directory: Path, brokers: str, topic: str, interval: str = "5s", **window: Any
) -> Iterator[WindowStage]:
    """With a lake on this machine's disk. interval: between two commits."""
    directory.mkdir()
    with local_store(directory) as store:
        yield WindowStage(
            directory=directory, brokers=brokers, topic=topic, store=store, window=window, commit_every=interval
        )


class LineProducer:
    """Lines into a topic, each in the next of its 4 partitions. Raises ``RuntimeError`` if one was not taken."""

    def __init__(self, brokers: str, topic: str, partitions: int = 4) -> None:
        settings = {"bootstrap.servers": brokers, "acks": "all", "enable.idempotence": True, "linger.ms": 5}
        self._kafka = Producer({**settings, "queue.buffering.max.messages": 500_000, "compression.type": "lz4"})
        self._topic = topic
        self._partitions = partitions
        self._refused: KafkaError | None = None
        self.sent = 0

    def send(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._kafka.produce(
                self._topic, line, partition=self.sent % self._partitions, on_delivery=self._on_delivery
            )
            self.sent += 1
            if self.sent % 10_000 == 0:
                while len(self._kafka) > 200_000:
                    self._kafka.poll(0.05)
        self._kafka.poll(0)

    def flush(self) -> None:
        self._kafka.flush()
        if self._refused is not None:
            raise RuntimeError(f"topic {self._topic}: {self._refused}")

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        self._refused = self._refused or error


def produce(brokers: str, topic: str, lines: Sequence[bytes]) -> None:
    """All of them, as fast as can be."""
    producer = LineProducer(brokers, topic)
    producer.send(lines)
    producer.flush()


class Storm:
    """Two workers, lines that come at a rate, and another member of the group, which joins for two seconds and leaves
    for two. A context manager: everything has ended after the block."""

    def __init__(self, stage: WindowStage, lines: Sequence[bytes], rate: float, seed: int) -> None:
        self._stage = stage
        self._lines = lines
        self._rate = rate
        self._chance = random.Random(seed)
        self._over = threading.Event()
        self._failures: list[BaseException] = []
        self._producing = threading.Thread(target=self._noting, args=(self._produce,))
        self._guest = threading.Thread(target=self._noting, args=(self._come_and_go,))
        self._workers = Workers(stage, stage.configuration("workers"))
        self.joins = 0
        self.leaves = 0

    def __enter__(self) -> Self:
        for instance in INSTANCES:
            self._workers.start(instance)
        self._producing.start()
        self._guest.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._guest.join()
        self._producing.join()
        self._workers.end()

    def kill(self, kills: int) -> dict[str, int]:
        """At random, each worker started again at once; how often each."""
        counted = dict.fromkeys(INSTANCES, 0)
        while sum(counted.values()) < kills:
            time.sleep(self._chance.uniform(*_PAUSE_S))
            self._check()
            instance = self._chance.choice(INSTANCES)
            self._workers[instance].kill()
            counted[instance] += 1
            self._workers.start(instance)
        return counted

    def wait_until_produced(self, limit_s: float) -> None:
        wait_until("all lines are produced", limit_s, lambda: self._check() or not self._producing.is_alive())

    def drain(self) -> None:
        """The guest goes, and the workers land what is open."""
        self._over.set()
        self._guest.join()
        self._workers.drain()
        self._check()

    def _check(self) -> bool:
        """False, or it raises what a thread or a worker has failed of."""
        if self._failures:
            raise self._failures[0]
        if not self._over.is_set():
            self._workers.check()
        return False

    def _noting(self, work: Any) -> None:
        try:
            work()
        except (RuntimeError, BufferError) as failure:
            self._failures.append(failure)

    def _produce(self) -> None:
        producer = LineProducer(self._stage.brokers, self._stage.topic)
        began, chunk = time.monotonic(), max(1, int(self._rate / 10))
        for first in range(0, len(self._lines), chunk):
            if self._over.is_set():
                break
            producer.send(self._lines[first : first + chunk])
            time.sleep(max(0.0, began + producer.sent / self._rate - time.monotonic()))
        producer.flush()

    def _come_and_go(self) -> None:
        while not self._over.wait(_MEMBER_FOR_S):
            guest = Consumer(
                {
                    "bootstrap.servers": self._stage.brokers,
                    "group.id": self._stage.group,
                    "partition.assignment.strategy": "cooperative-sticky",
                    "enable.auto.commit": False,
                    "session.timeout.ms": 6000,
                }
            )
            guest.subscribe([self._stage.topic])
            self.joins += 1
            leave_at = time.monotonic() + _MEMBER_FOR_S
            while time.monotonic() < leave_at and not self._over.is_set():
                guest.poll(0.1)
            guest.close()
            self.leaves += 1
