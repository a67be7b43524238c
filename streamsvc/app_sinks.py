"""Where rows and results go, and what windows are, by kind of configuration: a part of the composition root."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Protocol, TypeAlias
from zoneinfo import ZoneInfo

import orjson
import pyarrow as pa

from streamsvc.config import Aws, ObjectSink, Rules
from streamsvc.config_sinks import KeyedSink
from streamsvc.config_window import microseconds
from streamsvc.contracts import ObjectStore, ResultSink
from streamsvc.core.json_text import json_texts
from streamsvc.core.windows.assignment import windows_of
from streamsvc.errors import ConfigError
from streamsvc.log.reader import digest_of
from streamsvc.records import Problem
from streamsvc.runtime.window_recipe import Results, WindowRecipe
from streamsvc.runtime.windowing import WINDOW_BOUNDS
from streamsvc.sinks import objects, results
from streamsvc.sinks.kafka.results import KafkaResults
from streamsvc.sources.kafka.clients import producer
from streamsvc.transforms.aggregation.build import BuiltWindow, build_window
from streamsvc.transforms.engine import noted
from streamsvc.transforms.placement import Placement

UNLIMITED = 2**31
"""Partitions of a segment that is finished, since its plan was cut to the limit already, and of results."""

_MAY_CHANGE = {"interval", "close_idle_after", "late", "max_groups"}
"""Of ``window:``, without changing what a result is."""

OpenStore: TypeAlias = Callable[[str, str], ObjectStore]
"""Address and part (``state``, ``sink``, ``late`` or ``rejects``) to a store."""


class KeyedResults(AbstractAsyncContextManager["KeyedResults"], ResultSink, Protocol):
    """A sink for results of windows, and a context manager around its use. Connects when the first come."""


@contextmanager
def refusing(*place: str | int) -> Iterator[None]:
    """Problems of SQL as those of a configuration, each with its place."""
    problems: list[str] = []
    with noted(problems, *place):
        yield
    if problems:
        raise ConfigError(problems)


def object_sink(
    options: ObjectSink, schema: pa.Schema, store: ObjectStore, max_waiting_bytes: int
) -> objects.ObjectSink:
    """Raises ``ConfigError``: what is wrong with the placement and, whether or not it is, with the files."""
    try:
        with refusing("sink", "partition_by"):
            place = Placement(options.partition_by, schema) if options.partition_by else None
    except ConfigError as error:
        unplaced = options.model_copy(update={"partition_by": {}})
        raise ConfigError([*error.problems, *_problems(lambda: objects.ObjectSink(store, unplaced, schema))]) from None
    return objects.ObjectSink(store, options, schema, place, max_waiting_bytes=max_waiting_bytes)


def _problems(build: Callable[[], object]) -> list[str]:
    try:
        build()
    except ConfigError as error:
        return error.problems
    return []


# Windows


def built_window(rules: Rules, schema: pa.Schema) -> BuiltWindow:
    """schema: the columns after all steps. Raises ``ConfigError``."""
    assert rules.window is not None
    with refusing("window"):
        return build_window(rules.window, schema)


def late_sink(rules: Rules, schema: pa.Schema, stores: OpenStore, max_waiting_bytes: int) -> objects.ObjectSink:
    """Parquet, with the bounds of the window that was missed behind the columns. Raises ``ConfigError``."""
    for bound in WINDOW_BOUNDS:
        if own := [name for name in schema.names if name.lower() == bound.name]:
            what = f"the rows have a column {own[0]}, and results and late rows another: rename it in a step"
            raise ConfigError([Problem(what, "window")])
        schema = schema.append(bound)
    options = ObjectSink(path=str(rules.late))
    return objects.ObjectSink(stores(options.path, "late"), options, schema, max_waiting_bytes=max_waiting_bytes)


def window_recipe(rules: Rules, built: BuiltWindow, kept: Results | None = None) -> WindowRecipe:
    """kept: where results go, of a pipeline that runs."""
    window = built.window
    return WindowRecipe(
        digest=_digest(rules, built),
        windows=windows_of(
            window.size_us,
            window.hop_us,
            microseconds(window.offset),
            None if window.timezone == "UTC" else ZoneInfo(window.timezone),
        ),
        time=built.time,
        disorder_us=microseconds(window.disorder),
        lateness_us=microseconds(window.lateness),
        max_ahead_us=microseconds(window.max_ahead),
        aggregation=built.aggregation,
        results=kept,
    )


def _digest(rules: Rules, built: BuiltWindow) -> str:
    """Of what windows mean, and of what partials are made of: columns that have got other types do not merge."""
    assert rules.window is not None
    empty = built.aggregation.merge([])
    document = {
        "window": rules.window.model_dump(mode="json", by_alias=True, exclude=_MAY_CHANGE),
        "partials": [[field.name, str(field.type)] for table in (empty.flat, empty.bucketed) for field in table.schema],
    }
    return digest_of(orjson.dumps(document))


def results_of(rules: Rules, built: BuiltWindow, stores: OpenStore, keyed: ResultSink | None) -> Results:
    """What makes and writes results, with an aggregation of its own.

    keyed: where they go if not into objects. Raises ``ConfigError``."""
    sink = keyed or _object_results(rules, built.aggregation.schema, stores)
    return Results(built.aggregation, sink)


def check_results(rules: Rules, schema: pa.Schema, stores: OpenStore) -> None:
    """Raises ``ConfigError``: results of these columns have no place in the sink."""
    if rules.sink is not None:
        _object_results(rules, schema, stores)
        return
    for field in schema:
        try:
            json_texts(pa.array([], field.type))
        except pa.ArrowNotImplementedError:
            what = f"JSON has no place for {field.name}, of type {field.type}"
            raise ConfigError([Problem(what, "sink")]) from None


def _object_results(rules: Rules, schema: pa.Schema, stores: OpenStore) -> results.ObjectResults:
    assert rules.sink is not None
    options = rules.sink.model_copy(update={"max_partitions": UNLIMITED})
    return results.ObjectResults(
        object_sink(options, schema, stores(options.path, "sink"), max_waiting_bytes=objects.WAITING_BYTES)
    )


def keyed_results(options: KeyedSink, aws: Aws) -> KeyedResults:
    if options.kafka is not None:
        kafka = options.kafka
        new_producer = partial(producer, kafka, aws, logging.getLogger("streamsvc.kafka"))
        return KafkaResults(new_producer, kafka.topic, kafka.brokers)
    from streamsvc import app_kinesis

    assert options.kinesis is not None
    return app_kinesis.results(aws, options.kinesis.stream)


@asynccontextmanager
async def both(
    first: AbstractAsyncContextManager[object], second: AbstractAsyncContextManager[object]
) -> AsyncIterator[None]:
    async with first, second:
        yield
