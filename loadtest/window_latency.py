"""How long after the watermark has passed the end of a window its result is visible."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
from confluent_kafka import KafkaError, Message, Producer

from loadtest.chaos import Workers
from loadtest.window_stage import WindowStage

_PARTITIONS = 4
_LINES_A_TICK = 25
_TICK_S = 0.1
_SIZE_S = 10
_DISORDER_S = 1


@dataclass(frozen=True)
class Latency:
    """Seconds, of each window."""

    seconds: list[float]

    def __str__(self) -> str:
        p50, most = statistics.median(self.seconds), max(self.seconds)
        return f"{len(self.seconds)} windows, results visible p50 {p50:.1f} s, max {most:.1f} s after the watermark"


class _Clocked:
    """Lines of now, and when each partition's first line of each second was acknowledged."""

    def __init__(self, stage: WindowStage) -> None:
        self._topic = stage.topic
        self._kafka = Producer({"bootstrap.servers": stage.brokers, "acks": "all", "linger.ms": 0})
        self.first_at: list[dict[int, float]] = [{} for _ in range(_PARTITIONS)]

    def tick(self, moment: datetime) -> None:
        second = int(moment.timestamp())
        text = f'10.0.0.1 - - [{moment:%d/%b/%Y:%H:%M:%S +0000}] "GET / HTTP/1.1" 200 1234 "-" "curl/8.0"'.encode()

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            partition = message.partition()
            if error is None and partition is not None:
                self.first_at[partition].setdefault(second, time.time())

        for number in range(_LINES_A_TICK):
            self._kafka.produce(self._topic, text, partition=number % _PARTITIONS, on_delivery=on_delivery)
        self._kafka.poll(0)

    def passed_at(self, second: int) -> float | None:
        """When the last partition got a line of this second or a later one."""
        times = [min((at for s, at in first.items() if s >= second), default=None) for first in self.first_at]
        known = [at for at in times if at is not None]
        return max(known) if len(known) == len(times) else None


def measure_latency(stage: WindowStage, duration: timedelta) -> Latency:
    """Windows of ``_SIZE_S`` without lateness, by one worker; those that were whole while it ran."""
    workers = Workers(stage, stage.configuration("worker"))
    workers.start("left")
    lines = _Clocked(stage)
    began = time.time()
    try:
        while time.time() < began + duration.total_seconds():
            lines.tick(datetime.now(UTC))
            time.sleep(_TICK_S)
        time.sleep(10.0)
    finally:
        workers.end()
    seconds = []
    for path in Path(urlsplit(stage.store.lake).path).rglob("*.parquet"):
        end = int(pq.read_table(path, columns=["window_end"])["window_end"][0].as_py().timestamp())
        passed = lines.passed_at(end + _DISORDER_S)
        if passed is not None and end - _SIZE_S > began + _SIZE_S:
            seconds.append(path.stat().st_mtime - passed)
    return Latency(seconds)
