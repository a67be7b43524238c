"""What a service says of itself: the contract of the HTTP endpoints, and the shape of ``/status``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, Protocol, TypeAlias, TypedDict

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
    parents: NotRequired[list[str]]
    """Of a shard of Kinesis that came from others: from which."""


class ObjectStatus(TypedDict):
    url: str
    rows: int
    nbytes: int
    kind: str


class OpenSegmentStatus(TypedDict):
    records: int
    nbytes: int
    age_s: float


class WindowStatus(TypedDict):
    """``rows``: the first results, as they would be if the window were closed now; ``groups`` are all there are."""

    window_start: str
    window_end: str
    groups: int
    rows: list[dict[str, Any]]
    rows_left_out: int


class WatermarkStatus(TypedDict):
    """How far a windowed pipeline has come, as of then."""

    as_of: str
    """ISO 8601, as all times here."""
    watermark: str | None
    held_by: str | None
    """The split whose watermark that is: no window closes that ends later, with its lateness."""
    held_since: str | None
    """When what brought it so far was planned; ``None``: nothing of the split was ever committed, or not known."""
    open: int
    """Windows."""
    unfinished: int
    """Windows that are closed, and whose results are not written yet: see whether their destination takes them."""


class WindowsStatus(WatermarkStatus):
    """The open windows of a pipeline, as far as they are committed, by any worker."""

    provisional: Literal[True]
    groups: int
    """Of all open windows."""
    windows: list[WindowStatus]
    """Newest first, and not all of them; none, where there are very many groups."""


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
    windows: WindowsStatus | None
    """``None``: it has none, or nothing is known yet."""


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


def open_windows(status: ServiceStatus) -> dict[str, WindowsStatus]:
    """Of every windowed pipeline, as the worker says that has looked last."""
    found: dict[str, WindowsStatus] = {}
    for worker in status["workers"]:
        for name, pipeline in worker["pipelines"].items():
            windows = pipeline["windows"]
            if windows is not None and (name not in found or found[name]["as_of"] < windows["as_of"]):
                found[name] = windows
    return dict(sorted(found.items()))
