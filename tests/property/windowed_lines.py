"""Lines with a time, counted in windows: parts of a windowed pipeline that are small, and what must come out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import orjson
import pyarrow as pa

from streamsvc.contracts import ObjectStore, ResultSink, Written
from streamsvc.core.segments import NEVER
from streamsvc.core.windows.assignment import Windows
from streamsvc.core.windows.event_time import EventTime
from streamsvc.records import NO_REJECTS, REJECTED, ROW, DataObject, Finished, ObjectInfo, Sifted, Window
from streamsvc.runtime.segment import Recipe
from streamsvc.runtime.window_recipe import Results, WindowRecipe
from streamsvc.testing.line_sink import LineRejects
from streamsvc.transforms.aggregation.aggregation import AggregationRules, WindowAggregation

SCHEMA = pa.schema([("line", pa.string()), ("us", pa.int64())])

Pair: TypeAlias = tuple[str, int]
"""A line, and the start of one of its windows."""


class TimedLines:
    """A decoder of ``<line> <microseconds>``; ``<line> -`` has no time, and ``bad ...`` is a reject."""

    version = 1
    schema = SCHEMA

    def decode(self, values: pa.Array) -> Sifted:
        rows, rejects = [], []
        for row, value in enumerate(values.to_pylist()):
            line, _, at = value.decode().partition(" ")
            if line == "bad":
                rejects.append({ROW: row, "reason": "bad", "error": "bad"})
            else:
                rows.append({"line": line, "us": None if at == "-" else int(at), ROW: row})
        schema = SCHEMA.append(pa.field(ROW, pa.int32()))
        return Sifted(
            pa.RecordBatch.from_pylist(rows, schema),
            pa.RecordBatch.from_pylist(rejects, REJECTED) if rejects else NO_REJECTS,
        )


class LatePairs:
    """A sink of late lines."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def open(self) -> OpenLatePairs:
        return OpenLatePairs()

    async def publish(self, objects: Sequence[DataObject]) -> list[ObjectInfo]:
        for item in objects:
            await put(self._store, item.key, b"".join(bytes(part) for part in item.body))
        return [ObjectInfo(item.key, item.rows, item.nbytes) for item in objects]


class OpenLatePairs:
    def __init__(self) -> None:
        self._pairs: list[Pair] = []

    @property
    def largest_bytes(self) -> int:
        return 20 * len(self._pairs)

    @property
    def memory_bytes(self) -> int:
        return self.largest_bytes

    @property
    def rows(self) -> int:
        return len(self._pairs)

    def write(self, rows: pa.RecordBatch) -> Written:
        starts = rows["window_start"].cast(pa.int64()).to_pylist()
        self._pairs += zip(rows["line"].to_pylist(), starts, strict=True)
        return Written(NO_REJECTS)

    def close(self, segment: str) -> list[DataObject]:
        return (
            [DataObject(f"late/{segment}", [orjson.dumps(sorted(self._pairs))], len(self._pairs))]
            if self._pairs
            else []
        )


class ResultPairs:
    """A sink of results: how often each line is in each window."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def publish(self, window: Window, results: Finished) -> list[ObjectInfo]:
        await put(self._store, f"results/{window.start_us}", orjson.dumps(counts_of(results)))
        return []


def counts_of(results: Finished) -> list[tuple[str, int, int]]:
    starts = results.rows["window_start"].cast(pa.int64()).to_pylist()
    return list(zip(results.rows["line"].to_pylist(), starts, results.rows["lines"].to_pylist(), strict=True))


async def put(store: ObjectStore, key: str, body: bytes) -> None:
    """What others have put there must be the same."""
    while not await store.create(key, body):
        found = await store.get(key)
        if found is not None:
            assert found == body, f"{key}: a second content"
            return


def aggregation(max_groups: int = 100_000) -> WindowAggregation:
    rules = AggregationRules({"line": "line"}, {"lines": "count(*)", "newest": "max(us)"}, max_groups=max_groups)
    return WindowAggregation(rules, SCHEMA)


def recipe_of(
    lake: ObjectStore,
    windows: Windows,
    *,
    disorder: int,
    lateness: int,
    max_ahead: int | None = None,
    aggregate: Callable[[], WindowAggregation] = aggregation,
    digest: str = "lines",
    results: ResultSink | None = None,
) -> Recipe:
    window = WindowRecipe(
        digest=digest,
        windows=windows,
        time=EventTime("us", "us"),
        disorder_us=disorder,
        lateness_us=lateness,
        max_ahead_us=max_ahead,
        aggregation=aggregate(),
        results=Results(aggregate(), results or ResultPairs(lake)),
    )
    return Recipe(TimedLines(), (), (), LatePairs(lake), LineRejects(lake), window)


def reference(
    splits: Mapping[str, Sequence[tuple[str, int]]], windows: Windows, disorder: int, lateness: int
) -> tuple[Counter[Pair], Counter[Pair]]:
    """Lines by window, and those that are late for it: what this is all about, in as few lines as can be."""
    in_time: Counter[Pair] = Counter()
    late: Counter[Pair] = Counter()
    for rows in splits.values():
        watermark = NEVER
        for line, at in rows:
            _, starts, ends = windows.assign(np.array([at], np.int64))
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                (late if watermark >= end + lateness else in_time)[line, start] += 1
            watermark = max(watermark, at - disorder)
    return in_time, late
