"""``rejects --replay``: what passes today lands once, whatever crashes, races and changes of configuration do."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from streamsvc.contracts import ObjectStore
from streamsvc.core.offsets import position_of, positions_of
from streamsvc.log.segment_log import SegmentLog
from streamsvc.records import REJECTED, ROW, Batch, Sifted, Span
from streamsvc.runtime.landing import Identity
from streamsvc.runtime.replay import Replay, Replayed
from streamsvc.runtime.segment import Recipe
from streamsvc.sinks.rejects import RejectObjects, read_rejects
from streamsvc.stores.memory import MemoryStore
from streamsvc.stores.retrying import RetryingStore
from streamsvc.testing.faulty_store import FaultyStore, random_faults
from streamsvc.testing.line_sink import LineRejects, LineSink


class UpTo:
    """Decodes numbers below a limit; a later configuration has a higher one."""

    version = 1
    schema = pa.schema([("value", pa.binary())])

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def decode(self, values: pa.Array) -> Sifted:
        raw = values.to_pylist()
        good = [row for row, value in enumerate(raw) if int(value) < self._limit]
        bad = [row for row, value in enumerate(raw) if int(value) >= self._limit]
        rows = pa.RecordBatch.from_arrays(
            [pa.array([raw[row] for row in good], pa.binary()), pa.array(good, pa.int32())], names=["value", ROW]
        )
        return Sifted(
            rows,
            pa.RecordBatch.from_pylist([{ROW: row, "reason": "big", "error": "big"} for row in bad], schema=REJECTED),
        )


def batch(numbers: range) -> Batch:
    values = pa.array([str(number).encode() for number in numbers], pa.binary())
    return Batch(
        spans=(Span("s", len(numbers), position_of(numbers.start), position_of(numbers.stop)),),
        values=values,
        offsets=pa.array(list(numbers), pa.int64()),
        position_text=positions_of,
        arrivals=lambda: pa.nulls(len(values), pa.timestamp("ms", tz="UTC")),
        keys=lambda: pa.nulls(len(values), pa.binary()),
        headers=lambda: pa.nulls(len(values), pa.map_(pa.string(), pa.binary())),
        nbytes=values.nbytes,
    )


class Scene:
    """Three reject objects of ten records each."""

    def __init__(self, seed: int, fault_share: float) -> None:
        self.random = random.Random(seed)
        self.name = f"scene-{uuid4().hex}"
        self.fault_share = fault_share

    def store(self, prefix: str) -> ObjectStore:
        faults = random_faults(self.random.getrandbits(32), before=self.fault_share / 2, after=self.fault_share / 2)
        return RetryingStore(FaultyStore(MemoryStore(self.name, prefix), faults), sleep=lambda _: asyncio.sleep(0))

    async def reject(self) -> None:
        sink = RejectObjects(MemoryStore(self.name, "rejects"))
        for number in range(3):
            numbers = range(number * 10, number * 10 + 10)
            rejected = [{ROW: row, "reason": "old", "error": "old"} for row in range(10)]
            collected = sink.open()
            collected.add(batch(numbers), pa.RecordBatch.from_pylist(rejected, schema=REJECTED))
            await sink.publish(collected.close(f"20261124T00000{number}Z-x"))

    async def replay(self, limit: int) -> Replayed:
        lake = self.store("lake")

        def build(document: dict[str, Any]) -> Recipe:
            return Recipe(UpTo(document["limit"]), (), (), LineSink(lake), LineRejects(lake))

        log = SegmentLog(self.store("state"), f"replay-{uuid4().hex[:6]}", position_of(0), landing_s=0.0)
        digest = await log.save_config({"limit": limit})
        identity = Identity("p", digest, 1, lambda: f"20261124T000000Z-{uuid4().hex[:12]}")
        return await Replay(identity, log, build({"limit": limit}), build, self.store("rejects"), read_rejects).run()

    async def landed(self) -> Counter[int]:
        store = MemoryStore(self.name, "lake")
        found: Counter[int] = Counter()
        async for entry in store.list(""):
            body = await store.get(entry.key)
            assert body is not None
            found.update(int(line) for line in body.split(b"\n"))
        return found


async def test_what_passes_lands_and_the_rest_is_counted() -> None:
    scene = Scene(1, 0.0)
    await scene.reject()
    report = await scene.replay(12)
    assert (report.records, report.landed, report.still_rejected) == (30, 12, Counter(big=18))
    again = await scene.replay(12)
    assert (again.landed, again.landed_before) == (0, 12)
    assert await scene.landed() == Counter(range(12))


async def test_a_later_configuration_lands_only_what_is_new() -> None:
    scene = Scene(2, 0.0)
    await scene.reject()
    await scene.replay(5)
    report = await scene.replay(25)
    assert (report.landed, report.landed_before) == (20, 5)
    assert await scene.landed() == Counter(range(25))


@pytest.mark.parametrize("seed", range(20))
async def test_races_and_crashes(seed: int) -> None:
    scene = Scene(seed, 0.2)
    await scene.reject()
    for _ in range(6):
        tasks = [asyncio.create_task(scene.replay(scene.random.choice([5, 15, 25]))) for _ in range(3)]
        await asyncio.sleep(scene.random.random() * 0.02)
        for task in tasks:
            if scene.random.random() < 0.6:
                task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
    await scene.replay(25)
    assert await scene.landed() == Counter(range(25))
