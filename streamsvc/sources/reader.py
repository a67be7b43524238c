"""Who reads a source, for whom."""

from __future__ import annotations

from dataclasses import dataclass

from streamsvc.config import Aws
from streamsvc.ops.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads, for whom.

    service, pipeline: name the consumer group or application, unless the configuration does
    instance:          names this worker among the others, the same after a restart
    queue_bytes:       what may be read ahead
    """

    service: str
    pipeline: str
    instance: str
    queue_bytes: int
    aws: Aws
    metrics: Metrics
