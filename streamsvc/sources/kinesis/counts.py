"""What a source counts, and what of it is also said once."""

from __future__ import annotations

import logging
from collections import Counter

from streamsvc.ops.metrics import Metrics

_LOG = logging.getLogger("streamsvc.kinesis")


class Counts:
    def __init__(self, metrics: Metrics, pipeline: str) -> None:
        self._metrics = metrics
        self._pipeline = pipeline
        self._said: set[str] = set()

    def throttled(self) -> None:
        self._metrics.kinesis_throttled.labels(self._pipeline).inc()

    def trimmed(self) -> None:
        self._metrics.kinesis_trimmed.labels(self._pipeline).inc()

    def met(self, counts: Counter[str]) -> None:
        """Of aggregates, by the names of ``core.kpl.UserRecords``."""
        for what, count in counts.items():
            self._metrics.kinesis_aggregates.labels(self._pipeline, what).inc(count)
            if what != "aggregates" and what not in self._said:
                self._said.add(what)
                _LOG.warning("KPL aggregates: %s (%d in this answer; from now on they are only counted)", what, count)
