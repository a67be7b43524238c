"""The composition root: the only module that names concrete adapters."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import orjson
import pyarrow as pa

from streamsvc import config_file
from streamsvc.app_recipes import Keep, build_recipe, late_url, problems_of, redirected, rejects_url
from streamsvc.app_sinks import (
    UNLIMITED,
    KeyedResults,
    OpenStore,
    both,
    keyed_results,
)
from streamsvc.config import Aws, Decode, JsonDecode, Rules, Service
from streamsvc.config import ObjectSink as ObjectSinkOptions
from streamsvc.config_sinks import KeyedSink
from streamsvc.contracts import Inspectable, ObjectStore, Source
from streamsvc.decoders.build import needs_sample, with_sample
from streamsvc.errors import ConfigError, ForeignVersion, StoreRefused
from streamsvc.log.segment_log import SegmentLog
from streamsvc.log.window_log import WindowLog
from streamsvc.ops.health import WindowsStatus
from streamsvc.ops.metrics import Metrics
from streamsvc.records import Position, Split
from streamsvc.runtime.destinations import Closings
from streamsvc.runtime.finishing import Finisher
from streamsvc.runtime.health import Watched, WorkerHealth
from streamsvc.runtime.landing import Identity
from streamsvc.runtime.live_windows import LiveWindows
from streamsvc.runtime.memory import MemoryBudget
from streamsvc.runtime.observer import Observer
from streamsvc.runtime.pipeline import Pipeline as RunningPipeline
from streamsvc.runtime.pipeline import Policy
from streamsvc.runtime.replay import ReadRejects, Replay
from streamsvc.runtime.sampling import sample, when_answered
from streamsvc.runtime.segment import Recipe
from streamsvc.runtime.window_recipe import WindowRecipe
from streamsvc.runtime.worker import Worker
from streamsvc.sinks.rejects import read_rejects
from streamsvc.sinks.retrying import RetryingResults
from streamsvc.sources import build as sources
from streamsvc.sources.build import first_position, member, onlooker
from streamsvc.sources.reader import Reader
from streamsvc.stores.objects import open_store
from streamsvc.stores.probe import probe
from streamsvc.stores.retrying import RetryingStore, StoreHealth

LANDING_S = 3.0
"""How long another worker's segment may take to land before it is finished for it."""

COMMAND_PATIENCE_S = 10.0
"""How long a command waits for a store that does not answer; a worker waits for ever."""

QUEUE_BYTES = 16 * 1024 * 1024

NEW_OBJECTS = 100_000
"""More than the records that are on their way at once; they are gone before they are so many."""

INFERRED_KEY = "inferred-columns.json"
SAMPLE_RECORDS = 10_000


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Which worker of which service. Travels to the worker's process."""

    file: Path
    pipeline: str | None
    until_end: bool
    slot: int
    slots: int
    close_windows: bool = False

    def in_slot(self, slot: int) -> WorkerSpec:
        return replace(self, slot=slot)


def worker_count(service: Service) -> int:
    return len(os.sched_getaffinity(0)) if service.workers == "auto" else service.workers


def instance_name(slot: int) -> str:
    """One name for each host and slot, the same after a restart: the group keeps a static member's partitions."""
    return f"{os.environ.get('STREAMSVC_INSTANCE') or socket.gethostname()}-{slot}"


def command_name() -> str:
    """A command is no worker: what a worker of this machine is landing is not its own to finish at once."""
    return f"command-{socket.gethostname()}-{os.getpid()}"


def new_segment() -> str:
    """Sorts by time and is unique; reject objects take their date from it."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:12]}"


class Stores:
    """Every store of a service, opened once an address, retried for ever; failures go to an observer.

    With ``patience_s``, for whoever waits at a terminal: a store that has failed for so long refuses.
    """

    def __init__(self, aws: Aws, observer: Observer, *, patience_s: float = inf) -> None:
        self._aws = aws
        self._observer = observer
        self._patience_s = patience_s
        self._open: dict[str, RetryingStore] = {}
        self._failing_since: dict[str, float] = {}

    def __call__(self, url: str, part: str) -> ObjectStore:
        if url not in self._open:
            self._open[url] = RetryingStore(open_store(url, self._aws), lambda health: self._tell(part, health))
        return self._open[url]

    def _tell(self, part: str, health: StoreHealth) -> None:
        if health.error is None:
            self._failing_since.pop(health.url, None)
            self._observer.part_mended(part)
            return
        since = self._failing_since.setdefault(health.url, monotonic())
        if monotonic() - since >= self._patience_s:
            what = f"gave up after {self._patience_s:.0f} s: {health.error.what}"
            hint = health.error.hint or "Run the command again when the store answers."
            raise StoreRefused(what, hint=hint, **{"url": health.url, **health.error.where})
        if self._patience_s == inf:
            self._observer.part_failed(part, f"{health.url}: {health.error.what}")


def state_url(service: Service, name: str) -> str:
    return f"{service.state.rstrip('/')}/{name}"


def load(file: Path) -> Service:
    """The configuration, checked as far as that goes offline. Raises ``ConfigError``, every problem with its place."""
    loaded = config_file.load(file)
    if problems := problems_of(loaded):
        raise ConfigError(problems)
    return loaded.service


@dataclass(frozen=True, slots=True)
class Inspected:
    """A pipeline looked at from outside: a source that joins no group, the log, and what it makes of records."""

    name: str
    state: str
    source: Inspectable
    log: SegmentLog
    recipe: Recipe
    finisher: Finisher

    async def positions_at(self, start: str) -> Mapping[Split, Position]:
        """Of every live split: ``earliest``, ``latest``, or the first record at an ISO time."""
        return await self.source.positions_at(start)


def selected(service: Service, pipeline: str | None) -> list[str]:
    """The pipelines that a command is about. Raises ``ConfigError`` for one that is not there."""
    if pipeline is None:
        return list(service.pipelines)
    if pipeline not in service.pipelines:
        raise ConfigError([f"no pipeline {pipeline!r}; there are: {', '.join(service.pipelines)}"])
    return [pipeline]


def check_installed(service: Service, pipeline: str | None) -> None:
    """Raises ``ConfigError``: there is no such pipeline, or what it needs is not on this machine."""
    for name in selected(service, pipeline):
        sources.check_installed(service.pipelines[name].source)


def _queue_bytes(service: Service, spec: WorkerSpec) -> int:
    """For reading ahead: an eighth of a worker's memory, shared by its pipelines, and never more than helps."""
    return min(QUEUE_BYTES, service.memory // spec.slots // 8 // len(selected(service, spec.pipeline)))


def _reader(service: Service, name: str, slot: int, queue_bytes: int, metrics: Metrics) -> Reader:
    return Reader(service.service, name, instance_name(slot), queue_bytes, service.aws, metrics)


def _finisher(
    service: Service, name: str, source: Source, log: SegmentLog, stores: OpenStore, observer: Observer
) -> Finisher:
    reads = Rules.of(service.pipelines[name], "").kpl

    def build(document: dict[str, Any]) -> Recipe:
        rules = Rules.model_validate(document)
        if rules.kpl != reads:
            raise ForeignVersion(
                "a pending segment was read under other `kpl` options",
                hint="Run with those until it is committed, then change them.",
                planned=rules.kpl,
                ours=reads,
            )
        return build_recipe(rules, stores, service.memory)

    return Finisher(source, log, build, observer, lambda recipe, redirect: redirected(recipe, redirect, stores))


def new_stores(service: Service, name: str) -> Stores:
    """Stores that nobody watches, for a command, which gives up after a while and says why."""
    return Stores(service.aws, Observer(name, Metrics(service.service)), patience_s=COMMAND_PATIENCE_S)


def log_of(service: Service, name: str) -> SegmentLog:
    """The log alone, for what needs no source."""
    state = new_stores(service, name)(state_url(service, name), "state")
    first = first_position(service.pipelines[name].source)
    return SegmentLog(state, command_name(), first, landing_s=LANDING_S)


async def window_log_of(service: Service, name: str) -> tuple[WindowLog, WindowRecipe] | None:
    """The log of a windowed pipeline, and how its partials merge to results; ``None``: it has no windows yet.

    Asks no source. Raises ``WindowsChanged``: these windows are not those that it has begun with."""
    options = service.pipelines[name]
    if options.window is None:
        return None
    stores = new_stores(service, name)
    state = stores(state_url(service, name), "state")
    if needs_sample(options.decode) and await _known_columns(options.decode, state) is None:
        return None
    keyed = keyed_results(options.sink, service.aws) if isinstance(options.sink, KeyedSink) else None
    recipe = build_recipe(await _rules(service, name, state), stores, service.memory, keep=Keep(keyed))
    log = _log(recipe, state, command_name(), first_position(options.source))
    assert recipe.window is not None
    assert isinstance(log, WindowLog)
    view = await log.view()
    if view.control.number == 0:
        return None
    log.check(view, recipe.window.digest)
    return log, recipe.window


async def open_windows(service: Service, name: str) -> WindowsStatus | None:
    """What is committed of the windows that are open; as ``window_log_of``."""
    found = await window_log_of(service, name)
    if found is None:
        return None
    log, window = found
    assert window.results is not None
    live = LiveWindows(log, window.windows, window.results)
    await live.refresh(await log.owed(await log.view()))
    return live.status


def onlooker_of(service: Service, name: str, metrics: Metrics) -> Inspectable:
    """The source of a pipeline as one that joins no group, not yet open."""
    return onlooker(service.pipelines[name].source, _reader(service, name, 0, service.memory // 8, metrics))


async def inspect(service: Service, name: str, stack: AsyncExitStack) -> Inspected:
    """A look from outside. Joins no group, writes nothing but inferred columns. ``stack`` closes the source."""
    metrics = Metrics(service.service)
    observer = Observer(name, metrics)
    stores = Stores(service.aws, observer, patience_s=COMMAND_PATIENCE_S)
    source = onlooker_of(service, name, metrics)
    await stack.enter_async_context(source)
    state = stores(state_url(service, name), "state")
    log = SegmentLog(state, command_name(), source.first_position, landing_s=LANDING_S)
    rules = await _rules(service, name, state)
    return Inspected(
        name=name,
        state=state_url(service, name),
        source=source,
        log=log,
        recipe=build_recipe(rules, stores, service.memory),
        finisher=_finisher(service, name, source, log, stores, observer),
    )


def choose_allocator() -> None:
    """Arrow's default keeps more of what is freed, and costs a fifth more CPU for a whole run than jemalloc
    (``loadtest.bench``, 2026-11-24: 276,000 against 233,000 records a CPU-second). The user's own choice stands."""
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ and "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())


def spare_the_collector() -> None:
    """Every record is an object that the cycle collector would look at: at its default of 700 new objects it takes a
    sixth of all CPU time. What lives as long as the process is taken out of its sight."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 20, 20)


def new_worker(service: Service, spec: WorkerSpec) -> tuple[Worker, WorkerHealth]:
    """Everything of one process. Touches neither store nor broker: the worker opens its pipelines when it runs."""
    choose_allocator()
    metrics = Metrics(service.service)
    budget = MemoryBudget(service.memory // spec.slots * 7 // 8)
    observers = {name: Observer(name, metrics) for name in selected(service, spec.pipeline)}
    health = WorkerHealth(metrics, budget, observers, spec.slot)

    async def open_(name: str) -> tuple[AbstractAsyncContextManager[object], RunningPipeline]:
        observer, options = observers[name], service.pipelines[name]
        source = member(options.source, _reader(service, name, spec.slot, _queue_bytes(service, spec), metrics))
        keyed = keyed_results(options.sink, service.aws) if isinstance(options.sink, KeyedSink) else None
        pipeline = await _open_pipeline(service, name, spec, source, keyed, budget, observer)
        health.watch(name, Watched(pipeline, observer, source, options.source.address, options.sink.address))
        spare_the_collector()
        return source if keyed is None else both(keyed, source), pipeline

    return Worker([partial(open_, name) for name in observers], service.drain), health


async def _open_pipeline(
    service: Service,
    name: str,
    spec: WorkerSpec,
    source: Source,
    keyed: KeyedResults | None,
    budget: MemoryBudget,
    observer: Observer,
) -> RunningPipeline:
    options = service.pipelines[name]
    stores = Stores(service.aws, observer)
    state = stores(state_url(service, name), "state")
    await probe(state)
    rules = await when_answered(lambda: _rules(service, name, state), observer)
    objects = options.sink if isinstance(options.sink, ObjectSinkOptions) else None
    recipe = build_recipe(
        rules,
        stores,
        service.memory // spec.slots,
        max_partitions=objects.max_partitions if objects else UNLIMITED,
        keep=Keep(keyed and RetryingResults(keyed, observer.results_failed)),
    )
    log = _log(recipe, state, instance_name(spec.slot), source.first_position)
    return RunningPipeline(
        Identity(name, await log.save_config(rules.document()), recipe.version, new_segment),
        source,
        log,
        recipe,
        _finisher(service, name, source, log, stores, observer),
        Policy(
            options.buffer.size,
            options.commit_interval,
            until_end=spec.until_end,
            closings=Closings(
                at_end=spec.close_windows,
                idle_after_s=options.window.close_idle_after if options.window else None,
                poll_s=min(1.0, options.commit_interval / 5),
            ),
        ),
        budget,
        observer,
    )


def _log(recipe: Recipe, state: ObjectStore, worker: str, first: Position) -> SegmentLog:
    """Of a pipeline that runs."""
    if recipe.window is None:
        return SegmentLog(state, worker, first, landing_s=LANDING_S)
    assert recipe.window.results is not None, "who runs wants results"
    return WindowLog(state, worker, first, landing_s=LANDING_S, merge=recipe.window.results.merge)


async def _rules(service: Service, name: str, state: ObjectStore) -> Rules:
    """The rules of a pipeline; with ``schema: infer``, under the columns that the first worker inferred."""
    pipeline = service.pipelines[name]
    rules = Rules.of(pipeline, rejects_url(service, name, pipeline), late_url(service, name, pipeline))
    if not needs_sample(pipeline.decode):
        return rules
    decode = await _known_columns(pipeline.decode, state)
    while decode is None:
        source = onlooker(pipeline.source, _reader(service, name, 0, QUEUE_BYTES, Metrics(service.service)))
        async with source:
            inferred = with_sample(pipeline.decode, await sample(source, SAMPLE_RECORDS))
        assert inferred.json_ is not None
        await state.create(INFERRED_KEY, orjson.dumps(inferred.json_.columns))
        decode = await _known_columns(pipeline.decode, state)
    return rules.model_copy(update={"decode": decode})


async def _known_columns(decode: Decode, state: ObjectStore) -> Decode | None:
    """The decoder under the columns that are kept; ``None``: the pipeline has never run."""
    body = await state.get(INFERRED_KEY)
    if body is None or decode.json_ is None:
        return None
    return Decode(json=JsonDecode(schema=orjson.loads(body), on_new_field=decode.json_.on_new_field))


@dataclass(frozen=True, slots=True)
class RejectsOf:
    """The reject objects of a pipeline, how to read one, and the log that knows which were replayed."""

    store: ObjectStore
    log: SegmentLog
    read: ReadRejects


def rejects_of(service: Service, name: str) -> RejectsOf:
    store = new_stores(service, name)(rejects_url(service, name, service.pipelines[name]), "rejects")
    return RejectsOf(store, log_of(service, name), read_rejects)


async def replay_of(service: Service, name: str) -> Replay:
    """Today's configuration over the rejects of a pipeline. Asks the source only to infer columns.

    Raises ``ConfigError`` for a windowed one: the windows that its rejects belong to are closed."""
    if service.pipelines[name].window is not None:
        what = f"{name} has a window, and those that its rejects belong to are closed: they are not replayed"
        raise ConfigError([f"{what}; land them by a pipeline without a window, or under a new name"])
    stores = new_stores(service, name)
    rules = await _rules(service, name, stores(state_url(service, name), "state"))
    found = rejects_of(service, name)

    def build(document: dict[str, Any]) -> Recipe:
        return build_recipe(Rules.model_validate(document), stores, service.memory)

    recipe = build_recipe(rules, stores, service.memory)
    digest = await found.log.save_config(rules.document())
    identity = Identity(name, digest, recipe.version, new_segment)
    return Replay(identity, found.log, recipe, build, found.store, found.read)
