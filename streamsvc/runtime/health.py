"""The state of a service as its HTTP endpoints tell it: of one worker, or of all of them."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import add
from pathlib import Path
from time import time

from streamsvc import __version__
from streamsvc.contracts import Lag, Source
from streamsvc.core.log_keys import Cursor
from streamsvc.ops.health import PipelineStatus, Problems, ServiceStatus, SplitStatus, WorkerStatus
from streamsvc.ops.metrics import Metrics, merge_expositions
from streamsvc.records import Split
from streamsvc.runtime.closing import Progress
from streamsvc.runtime.memory import MemoryBudget
from streamsvc.runtime.observer import Observer, Summary
from streamsvc.runtime.pipeline import Pipeline
from streamsvc.runtime.supervisor import Report, Supervisor


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Watched:
    """A running pipeline and what is known of it. ``source`` and ``sink`` are addresses for people."""

    pipeline: Pipeline
    observer: Observer
    reads: Source
    source: str
    sink: str

    def problems(self) -> dict[str, str]:
        """What keeps it from reading or landing now."""
        found = dict(self.observer.problems)
        if self.reads.problem is not None:
            found["source"] = self.reads.problem
        return found

    def status(self) -> PipelineStatus:
        splits, parents = self.pipeline.splits, self.reads.parents()
        return PipelineStatus(
            source=self.source,
            sink=self.sink,
            records_read=self.observer.records_read,
            rows_landed=self.observer.summary.rows,
            rejects=dict(self.observer.rejects),
            splits=[
                _split_status(split, splits.cursors.get(split), lag, parents.get(split, frozenset()))
                for split, lag in self._lags(splits.assigned)
            ],
            open_segment=self.pipeline.open_segment(),
            landing=self.pipeline.landing,
            last_commit=self.observer.last_commit(),
            last_objects=list(self.observer.last_objects),
            windows=self.pipeline.open_windows(),
        )

    def _lags(self, splits: Iterable[Split]) -> list[tuple[Split, Lag]]:
        return [(split, self.observer.lags.get(split, Lag())) for split in sorted(splits)]


def _split_status(split: Split, cursor: Cursor | None, lag: Lag, parents: frozenset[Split]) -> SplitStatus:
    status = SplitStatus(
        split=split,
        position=cursor.position if cursor else "",
        lag_records=lag.records,
        lag_milliseconds=lag.milliseconds,
    )
    if parents:
        status["parents"] = sorted(parents)
    return status


class WorkerHealth:
    """``ops.health.Health`` of this process, from before its first pipeline is open."""

    def __init__(
        self,
        metrics: Metrics,
        budget: MemoryBudget,
        observers: Mapping[str, Observer],
        slot: int = 0,
        clock: Callable[[], float] = time,
    ) -> None:
        self._metrics = metrics
        self._budget = budget
        self._observers = observers
        self._watched: dict[str, Watched] = {}
        self._slot = slot
        self._clock = clock
        self._marked: dict[str, set[Split]] = {}
        self._started = _now()
        metrics.memory_budget_bytes.set(budget.limit_bytes)

    def watch(self, name: str, watched: Watched) -> None:
        """This pipeline is open."""
        self._watched[name] = watched

    def live(self) -> Problems:
        """The event loop turns, or nobody would answer; a pipeline that fails ends the process."""
        return {}

    def ready(self) -> Problems:
        return {
            f"{name}: {part}": problem
            for name, observer in self._observers.items()
            for part, problem in self._problems(name, observer).items()
        }

    def _problems(self, name: str, observer: Observer) -> Problems:
        if name in self._watched:
            return self._watched[name].problems()
        return {"start": "not open yet", **observer.problems}

    def metrics(self) -> bytes:
        self._metrics.ready.set(not self.ready())
        self._metrics.memory_used_bytes.set(self._budget.held_bytes)
        for name, watched in self._watched.items():
            self._metrics.oldest_unlanded_seconds.labels(name).set(watched.pipeline.oldest_unlanded_s())
            if (progress := watched.pipeline.windows_progress()) is not None:
                self._show_windows(name, progress, watched.pipeline.splits.assigned)
        return self._metrics.exposition()

    def _show_windows(self, name: str, progress: Progress, owned: Collection[Split]) -> None:
        """What is not known any more is not shown."""
        metrics, now = self._metrics, self._clock()
        metrics.open_windows.labels(name).set(progress.open)
        age = 0.0 if progress.oldest_end is None else now - progress.oldest_end / 1_000_000
        metrics.oldest_unfinished_window_seconds.labels(name).set(max(0.0, age))
        if progress.watermark is None:
            metrics.watermark_seconds.remove(name)
            metrics.watermark_behind_seconds.remove(name)
        else:
            metrics.watermark_seconds.labels(name).set(progress.watermark / 1_000_000)
            metrics.watermark_behind_seconds.labels(name).set(now - progress.watermark / 1_000_000)
        marks = {split: us for split, us in progress.watermarks.items() if split in owned}
        for split in self._marked.get(name, set()) - marks.keys():
            metrics.split_watermark_seconds.remove(name, split)
        for split, us in marks.items():
            metrics.split_watermark_seconds.labels(name, split).set(us / 1_000_000)
        self._marked[name] = set(marks)

    def worker_status(self) -> WorkerStatus:
        return WorkerStatus(
            worker=self._slot,
            pid=os.getpid(),
            restarts=0,
            memory_used_bytes=self._budget.held_bytes,
            memory_budget_bytes=self._budget.limit_bytes,
            pipelines={name: watched.status() for name, watched in self._watched.items()},
        )

    def status(self) -> ServiceStatus:
        return ServiceStatus(
            service=self._metrics.service,
            version=__version__,
            started=self._started,
            workers=[self.worker_status()],
        )

    def summary(self) -> Summary:
        """Of all pipelines, with what the process used so far."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        process = Summary(cpu_seconds=used.ru_utime + used.ru_stime, peak_rss_bytes=_peak_rss_bytes())
        return reduce(add, (observer.summary for observer in self._observers.values()), process)

    def report(self) -> Report:
        return Report(
            live=dict(self.live()),
            ready=dict(self.ready()),
            metrics=self.metrics().decode(),
            status=self.worker_status(),
            summary=self.summary(),
        )


def _peak_rss_bytes() -> int:
    """``getrusage`` would remember how large the process was that started this one (Linux, proc(5): VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


class SupervisorHealth:
    """``ops.health.Health`` of a service of several processes, from their reports."""

    def __init__(self, service: str, supervisor: Supervisor) -> None:
        self._service = service
        self._supervisor = supervisor
        self._started = _now()

    def live(self) -> Problems:
        return self._supervisor.live()

    def ready(self) -> Problems:
        return self._supervisor.ready()

    def metrics(self) -> bytes:
        texts = {str(slot.number): slot.last.metrics for slot in self._supervisor.slots if slot.last}
        return merge_expositions(texts).encode()

    def status(self) -> ServiceStatus:
        workers = []
        for slot in self._supervisor.slots:
            if slot.last is not None:
                status = slot.last.status
                status["restarts"] = slot.restarts
                workers.append(status)
        return ServiceStatus(service=self._service, version=__version__, started=self._started, workers=workers)

    def summary(self) -> Summary:
        return reduce(add, (slot.last.summary for slot in self._supervisor.slots if slot.last), Summary())
