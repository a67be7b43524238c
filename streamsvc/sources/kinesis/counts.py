"""What a source counts, and what of it is also said once."""

from __future__ import annotations

import logging
from collections import Counter

from streamsvc.ops.metrics import Metrics
from streamsvc.records import Split

_LOG = logging.getLogger("streamsvc.kinesis")


class Counts:
    def __init__(self, metrics: Metrics, pipeline: str) -> None:
        self._metrics = metrics
        self._pipeline = pipeline
        self._said: set[str] = set()

    def throttled(self) -> None:
        self._metrics.kinesis_throughput_exceeded.labels(self._pipeline).inc()

    def answered(self, records: int, nbytes: int, seconds: float) -> None:
        """A GetRecords call."""
        self._metrics.kinesis_get_records.labels(self._pipeline, "success").inc()
        self._metrics.kinesis_get_records_latency_seconds.labels(self._pipeline).observe(seconds)
        self._received("GetRecords", records, nbytes)

    def failed(self) -> None:
        """A GetRecords call, refused or not answered."""
        self._metrics.kinesis_get_records.labels(self._pipeline, "failed").inc()

    def subscribed(self, *, succeeds: bool) -> None:
        self._metrics.kinesis_subscriptions.labels(self._pipeline, "success" if succeeds else "failed").inc()

    def pushed(self, records: int, nbytes: int) -> None:
        """An event of a subscription."""
        self._metrics.kinesis_events.labels(self._pipeline).inc()
        self._received("SubscribeToShardEvent", records, nbytes)

    def _received(self, operation: str, records: int, nbytes: int) -> None:
        self._metrics.kinesis_records.labels(self._pipeline, operation).inc(records)
        self._metrics.kinesis_bytes.labels(self._pipeline, operation).inc(nbytes)

    def behind(self, split: Split, milliseconds: int | None) -> None:
        """``None``: it is read no longer."""
        if milliseconds is None:
            self._metrics.kinesis_behind.remove(self._pipeline, split)
        else:
            self._metrics.kinesis_behind.labels(self._pipeline, split).set(milliseconds)

    def leases(self, *, held: int, taken: int = 0, lost: int = 0) -> None:
        """They have changed. held: how many there are now"""
        self._metrics.kinesis_leases_held.labels(self._pipeline).set(held)
        self._metrics.kinesis_leases_taken.labels(self._pipeline).inc(taken)
        self._metrics.kinesis_leases_lost.labels(self._pipeline).inc(lost)

    def trimmed(self) -> None:
        self._metrics.kinesis_trimmed.labels(self._pipeline).inc()

    def met(self, counts: Counter[str]) -> None:
        """Of aggregates, by the names of ``core.kpl.UserRecords``."""
        for what, count in counts.items():
            self._metrics.kinesis_aggregates.labels(self._pipeline, what).inc(count)
            if what != "aggregates" and what not in self._said:
                self._said.add(what)
                _LOG.warning("KPL aggregates: %s (%d in this answer; from now on they are only counted)", what, count)
