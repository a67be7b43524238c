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


class Stores:
    """Every store of a service, opened once an address, retried for ever; failures go to an observer."""

    def __init__(self, aws: Aws, observer: Observer) -> None:
        self._aws = aws
        self._observer = observer
        self._open: dict[str, RetryingStore] = {}

    def __call__(self, url: str, part: str) -> ObjectStore:
        if url not in self._open:
            self._open[url] = RetryingStore(open_store(url, self._aws), lambda health: self._tell(part, health))
        return self._open[url]

    def _tell(self, part: str, health: StoreHealth) -> None:
        if health.error is None:
            self._observer.part_mended(part)
        else:
            self._observer.part_failed(part, health.error.what)


def state_url(service: Service, name: str) -> str:
    return f"{service.state.rstrip('/')}/{name}"


def rejects_url(service: Service, name: str, pipeline: Pipeline) -> str:
    """Rejects are always kept: beside the log, if nowhere else is configured."""
    return pipeline.rejects.path if pipeline.rejects else f"{service.state.rstrip('/')}/rejects/{name}"


def build_recipe(rules: Rules, stores: Callable[[str, str], ObjectStore], *, max_partitions: int) -> Recipe:
    """What one configuration, today's or a stored one, makes of records. Raises ``ValueError`` with a path into it."""
    decoder = build_decoder(rules.decode)
    schema = decoder.schema
    for name in rules.include:
        schema = schema.append(metadata_field(name))
    transforms: list[Transform] = []
    for step in rules.transform:
        transforms.append(SqlTransform(step.sql, schema))
        schema = transforms[-1].schema
    placement = Placement(rules.sink.partition_by, schema) if rules.sink.partition_by else None
    sink = ObjectSink(
        stores(rules.sink.path, "sink"), rules.sink.model_copy(update={"max_partitions": max_partitions}), placement
    )
    return Recipe(
        decoder, tuple(rules.include), tuple(transforms), sink, RejectObjects(stores(rules.rejects, "rejects"))
    )
