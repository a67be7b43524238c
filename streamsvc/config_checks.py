"""What is wrong with a configuration although each value of it is right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from streamsvc.config import MIN_WORKER_MEMORY, Service

Place: TypeAlias = tuple[str | int, ...]
"""The way from the top of the file to a value: keys, and numbers of list items."""


def faults(service: Service) -> Iterator[tuple[Place, str]]:
    """Places, and what is wrong there."""
    if service.workers != "auto" and service.memory // service.workers < MIN_WORKER_MEMORY:
        yield ("workers",), f"`memory` gives each worker less than {MIN_WORKER_MEMORY >> 20}MiB"
    if (service.aws.access_key_id is None) != (service.aws.secret_access_key is None):
        yield ("aws",), "set both `access_key_id` and `secret_access_key`, or neither"
    yield from _address_faults(("state",), service.state)
    for name, pipeline in service.pipelines.items():
        here = ("pipelines", name)
        if name == "rejects":
            yield here, "no pipeline can be called rejects: its log would lie among the rejects of others"
        if pipeline.source.kafka.instance_id is not None and service.workers != 1:
            yield (*here, "source", "kafka", "instance_id"), "several workers cannot have one name: leave it out"
        yield from _address_faults((*here, "sink", "path"), pipeline.sink.path)
        if pipeline.rejects is not None:
            yield from _address_faults((*here, "rejects", "path"), pipeline.rejects.path)


def _address_faults(place: Place, url: str) -> Iterator[tuple[Place, str]]:
    scheme, _, rest = url.partition("://")
    where, _, prefix = rest.partition("/")
    parts = prefix.strip("/").split("/") if prefix.strip("/") else []
    in_bucket = scheme in {"s3", "memory"} and where and not {"@", ":"} & set(where)
    on_disk = scheme == "file" and not where and parts
    if not (in_bucket or on_disk) or {"", ".", ".."} & set(parts):
        yield place, "must be s3://bucket/prefix, file:///absolute/directory or memory://name/prefix"
