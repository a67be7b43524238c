"""The composition root: the only module that names concrete adapters."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from streamsvc import config_file
from streamsvc.config import Aws, Pipeline, Rules, Service
from streamsvc.contracts import ObjectStore, Source, Transform
from streamsvc.decoders.build import build as build_decoder
from streamsvc.errors import ConfigError
from streamsvc.log.segment_log import SegmentLog
from streamsvc.ops.metrics import Metrics
from streamsvc.runtime.finishing import Finisher
from streamsvc.runtime.health import Watched, WorkerHealth
from streamsvc.runtime.landing import Identity
from streamsvc.runtime.memory import MemoryBudget
from streamsvc.runtime.observer import Observer
from streamsvc.runtime.pipeline import Pipeline as RunningPipeline
from streamsvc.runtime.pipeline import Policy
from streamsvc.runtime.segment import Recipe
from streamsvc.runtime.worker import Worker
from streamsvc.sinks.objects import ObjectSink
from streamsvc.sinks.rejects import RejectObjects
from streamsvc.sources.kafka.source import KafkaSource
from streamsvc.stores.objects import open_store
from streamsvc.stores.probe import probe
from streamsvc.stores.retrying import RetryingStore, StoreHealth
from streamsvc.transforms.sql import Placement, SqlTransform

UNLIMITED = 2**31
"""Partitions of a segment that is finished: its plan was cut to the limit already."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Which worker of which service. Travels to the worker's process."""

    file: Path
    pipeline: str | None
    until_end: bool
    slot: int
    slots: int

    def in_slot(self, slot: int) -> WorkerSpec:
        return replace(self, slot=slot)


def worker_count(service: Service) -> int:
    return len(os.sched_getaffinity(0)) if service.workers == "auto" else service.workers


def instance_name(slot: int) -> str:
    """One name for each host and slot, the same after a restart: the group keeps a static member's partitions."""
    return f"{os.environ.get('STREAMSVC_INSTANCE') or socket.gethostname()}-{slot}"


def new_segment() -> str:
    """Sorts by time and is unique; reject objects take their date from it."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:12]}"
