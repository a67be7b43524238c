"""Rejects decoded again under today's configuration; what now passes lands once, however often this is run.

A reject object is a split of the log of its pipeline, and each replay of it the next attempt. The outcome of a replay
lists the records that it landed, which later replays leave out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeAlias

import pyarrow as pa

from streamsvc.contracts import ObjectStore, OpenObjects
from streamsvc.core.log_keys import Cursor
from streamsvc.core.segments import Outcome, Plan, Range
from streamsvc.errors import LogCorrupt
from streamsvc.log.segment_log import SegmentLog
from streamsvc.records import ROW, Batch, DataObject, ObjectInfo, Span, Split
from streamsvc.runtime.finishing import Build, recipe_of
from streamsvc.runtime.landing import Identity
from streamsvc.runtime.segment import Recipe

OBJECTS_A_SEGMENT = 50

ReadRejects: TypeAlias = Callable[[bytes], Iterator[pa.RecordBatch]]
"""A reject object to its records: columns ``split, position, arrival, reason, error, key, headers, value``."""


def split_of(key: str) -> Split:
    """The name under which the log knows a reject object."""
    return f"reject@{key}"


def is_reject_object(split: Split) -> bool:
    return split.startswith("reject@")


def key_of(split: Split) -> str:
    return split.removeprefix("reject@")


@dataclass(slots=True)
class Replayed:
    """What a replay did. ``still_rejected`` counts by today's reason."""

    objects: int = 0
    records: int = 0
    landed_before: int = 0
    landed: int = 0
    still_rejected: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Passed:
    """What passes of some reject objects, in open data objects."""

    objects: OpenObjects
    numbers: dict[Split, list[int]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)


class Replay:
    """``recipe`` is today's, ``build`` makes those of unfinished replays; both without a limit on partitions."""

    def __init__(
        self,
        identity: Identity,
        log: SegmentLog,
        recipe: Recipe,
        build: Build,
        rejects: ObjectStore,
        read_rejects: ReadRejects,
    ) -> None:
        self._identity = identity
        self._log = log
        self._recipe = recipe
        self._build = build
        self._rejects = rejects
        self._read_rejects = read_rejects

    async def run(self) -> Replayed:
        """Every reject object there is now. A crash leaves at most one segment to be finished by the next run."""
        report = Replayed()
        keys = [entry.key async for entry in self._rejects.list("")]
        for at in range(0, len(keys), OBJECTS_A_SEGMENT):
            splits = [split_of(key) for key in keys[at : at + OBJECTS_A_SEGMENT]]
            while not await self._replay(splits, report):
                pass
        return report

    async def _replay(self, splits: Sequence[Split], report: Replayed) -> bool:
        """One segment. False: another replay was at the same objects; what it landed is to be left out."""
        cursors = await self._log.recover_all(splits, self._finish)
        landed = {split: standing.landed for split, standing in (await self._log.standings(splits)).items()}
        passed = _Passed(self._recipe.sink.open())
        records = 0
        for split in splits:
            table = await self._records(split)
            records += table.num_rows
            wanted = [number for number in range(table.num_rows) if number not in landed[split]]
            await asyncio.to_thread(_sift, self._recipe, split, table, wanted, passed)
        outcome = await self._land(cursors, passed)
        if outcome is not None and not outcome.committed:
            return False
        report.objects += len(splits)
        report.records += records
        report.landed_before += sum(len(numbers) for numbers in landed.values())
        report.landed += sum(len(numbers) for numbers in passed.numbers.values())
        report.still_rejected += passed.refused
        return True

    async def _land(self, cursors: dict[Split, Cursor], passed: _Passed) -> Outcome | None:
        if not passed.numbers:
            return None
        segment = self._identity.new_segment()
        plan = await self._log.plan(
            segment,
            {split: Range(cursors[split], cursors[split].position) for split in passed.numbers},
            config=self._identity.config,
            decode_version=self._identity.decode_version,
            landed=passed.numbers,
        )
        objects = await asyncio.to_thread(passed.objects.close, segment)
        return await self._log.land(plan, lambda: self._publish(self._recipe, objects))

    @staticmethod
    async def _publish(recipe: Recipe, objects: Sequence[DataObject]) -> list[ObjectInfo]:
        return await recipe.sink.publish(objects)

    async def _finish(self, plan: Plan) -> list[ObjectInfo]:
        recipe = await recipe_of(plan, self._log, self._build)
        passed = _Passed(recipe.sink.open())
        for split, numbers in plan.landed.items():
            table = await self._records(split)
            await asyncio.to_thread(_sift, recipe, split, table, sorted(numbers), passed)
        if passed.refused:
            raise LogCorrupt("a replay does not decode as it was planned", segment=plan.segment, rejects=passed.refused)
        return await recipe.sink.publish(await asyncio.to_thread(passed.objects.close, plan.segment))

    async def _records(self, split: Split) -> pa.Table:
        body = await self._rejects.get(key_of(split))
        if body is None:
            raise LogCorrupt(
                "a reject object is gone", hint="Restore it, or leave it out of the prefix.", key=key_of(split)
            )
        return pa.Table.from_batches(await asyncio.to_thread(lambda: list(self._read_rejects(body))))


def _sift(recipe: Recipe, split: Split, table: pa.Table, numbers: Sequence[int], passed: _Passed) -> None:
    """Decode these records of a reject object; those that pass are written and remembered."""
    if not numbers:
        return
    batch = batch_of(table.take(pa.array(numbers, pa.int64())).combine_chunks())
    rows, rejects = recipe.sift(batch)
    rejects.append(passed.objects.write(rows).rejects)
    refused = {row for rejected in rejects for row in rejected[ROW].to_pylist()}
    for rejected in rejects:
        passed.refused.update(rejected["reason"].to_pylist())
    kept = [number for row, number in enumerate(numbers) if row not in refused]
    if kept:
        passed.numbers[split] = kept


def batch_of(table: pa.Table) -> Batch:
    """Rejected records as they came from the source."""

    def column(name: str) -> pa.Array:
        chunks = table.column(name).chunks
        return pa.concat_arrays(chunks)

    runs = [(name, len(list(run))) for name, run in groupby(column("split").to_pylist())]
    return Batch(
        spans=tuple(Span(name, rows, "", "") for name, rows in runs),
        values=column("value"),
        offsets=column("position"),
        position_text=lambda positions: positions,
        arrivals=lambda: column("arrival"),
        keys=lambda: column("key"),
        headers=lambda: column("headers"),
        nbytes=table.nbytes,
    )
