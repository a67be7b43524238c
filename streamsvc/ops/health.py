"""What a service says of itself: the contract of the HTTP endpoints, and the shape of ``/status``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias, TypedDict

Problems: TypeAlias = Mapping[str, str]
"""Part of the service (``access: source``) -> what is wrong with it, for people. Empty is good."""


class Health(Protocol):
    """Answers from memory, at once: called on the event loop, several times a second at worst."""

    def live(self) -> Problems:
        """What only a restart mends. A failing store or broker is not among it."""
        ...

    def ready(self) -> Problems:
        """What keeps a pipeline from reading or landing now: no assignment yet, a store or broker that fails."""
        ...

    def metrics(self) -> bytes:
        """Prometheus text format 0.0.4, UTF-8."""
        ...

    def status(self) -> ServiceStatus: ...


class SplitStatus(TypedDict):
    split: str
    position: str
    lag_records: int | None
    lag_milliseconds: int | None
    """Both: ``None`` if the source does not say."""


class ObjectStatus(TypedDict):
    url: str
    rows: int
    nbytes: int
    kind: str


class OpenSegmentStatus(TypedDict):
    records: int
    nbytes: int
    age_s: float


class PipelineStatus(TypedDict):
    source: str
    sink: str
    records_read: int
    rows_landed: int
    rejects: dict[str, int]
    """Reason -> records."""
    splits: list[SplitStatus]
    open_segment: OpenSegmentStatus | None
    landing: bool
    last_commit: str | None
    """ISO 8601, UTC."""
    last_objects: list[ObjectStatus]
    """Newest first."""


class WorkerStatus(TypedDict):
    worker: int
    pid: int
    restarts: int
    memory_used_bytes: int
    memory_budget_bytes: int
    pipelines: dict[str, PipelineStatus]


class ServiceStatus(TypedDict):
    """Counts begin at the worker's start; positions and objects are the log's."""

    service: str
    version: str
    started: str
    """ISO 8601, UTC."""
    workers: list[WorkerStatus]
