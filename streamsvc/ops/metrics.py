"""Every metric, once: name, unit, meaning, labels. ``docs/metrics.md`` is made from this module.

One ``Metrics`` a process, with a registry of its own. Several workers are shown as one by ``merge_expositions``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from streamsvc import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What ``exposition`` and ``merge_expositions`` answer."""

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LANDING_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0)


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric as the catalogue lists it. ``name`` is as a query writes it, ``labels`` without ``service``."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...]


class Metrics:
    """The catalogue as attributes. Update a metric through its labels: ``metrics.rejects.labels(pipeline, reason)``.

    Safe from any thread. Each sample carries the label ``service`` when it is exposed.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.catalogue: list[Definition] = []
        self._registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self._registry)

        self._define_process()
        self._define_reading()
        self._define_landing()
        self._define_windows()
        self._define_kinesis()
        self._define_kinesis_trouble()
        self._define_trouble()

    def _define_process(self) -> None:
        self.build = self._gauge("build_info", "", "Always 1; the label names the running version.", "version")
        self.build.labels(__version__).set(1)
        self.ready = self._gauge("ready", "0 or 1", "1 while every pipeline reads and lands; else see `/readyz`.")
        self.memory_used_bytes = self._gauge("memory_used_bytes", "bytes", "Buffered records and encoded objects.")
        self.memory_budget_bytes = self._gauge("memory_budget_bytes", "bytes", "What may be buffered: `memory`.")

    def _define_reading(self) -> None:
        self.records_read = self._counter("records_read_total", "records", "Records taken from the source.", "pipeline")
        self.read_bytes = self._counter(
            "read_bytes_total", "bytes", "Bytes of the values of these records.", "pipeline"
        )
        self.splits_owned = self._gauge("splits_owned", "splits", "Splits assigned to this worker.", "pipeline")
        self.source_lag_records = self._gauge(
            "source_lag_records",
            "records",
            "Records of an owned split that are in the source and have not landed.",
            "pipeline",
            "split",
        )
        self.source_lag_milliseconds = self._gauge(
            "source_lag_milliseconds",
            "milliseconds",
            "How far the reading of an owned shard is behind its tip, whatever reads it.",
            "pipeline",
            "split",
        )
        self.oldest_unlanded_seconds = self._gauge(
            "oldest_unlanded_seconds",
            "seconds",
            "How long ago the oldest record was taken in that has not landed; 0 if there is none.",
            "pipeline",
        )
        self.memory_wait_seconds = self._counter(
            "memory_wait_seconds_total",
            "seconds",
            "Time for which the source was not read because memory was full.",
            "pipeline",
        )
        self.column_cpu_seconds = self._counter(
            "column_cpu_seconds_total",
            "CPU seconds",
            "Decoding, transforms and encoding of landed segments.",
            "pipeline",
        )

    def _define_landing(self) -> None:
        self.rows_landed = self._counter("rows_landed_total", "rows", "Rows in committed data objects.", "pipeline")
        self.landed_bytes = self._counter(
            "landed_bytes_total", "bytes", "Size of committed objects, rejects included.", "pipeline"
        )
        self.objects_landed = self._counter(
            "objects_landed_total", "objects", "Committed objects, rejects included.", "pipeline"
        )
        self.rejects = self._counter(
            "rejects_total",
            "records",
            "Records in committed segments that could not be decoded or placed, by reason.",
            "pipeline",
            "reason",
        )
        self.segments = self._counter(
            "segments_total", "segments", "Segments of this worker, by outcome.", "pipeline", "outcome"
        )
        self.segments_finished = self._counter(
            "segments_finished_total",
            "segments",
            "Segments that another worker began and this one decided.",
            "pipeline",
        )
        self.cuts = self._counter("cuts_total", "segments", "Segments closed, by why.", "pipeline", "reason")
        self.landing_seconds = self._histogram(
            "landing_seconds", "seconds", "From cutting a segment to its outcome.", LANDING_SECONDS, "pipeline"
        )
        self.last_commit_seconds = self._gauge(
            "last_commit_timestamp_seconds", "Unix time", "When a segment was last committed.", "pipeline"
        )

    def _define_windows(self) -> None:
        self.watermark_seconds = self._gauge(
            "watermark_timestamp_seconds",
            "Unix time",
            "Watermark of all splits together: windows that end later, with their `lateness`, are open.",
            "pipeline",
        )
        self.watermark_behind_seconds = self._gauge(
            "watermark_behind_seconds",
            "seconds",
            "How far it is behind the clock; below 0 where a producer's clock is ahead, and others are late, or for a"
            " while where `close_idle_after` has closed the last windows.",
            "pipeline",
        )
        self.split_watermark_seconds = self._gauge(
            "split_watermark_timestamp_seconds", "Unix time", "Watermark of an owned split.", "pipeline", "split"
        )
        self.open_windows = self._gauge(
            "open_windows", "windows", "Windows that hold committed rows of any worker, and are open.", "pipeline"
        )
        self.oldest_unfinished_window_seconds = self._gauge(
            "oldest_unfinished_window_seconds",
            "seconds",
            "How long ago the oldest window ended whose results are not written, open or closed; 0 if there is none."
            " About `disorder`, `lateness` and an `interval` where all is well.",
            "pipeline",
        )
        self.late_rows = self._counter(
            "late_rows_total", "rows", "Rows that came too late for a window, once for each window.", "pipeline"
        )
        self.windows_finished = self._counter(
            "windows_finished_total", "windows", "Windows whose results this worker has written.", "pipeline"
        )
        self.window_faults = self._counter(
            "window_faults_total", "groups", "Groups of finished windows that have no result.", "pipeline"
        )

    def _define_kinesis(self) -> None:
        self.kinesis_behind = self._gauge(
            "kinesis_millis_behind_latest",
            "milliseconds",
            "MillisBehindLatest of the last answer from a shard that is read; CloudWatch has the greatest as"
            " GetRecords.IteratorAgeMilliseconds and SubscribeToShardEvent.MillisBehindLatest.",
            "pipeline",
            "split",
        )
        self.kinesis_records = self._counter(
            "kinesis_records_total",
            "records",
            "GetRecords.Records or SubscribeToShardEvent.Records, by operation; what the KPL packed is one.",
            "pipeline",
            "operation",
        )
        self.kinesis_bytes = self._counter(
            "kinesis_bytes_total",
            "bytes",
            "GetRecords.Bytes or SubscribeToShardEvent.Bytes, by operation; without partition keys.",
            "pipeline",
            "operation",
        )
        self._define_kinesis_calls()
        self._define_kinesis_leases()

    def _define_kinesis_calls(self) -> None:
        self.kinesis_get_records = self._counter(
            "kinesis_get_records_total",
            "calls",
            "Calls that read a shard, by result (`success`, `failed`); the share of `success` is GetRecords.Success.",
            "pipeline",
            "result",
        )
        self.kinesis_get_records_latency_seconds = self._histogram(
            "kinesis_get_records_latency_seconds",
            "seconds",
            "GetRecords.Latency, as seen from here, of calls that succeed.",
            CALL_SECONDS,
            "pipeline",
        )
        self.kinesis_throughput_exceeded = self._counter(
            "kinesis_read_provisioned_throughput_exceeded_total",
            "calls",
            "ReadProvisionedThroughputExceeded: reads of a shard that were refused because all its consumers together"
            " read too much.",
            "pipeline",
        )
        self.kinesis_subscriptions = self._counter(
            "kinesis_subscribe_to_shard_total",
            "calls",
            "Subscriptions of fan-out that were asked for, by result (`success`, `failed`); the share of `success` is"
            " SubscribeToShard.Success.",
            "pipeline",
            "result",
        )
        self.kinesis_events = self._counter(
            "kinesis_subscribe_to_shard_events_total",
            "events",
            "SubscribeToShardEvent.Success: events of subscriptions, also those without records.",
            "pipeline",
        )

    def _define_kinesis_leases(self) -> None:
        self.kinesis_leases_held = self._gauge(
            "kinesis_leases_held", "leases", "Leases of this worker: CurrentLeases, as the KCL calls it.", "pipeline"
        )
        self.kinesis_leases_taken = self._counter(
            "kinesis_leases_taken_total",
            "leases",
            "Leases that this worker has taken: TakenLeases, as the KCL calls it.",
            "pipeline",
        )
        self.kinesis_leases_lost = self._counter(
            "kinesis_leases_lost_total",
            "leases",
            "Leases that another worker took before this one gave them: LostLeases, as the KCL calls it.",
            "pipeline",
        )

    def _define_kinesis_trouble(self) -> None:
        self.kinesis_trimmed = self._counter(
            "kinesis_trimmed_total",
            "times",
            "The record behind which to read on was gone, and records behind it may be: retention is too short.",
            "pipeline",
        )
        self.kinesis_aggregates = self._counter(
            "kinesis_aggregates_total",
            "aggregates",
            "What the KPL packed: `aggregates` met; `out_of_range` dropped (see `kpl.out_of_range`) and"
            " `out_of_range_records` in them; passed on as they are: `bad_digest`, `bad_body`, `bad_index`,"
            " `bad_hash_key`.",
            "pipeline",
            "what",
        )

    def _define_trouble(self) -> None:
        self.fenced = self._counter(
            "fenced_total", "times", "Claims lost to another worker; what was buffered is read again.", "pipeline"
        )
        self.retries = self._counter(
            "retries_total",
            "calls",
            "Calls to a part (`source`, `state`, `sink`, `rejects`, `late`, `results`, `windows`) that failed and"
            " are tried again.",
            "pipeline",
            "part",
        )

    def forget_split(self, pipeline: str, split: str) -> None:
        """The split has left this worker: its series end."""
        self.source_lag_records.remove(pipeline, split)
        self.source_lag_milliseconds.remove(pipeline, split)

    def exposition(self) -> bytes:
        """Prometheus text format 0.0.4."""
        return generate_latest(_Labelled(self._registry.collect(), {"service": self.service}))

    def _counter(self, name: str, unit: str, meaning: str, *labels: str) -> Counter:
        self._define(name, "counter", unit, meaning, labels)
        return Counter(f"streamsvc_{name}", meaning, labels, registry=self._registry)

    def _gauge(self, name: str, unit: str, meaning: str, *labels: str) -> Gauge:
        self._define(name, "gauge", unit, meaning, labels)
        return Gauge(f"streamsvc_{name}", meaning, labels, registry=self._registry)

    def _histogram(self, name: str, unit: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        self._define(name, "histogram", unit, meaning, labels)
        return Histogram(f"streamsvc_{name}", meaning, labels, buckets=buckets, registry=self._registry)

    def _define(self, name: str, kind: Kind, unit: str, meaning: str, labels: tuple[str, ...]) -> None:
        self.catalogue.append(Definition(f"streamsvc_{name}", kind, unit, meaning, labels))


class _Labelled(Collector):
    """Metric families with constant labels added to every sample."""

    def __init__(self, families: Iterable[Metric], labels: Mapping[str, str]) -> None:
        self._families = families
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            family.samples = [
                sample._replace(labels={**self._labels, **sample.labels})
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
            yield family


def merge_expositions(by_worker: Mapping[str, str]) -> str:
    """Expositions of several workers as one: each sample with the label ``worker``, each family once.

    Raises ``ValueError`` for text that is not an exposition."""
    merged: dict[str, Metric] = {}
    for worker, text in by_worker.items():
        for family in _Labelled(text_string_to_metric_families(text), {"worker": worker}).collect():
            if family.name in merged:
                merged[family.name].samples.extend(family.samples)
            else:
                merged[family.name] = family
    return generate_latest(_Labelled(merged.values(), {})).decode()


def catalogue_page(metrics: Metrics) -> str:
    """The text of ``docs/metrics.md``."""
    rows = [
        f"| `{item.name}` | {item.kind} | {item.unit} | {', '.join(f'`{label}`' for label in item.labels)} "
        f"| {item.meaning} |"
        for item in sorted(metrics.catalogue, key=lambda item: item.name)
    ]
    return "\n".join((PAGE_HEAD, "| metric | kind | unit | labels | meaning |", "|---|---|---|---|---|", *rows, ""))


PAGE_HEAD = """\
# Metrics

Made from `streamsvc/ops/metrics.py` by `python -m streamsvc.ops.metrics`; do not edit.

`/metrics` serves these in the Prometheus text format. Every sample also has the label `service`, and with `workers`
above 1 the label `worker`. The usual `process_*` metrics (CPU, resident memory, open files) are there too.
"""


if __name__ == "__main__":
    print(catalogue_page(Metrics("")), end="")  # noqa: T201
