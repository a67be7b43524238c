"""What a pipeline says of itself: metrics, log lines, the live status, and the summary of a run."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time

import structlog

from streamsvc.contracts import Lag
from streamsvc.core.segments import Outcome, Plan
from streamsvc.core.windows.assignment import window_name
from streamsvc.core.windows.control import Result
from streamsvc.errors import Retryable
from streamsvc.ops.health import ObjectStatus
from streamsvc.ops.metrics import Metrics
from streamsvc.records import Batch, ObjectInfo, Split
from streamsvc.runtime.segment import Tally

LAST_OBJECTS = 20


@dataclass(slots=True)
class Summary:
    """What a run has done. Times are Unix seconds; ``None``: it has not happened."""

    records: int = 0
    rows: int = 0
    rejects: int = 0
    segments: int = 0
    first_read: float | None = None
    last_outcome: float | None = None
    cpu_seconds: float = 0.0
    peak_rss_bytes: int = 0

    def __add__(self, other: Summary) -> Summary:
        firsts = [at for at in (self.first_read, other.first_read) if at is not None]
        lasts = [at for at in (self.last_outcome, other.last_outcome) if at is not None]
        return Summary(
            records=self.records + other.records,
            rows=self.rows + other.rows,
            rejects=self.rejects + other.rejects,
            segments=self.segments + other.segments,
            first_read=min(firsts, default=None),
            last_outcome=max(lasts, default=None),
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            peak_rss_bytes=self.peak_rss_bytes + other.peak_rss_bytes,
        )


class Observer:
    """One a pipeline. Called on the event loop."""

    def __init__(self, pipeline: str, metrics: Metrics) -> None:
        self._pipeline = pipeline
        self._metrics = metrics
        self._log = structlog.get_logger("streamsvc.pipeline").bind(pipeline=pipeline)
        self.summary = Summary()
        self.records_read = 0
        self.rejects: Counter[str] = Counter()
        self.last_objects: deque[ObjectStatus] = deque(maxlen=LAST_OBJECTS)
        self.problems: dict[str, str] = {}
        self.lags: Mapping[Split, Lag] = {}
        self.was_assigned = False

    def read(self, batch: Batch) -> None:
        """Records came from the source."""
        if self.summary.first_read is None and len(batch):
            self.summary.first_read = time()
        self.records_read += len(batch)
        self._metrics.records_read.labels(self._pipeline).inc(len(batch))
        self._metrics.read_bytes.labels(self._pipeline).inc(batch.nbytes)

    def assigned(self, splits: int, change: str, which: list[str]) -> None:
        self.was_assigned = True
        self._metrics.splits_owned.labels(self._pipeline).set(splits)
        self._log.info(f"splits {change}", splits=which, owned=splits)

    def cut(self, reason: str) -> None:
        self._metrics.cuts.labels(self._pipeline, reason).inc()

    def waited_for_memory(self, seconds: float) -> None:
        self._metrics.memory_wait_seconds.labels(self._pipeline).inc(seconds)

    def landed(self, outcome: Outcome, tally: Tally, *, reason: str, seconds: float) -> None:
        """A segment that this worker cut has an outcome."""
        self._metrics.segments.labels(self._pipeline, outcome.state).inc()
        self._metrics.landing_seconds.labels(self._pipeline).observe(seconds)
        self._metrics.column_cpu_seconds.labels(self._pipeline).inc(tally.cpu_seconds)
        if not outcome.committed:
            self._log.warning("segment aborted", segment=outcome.segment, why=outcome.reason, records=tally.records)
            return
        rows = self._count_objects(outcome.objects)
        for why, count in tally.rejects.items():
            self._metrics.rejects.labels(self._pipeline, why).inc(count)
        self._metrics.late_rows.labels(self._pipeline).inc(tally.late)
        self.rejects.update(tally.rejects)
        self.summary.records += tally.records
        self.summary.rows += rows
        self.summary.rejects += tally.rejects.total()
        self.summary.segments += 1
        self.summary.last_outcome = time()
        self._metrics.last_commit_seconds.labels(self._pipeline).set(self.summary.last_outcome)
        self._log.info(
            "segment committed",
            segment=outcome.segment,
            cut_by=reason,
            records=tally.records,
            rows=rows,
            rejects=tally.rejects.total(),
            objects=len(outcome.objects),
            seconds=round(seconds, 3),
        )

    def _count_objects(self, objects: list[ObjectInfo]) -> int:
        rows = sum(item.rows for item in objects if item.kind == "data")
        self._metrics.rows_landed.labels(self._pipeline).inc(rows)
        self._metrics.landed_bytes.labels(self._pipeline).inc(sum(item.nbytes for item in objects))
        self._metrics.objects_landed.labels(self._pipeline).inc(len(objects))
        for item in objects:
            self.last_objects.appendleft(ObjectStatus(url=item.url, rows=item.rows, nbytes=item.nbytes, kind=item.kind))
        return rows

    def window_finished(self, result: Result) -> None:
        """The results of a window are where they belong."""
        self._metrics.windows_finished.labels(self._pipeline).inc()
        self._metrics.window_faults.labels(self._pipeline).inc(len(result.faults))
        self.summary.rows += result.rows
        self._metrics.rows_landed.labels(self._pipeline).inc(result.rows - self._count_objects(result.objects))
        window = window_name(result.window.start_us)
        self._log.info("window finished", window=window, rows=result.rows, objects=len(result.objects))
        for fault in result.faults:
            self._log.warning("a group of a window has no result", window=window, fault=fault)

    def windows_wait(self, split: Split | None, windows: int) -> None:
        """All is read, and windows stay open: a split has not been lifted yet."""
        self._log.warning(
            "windows cannot be closed: a split holds them back",
            split=split,
            windows=windows,
            hint="Its owner will let them close. If the split is gone for good: streamsvc end-split",
        )

    def finishing(self, plan: Plan) -> None:
        """A segment of another worker is read and written again."""
        self._metrics.segments_finished.labels(self._pipeline).inc()
        self._log.info("finishing a segment", segment=plan.segment, planned_by=plan.worker, splits=list(plan.ranges))

    def fenced(self) -> None:
        self._metrics.fenced.labels(self._pipeline).inc()
        self._log.warning(
            "fenced: another worker has had one of our splits", hint="Nothing is lost; the splits are read again."
        )

    def part_failed(self, part: str, problem: str) -> None:
        """A store or the source does not answer; it is tried again until it does."""
        if part not in self.problems:
            self._log.warning(f"{part} fails", problem=problem, hint="It is tried again for ever.")
        self.problems[part] = problem
        self._metrics.retries.labels(self._pipeline, part).inc()

    def retrying(self, part: str, error: Retryable) -> None:
        """A call has failed and is made again; the part says by itself whether it is well."""
        self._metrics.retries.labels(self._pipeline, part).inc()
        self._log.warning(f"{part} does not answer", problem=error.what, hint="It is asked again for ever.")

    def results_failed(self, error: Retryable | None) -> None:
        """The sink of results does not answer; ``None``: it does again."""
        if error is None:
            self.part_mended("results")
        else:
            self.part_failed("results", str(error))

    def part_mended(self, part: str) -> None:
        if self.problems.pop(part, None) is not None:
            self._log.info(f"{part} answers again")

    def lag(self, lags: Mapping[Split, Lag]) -> None:
        """How far what has landed of each owned split is behind the source."""
        for split in self.lags.keys() - lags.keys():
            self._metrics.forget_split(self._pipeline, split)
        self.lags = lags
        for split, lag in lags.items():
            if lag.records is not None:
                self._metrics.source_lag_records.labels(self._pipeline, split).set(lag.records)
            if lag.milliseconds is not None:
                self._metrics.source_lag_milliseconds.labels(self._pipeline, split).set(lag.milliseconds)

    def last_commit(self) -> str | None:
        at = self.summary.last_outcome
        return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
