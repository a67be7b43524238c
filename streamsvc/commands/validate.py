"""``streamsvc validate``: is this file right, and, with ``--online``, do the broker and the stores agree?"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from streamsvc.app import inspect, load, new_stores, state_url
from streamsvc.app_recipes import late_url, rejects_url
from streamsvc.config import ObjectSink, Pipeline, Service
from streamsvc.contracts import ObjectStore
from streamsvc.decoders.build import needs_sample
from streamsvc.ops import logs
from streamsvc.stores.probe import probe

MS_A_SPLIT = 50
"""A segment costs a small put for each split, and two."""

SMALL_OBJECT = 64 * 1024
"""A number without a unit is bytes, which is not what most people mean by 128."""

NO_FOLDER = "_streamsvc_asks"
"""Of which nothing is in the store: listing it costs one small call."""


def validate(file: Path, *, online: bool) -> int:
    """Answers the exit code. Raises ``ConfigError`` with every problem, and online what the parts raise."""
    service = load(file)
    logs.configure("warning")
    splits = asyncio.run(_touch(service)) if online else {}
    for name, pipeline in service.pipelines.items():
        interval_ms = pipeline.commit_interval * 1000
        count = splits.get(name, 1)
        if interval_ms < count * MS_A_SPLIT:
            key = "sink.buffer.interval" if pipeline.window is None else "window.interval"
            print(
                f"{file}: warning: pipelines.{name}.{key} is {interval_ms:.0f} ms; "
                f"a segment over {count} splits may take {count * MS_A_SPLIT} ms to claim them"
            )
        if isinstance(pipeline.sink, ObjectSink) and pipeline.buffer.size < SMALL_OBJECT:
            print(
                f"{file}: warning: pipelines.{name}.sink.buffer.size is {pipeline.buffer.size:,} bytes: very many,"
                " very small objects; write for example 128MiB"
            )
        if needs_sample(pipeline.decode) and not online:
            print(f"{file}: note: pipelines.{name} infers its columns, so its SQL is checked when they are known")
    print(f"{file}: good ({', '.join(service.pipelines)})")
    return 0


async def _ask(store: ObjectStore) -> None:
    """Whether the store is there and lets us in. Nothing is written where readers look."""
    async for _ in store.list(f"{NO_FOLDER}/"):
        return


def _outputs(service: Service, name: str, pipeline: Pipeline) -> list[tuple[str, str]]:
    """Addresses of stores, and what goes there."""
    found = [(rejects_url(service, name, pipeline), "rejects")]
    if isinstance(pipeline.sink, ObjectSink):
        found.insert(0, (pipeline.sink.path, "sink"))
    if pipeline.window is not None:
        found.append((late_url(service, name, pipeline), "late"))
    return found


async def _touch(service: Service) -> dict[str, int]:
    """Answers how many splits each pipeline has now."""
    splits: dict[str, int] = {}
    async with AsyncExitStack() as stack:
        for name, pipeline in service.pipelines.items():
            stores = new_stores(service, name)
            await probe(stores(state_url(service, name), "state"))
            for url, part in _outputs(service, name, pipeline):
                await _ask(stores(url, part))
            inspected = await inspect(service, name, stack)
            splits[name] = len(await inspected.source.splits())
            print(f"{name}: {splits[name]} splits; the state creates exclusively; the other places can be listed")
    return splits
