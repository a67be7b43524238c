"""What one configuration makes of records, today's or a stored one, and what is wrong with it: a part of the
composition root."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from streamsvc import config_file
from streamsvc.app_sinks import (
    UNLIMITED,
    OpenStore,
    built_window,
    check_results,
    late_sink,
    object_sink,
    refusing,
    results_of,
    window_recipe,
)
from streamsvc.config import ObjectSink as ObjectSinkOptions
from streamsvc.config import Pipeline, Rules, Service
from streamsvc.contracts import ObjectStore, ResultSink, Transform
from streamsvc.core.redirects import Redirect
from streamsvc.decoders.build import InvalidDecode, needs_sample
from streamsvc.decoders.build import build as build_decoder
from streamsvc.errors import ConfigError, StoreRefused
from streamsvc.records import METADATA, Problem
from streamsvc.runtime.segment import Recipe
from streamsvc.runtime.window_recipe import WindowRecipe
from streamsvc.sinks.objects import ObjectSink
from streamsvc.sinks.redirected import RedirectedRejects, RedirectedSink
from streamsvc.sinks.rejects import RejectObjects
from streamsvc.stores.objects import open_store
from streamsvc.transforms.sql import SqlTransform


def rejects_url(service: Service, name: str, pipeline: Pipeline) -> str:
    """Rejects are always kept: beside the log, if nowhere else is configured."""
    return pipeline.rejects.path if pipeline.rejects else f"{service.state.rstrip('/')}/rejects/{name}"


def late_url(service: Service, name: str, pipeline: Pipeline) -> str:
    """Late rows of a windowed pipeline are always kept: beside the log, if nowhere else is configured."""
    late = pipeline.window.late if pipeline.window else None
    return late.path if late else f"{service.state.rstrip('/')}/late/{name}"


@dataclass(frozen=True, slots=True)
class Keep:
    """That the results of windows are wanted, too. ``keyed``: where they go, if not into objects."""

    keyed: ResultSink | None = None


def build_recipe(
    rules: Rules,
    stores: OpenStore,
    memory_bytes: int,
    *,
    max_partitions: int = UNLIMITED,
    keep: Keep | None = None,
) -> Recipe:
    """What one configuration, today's or a stored one, makes of records. ``keep``: of a pipeline that runs.

    Raises ``ConfigError`` with every problem that can be told; each begins with a path into the pipeline:
    ``transform.0.sql: ...``. What columns there are is not known behind a decoder or a step that is wrong."""
    try:
        decoder = build_decoder(rules.decode)
    except InvalidDecode as error:
        raise ConfigError([Problem(what, "decode", *path) for path, what in error.problems]) from None
    schema = decoder.schema
    for name in rules.include:
        schema = schema.append(pa.field(name, METADATA[name]))
    transforms: list[Transform] = []
    for number, step in enumerate(rules.transform):
        with refusing("transform", number, "sql"):
            transforms.append(SqlTransform(step.sql, schema))
        schema = transforms[-1].schema
    window: WindowRecipe | None = None
    if rules.window is None:
        assert rules.sink is not None, "rows go into objects"
        options = rules.sink.model_copy(update={"max_partitions": max_partitions})
        sink = object_sink(options, schema, stores(options.path, "sink"), memory_bytes // 8)
    else:
        built = built_window(rules, schema)
        transforms += built.steps
        check_results(rules, built.aggregation.schema, stores)
        sink = late_sink(rules, schema, stores, memory_bytes // 8)
        kept = None if keep is None else results_of(rules, built_window(rules, schema), stores, keep.keyed)
        window = window_recipe(rules, built, kept)
    rejects = RejectObjects(stores(rules.rejects, "rejects"))
    return Recipe(decoder, tuple(rules.include), tuple(transforms), sink, rejects, window)


def problems_of(loaded: config_file.Loaded) -> list[str]:
    """What is wrong with pipelines beyond their single values, as far as that can be told offline; with its places."""
    problems: list[str] = []
    for name, pipeline in loaded.service.pipelines.items():
        problems += [_at_its_place(loaded, name, problem) for problem in _refusals(loaded.service, name, pipeline)]
    return problems + [loaded.problem(place, what) for place, what in _conflicts(loaded.service)]


def _refusals(service: Service, name: str, pipeline: Pipeline) -> list[str]:
    if needs_sample(pipeline.decode):
        return []
    try:
        build_recipe(
            Rules.of(pipeline, rejects_url(service, name, pipeline), late_url(service, name, pipeline)),
            lambda url, _: open_store(url, service.aws),
            service.memory,
        )
    except ConfigError as error:
        return error.problems
    except StoreRefused as error:
        return [f"sink.path: {error.what}: {error.hint}"]
    return []


def _at_its_place(loaded: config_file.Loaded, pipeline: str, problem: str) -> str:
    """A problem that is plain text has the keys in front, none of which is a name that users choose."""
    if not isinstance(problem, Problem):
        path, _, what = problem.partition(": ")
        problem = Problem(what, *path.split("."))
    return loaded.problem(("pipelines", pipeline, *problem.place), problem.what)


def _conflicts(service: Service) -> list[tuple[config_file.Place, str]]:
    """Prefixes that would be mixed up: a reader of one would find objects of another."""
    found: list[tuple[config_file.Place, str]] = []
    prefixes: list[tuple[config_file.Place, str]] = [(("state",), service.state)]
    for name, pipeline in service.pipelines.items():
        if isinstance(pipeline.sink, ObjectSinkOptions):
            prefixes.append((("pipelines", name, "sink", "path"), pipeline.sink.path))
        if pipeline.rejects:
            prefixes.append((("pipelines", name, "rejects", "path"), pipeline.rejects.path))
        if pipeline.window and pipeline.window.late:
            prefixes.append((("pipelines", name, "window", "late", "path"), pipeline.window.late.path))
    for number, (place, url) in enumerate(prefixes):
        for other_place, other in prefixes[:number]:
            a, b = f"{url.rstrip('/')}/", f"{other.rstrip('/')}/"
            if a.startswith(b) or b.startswith(a):
                found.append(
                    (place, f"lies inside, around or at {'.'.join(map(str, other_place))}; give it its own prefix")
                )
    return found


def destinations(recipe: Recipe) -> tuple[str, str]:
    """Where its rows and its rejects go."""
    assert isinstance(recipe.sink, ObjectSink)
    assert isinstance(recipe.rejects, RejectObjects)
    return recipe.sink.url, recipe.rejects.url


def redirected(recipe: Recipe, redirect: Redirect, stores: OpenStore) -> Recipe:
    """The same objects, to other places."""
    sink, rejects = destinations(recipe)

    def former(url: str, part: str) -> ObjectStore | None:
        return None if redirect.gone else stores(url, part)

    if sink in redirect.to:
        to = stores(redirect.to[sink], "sink")
        recipe = replace(recipe, sink=RedirectedSink(recipe.sink, former(sink, "sink"), to))
    if rejects in redirect.to:
        to = stores(redirect.to[rejects], "rejects")
        recipe = replace(recipe, rejects=RedirectedRejects(recipe.rejects, former(rejects, "rejects"), to))
    return recipe
