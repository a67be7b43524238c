"""What is wrong with a configuration although each value of it is right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from streamsvc.config import MIN_WORKER_MEMORY, ObjectSink, Pipeline, Service
from streamsvc.config_sources import Source, lease_table
from streamsvc.config_window import window_faults

Place: TypeAlias = tuple[str | int, ...]
"""The way from the top of the file to a value: keys, and numbers of list items."""


def faults(service: Service) -> Iterator[tuple[Place, str]]:
    """Places, and what is wrong there."""
    if service.workers != "auto" and service.memory // service.workers < MIN_WORKER_MEMORY:
        yield ("workers",), f"`memory` gives each worker less than {MIN_WORKER_MEMORY >> 20}MiB"
    if (service.aws.access_key_id is None) != (service.aws.secret_access_key is None):
        yield ("aws",), "set both `access_key_id` and `secret_access_key`, or neither"
    if service.aws.endpoint_url is not None and service.aws.endpoints.s3 is not None:
        yield ("aws", "endpoint_url"), "is the same as `endpoints.s3`: set one of them"
    yield from _address_faults(("state",), service.state)
    yield from _lease_table_faults(service)
    for name, pipeline in service.pipelines.items():
        here = ("pipelines", name)
        if name == "rejects":
            yield here, "no pipeline can be called rejects: its log would lie among the rejects of others"
        yield from _window_faults(here, pipeline)
        yield from _source_faults(service, (*here, "source"), pipeline.source)
        yield from _repeated((*here, "include"), pipeline.include)
        yield from _sink_faults(here, pipeline)
        if pipeline.rejects is not None:
            yield from _address_faults((*here, "rejects", "path"), pipeline.rejects.path)


def _repeated(here: Place, names: Sequence[str]) -> Iterator[tuple[Place, str]]:
    for number, name in enumerate(names):
        if name in names[:number]:
            yield (*here, number), f"{name} is here twice"


def _source_faults(service: Service, here: Place, source: Source) -> Iterator[tuple[Place, str]]:
    if source.kafka is not None and source.kafka.instance_id is not None and service.workers != 1:
        yield (*here, "kafka", "instance_id"), "several workers cannot have one name: leave it out"
    if source.kafka is not None:
        yield from _repeated((*here, "kafka", "topics"), source.kafka.topics)
    if source.kinesis is not None and source.kinesis.leases == "none" and service.workers != 1:
        yield (*here, "kinesis", "leases"), "without leases every worker would read all shards: set `workers: 1`"


def _sink_faults(here: Place, pipeline: Pipeline) -> Iterator[tuple[Place, str]]:
    if isinstance(pipeline.sink, ObjectSink):
        yield from _address_faults((*here, "sink", "path"), pipeline.sink.path)
    elif pipeline.window is None:
        kind = "kafka" if pipeline.sink.kafka else "kinesis"
        yield (*here, "sink", kind), "takes results of windows: give the pipeline a `window`, or its sink a `path`"


def _window_faults(here: Place, pipeline: Pipeline) -> Iterator[tuple[Place, str]]:
    if here[-1] == "late":
        yield here, "no pipeline can be called late: its log would lie among the late rows of others"
    if pipeline.window is None:
        return
    for keys, what in window_faults(pipeline.window):
        yield (*here, "window", *keys), what
    if "interval" in pipeline.buffer.model_fields_set:
        yield (*here, "sink", "buffer", "interval"), "a windowed pipeline commits every `window.interval`: set that"
    if pipeline.window.late is not None:
        yield from _address_faults((*here, "window", "late", "path"), pipeline.window.late.path)


def _lease_table_faults(service: Service) -> Iterator[tuple[Place, str]]:
    """A lease row is named by its shard alone, so a table is for one stream and one reader of it."""
    tables: dict[str, str] = {}
    for name, pipeline in service.pipelines.items():
        kinesis = pipeline.source.kinesis
        if kinesis is None or kinesis.leases == "none":
            continue
        table = lease_table(service.service, name, kinesis)
        if table in tables:
            yield (
                ("pipelines", name, "source", "kinesis"),
                f"has the lease table {table} of pipeline {tables[table]}: give each an `application` of its own",
            )
        tables.setdefault(table, name)


def _address_faults(place: Place, url: str) -> Iterator[tuple[Place, str]]:
    scheme, _, rest = url.partition("://")
    where, _, prefix = rest.partition("/")
    parts = prefix.strip("/").split("/") if prefix.strip("/") else []
    in_bucket = scheme in {"s3", "memory"} and where and not {"@", ":"} & set(where)
    on_disk = scheme == "file" and not where and parts
    if not (in_bucket or on_disk) or {"", ".", ".."} & set(parts):
        yield place, "must be s3://bucket/prefix, file:///absolute/directory or memory://name/prefix"
