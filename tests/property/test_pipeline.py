"""The pipeline's own loop over a scripted source and a faulty store: whatever happens, each record lands once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

import orjson
import pyarrow as pa
import pytest

from streamsvc.contracts import ObjectStore
from streamsvc.errors import ForeignState, PositionLost
from streamsvc.log.reader import digest_of
from streamsvc.log.segment_log import SegmentLog
from streamsvc.ops.metrics import Metrics
from streamsvc.records import REJECTED, ROW, Sifted
from streamsvc.runtime.finishing import Finisher
from streamsvc.runtime.landing import Identity
from streamsvc.runtime.memory import MemoryBudget
from streamsvc.runtime.observer import Observer
from streamsvc.runtime.pipeline import Pipeline, Policy
from streamsvc.runtime.segment import Recipe
from streamsvc.stores.memory import MemoryStore
from streamsvc.stores.retrying import RetryingStore
from streamsvc.testing.faulty_store import FaultyStore, random_faults
from streamsvc.testing.line_sink import LineRejects, LineSink
from streamsvc.testing.memory_source import Fault, MemorySource, MemoryTopic, Record

SPLITS = ("a", "b", "c")
CONFIG = {"decode": "odd"}
CONFIG_DIGEST = digest_of(orjson.dumps(CONFIG))


class OddOnesOut:
    """A decoder whose values are kept as they are, but for those that begin with ``bad``."""

    version = 1
    schema = pa.schema([("value", pa.binary())])

    def decode(self, values: pa.Array) -> Sifted:
        raw = values.to_pylist()
        good = [row for row, value in enumerate(raw) if not value.startswith(b"bad")]
        bad = [row for row, value in enumerate(raw) if value.startswith(b"bad")]
        rows = pa.RecordBatch.from_arrays(
            [pa.array([raw[row] for row in good], pa.binary()), pa.array(good, pa.int32())], names=["value", ROW]
        )
        rejects = pa.RecordBatch.from_pylist(
            [{ROW: row, "reason": "bad", "error": "bad"} for row in bad], schema=REJECTED
        )
        return Sifted(rows, rejects)


class World:
    """A topic, a lake, a state prefix; workers come and go."""

    def __init__(self, seed: int, fault_share: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.topic = MemoryTopic(SPLITS, revoke_deadline_s=0.3)
        self.name = f"world-{uuid4().hex}"
        self.fault_share = fault_share
        self.produced: Counter[bytes] = Counter()
        self.made = 0

    def store(self, prefix: str) -> ObjectStore:
        inner = MemoryStore(self.name, prefix)
        if not self.fault_share:
            return inner
        faults = random_faults(self.random.getrandbits(32), before=self.fault_share / 2, after=self.fault_share / 2)
        return RetryingStore(FaultyStore(inner, faults), sleep=lambda _: asyncio.sleep(0))

    def produce(self, records: int) -> None:
        for _ in range(records):
            split = self.random.choice(SPLITS)
            kind = "bad" if self.random.random() < 0.05 else self.random.choice("xyz")
            value = f"{kind}-{split}-{self.made}".encode()
            self.made += 1
            self.produced[value] += 1
            self.topic.append(split, Record(value))

    def worker(
        self,
        *,
        until_end: bool = False,
        memory: int | MemoryBudget = 1 << 20,
        max_partitions: int = 500,
        faults: Sequence[Fault] = (),
        group: str = "group",
        **policy: float,
    ) -> Worker:
        """``policy`` changes fields of ``Policy``."""
        budget = memory if isinstance(memory, MemoryBudget) else MemoryBudget(memory)
        rows = partial(self.random.randint, 1, 40)
        source = MemorySource(self.topic, group=group, batch_rows=rows, faults=faults)
        quick = Policy(size_bytes=3000, interval_s=0.02, until_end=until_end, tick_s=0.01)
        return Worker(self, source, budget, max_partitions, replace(quick, **policy))  # type: ignore[arg-type]

    async def landed(self) -> Counter[bytes]:
        """By plain listing: every object under the sink, whatever the log says."""
        store = MemoryStore(self.name, "lake")
        found: Counter[bytes] = Counter()
        async for entry in store.list(""):
            body = await store.get(entry.key)
            assert body is not None
            found.update(body.split(b"\n"))
        return found


class Worker:
    def __init__(
        self, world: World, source: MemorySource, budget: MemoryBudget, max_partitions: int, policy: Policy
    ) -> None:
        lake = world.store("lake")
        name = f"worker-{uuid4().hex[:6]}"

        def build(stored: dict[str, Any] | None = None) -> Recipe:
            limit = max_partitions if stored is None else 10**9
            sink = LineSink(lake, lambda value: value[:1].decode(), limit)
            return Recipe(OddOnesOut(), (), (), sink, LineRejects(lake))

        self.source = source
        log = SegmentLog(world.store("state"), name, self.source.first_position, landing_s=0.02)
        self.observer = Observer("p", Metrics("test"))
        self.log = log
        self.pipeline = Pipeline(
            Identity(world.name, CONFIG_DIGEST, 1, lambda: f"20261124T000000Z-{uuid4().hex[:12]}"),
            self.source,
            log,
            build(),
            Finisher(self.source, log, build, self.observer),
            policy,
            budget,
            self.observer,
        )

    async def run(self) -> None:
        assert await self.log.save_config(CONFIG) == CONFIG_DIGEST
        async with self.source:
            await self.pipeline.run()


async def settle(world: World) -> None:
    async with asyncio.timeout(30):
        await world.worker(until_end=True).run()


@pytest.mark.parametrize("seed", range(3))
async def test_until_end_lands_everything_once(seed: int) -> None:
    world = World(seed)
    world.produce(2000)
    await settle(world)
    assert await world.landed() == world.produced


async def test_two_workers_share_and_a_third_takes_over() -> None:
    world = World(1)
    world.produce(500)
    workers = [world.worker() for _ in range(2)]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    for _ in range(20):
        world.produce(100)
        await asyncio.sleep(0.01)
    third = world.worker()
    tasks.append(asyncio.create_task(third.run()))
    for _ in range(20):
        world.produce(100)
        await asyncio.sleep(0.01)
    for worker in (*workers, third):
        worker.pipeline.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), 20)
    await settle(world)
    assert await world.landed() == world.produced


@pytest.mark.parametrize("seed", range(12))
async def test_crashes_lost_sessions_and_a_faulty_store(seed: int) -> None:
    world = World(seed, fault_share=0.1)
    world.produce(200)
    running: dict[asyncio.Task[None], Worker] = {}
    lost: set[asyncio.Task[None]] = set()
    kills = 0
    for _ in range(60):
        world.produce(world.random.randint(0, 60))
        if len(running) < 3:
            worker = world.worker()
            running[asyncio.create_task(worker.run())] = worker
        task = world.random.choice(list(running))
        match world.random.randint(0, 5):
            case 0:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                kills += 1
                del running[task]
            case 1 if task not in lost and running[task].observer.was_assigned:
                running[task].source.lose_session()
                lost.add(task)
            case 2 if task in lost:
                running[task].source.rejoin()
                lost.remove(task)
        await asyncio.sleep(world.random.random() * 0.03)
    assert kills > 2
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await settle(world)
    assert await world.landed() == world.produced


async def test_another_service_on_the_same_state_is_refused_before_it_lands_anything() -> None:
    world = World(2)
    world.produce(200)
    await settle(world)
    world.produce(200)
    stranger = world.worker(until_end=True, group="another service")
    with pytest.raises(ForeignState):
        await asyncio.wait_for(stranger.run(), 20)
    assert stranger.observer.summary.segments == 0
    await settle(world)
    assert await world.landed() == world.produced


async def test_a_split_that_is_gone_before_its_end_is_named_and_not_waited_for() -> None:
    world = World(9)
    world.topic.append("a", *[Record(b"x-a")] * 10)
    worker = world.worker(until_end=True, look_s=0.02, faults=[Fault("read", 1, None)])
    running = asyncio.create_task(worker.run())
    while not worker.observer.was_assigned:
        await asyncio.sleep(0.005)
    world.topic.remove_split("a")
    with pytest.raises(PositionLost, match=r"split=a, landed=0+, end=0*10"):
        await running


async def test_a_split_that_is_gone_after_its_end_was_taken_in_is_no_failure() -> None:
    world = World(10)
    world.produce(300)
    worker = world.worker(until_end=True, interval_s=60.0, look_s=0.0)
    running = asyncio.create_task(worker.run())
    while worker.observer.records_read < 300:
        await asyncio.sleep(0)
    world.topic.remove_split("a")
    await running
    assert await world.landed() == world.produced


async def test_memory_short_for_one_segment_cuts_early_and_loses_nothing() -> None:
    world = World(5)
    world.produce(3000)
    worker = world.worker(until_end=True, memory=600)
    await asyncio.wait_for(worker.run(), 20)
    assert await world.landed() == world.produced
    assert worker.observer.summary.segments > 10


async def test_one_partition_too_many_cuts_the_segment() -> None:
    world = World(6)
    world.produce(1000)
    worker = world.worker(until_end=True, max_partitions=2)
    await asyncio.wait_for(worker.run(), 20)
    assert await world.landed() == world.produced
    assert worker.observer.summary.segments > 10


async def test_stop_lands_what_was_taken_in() -> None:
    world = World(7)
    world.produce(1000)
    worker = world.worker()
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(10):
        while worker.observer.records_read < 1000:
            await asyncio.sleep(0.005)
    worker.pipeline.stop()
    await asyncio.wait_for(task, 10)
    committed = sum((await world.landed()).values())
    standings = await worker.log.standings(SPLITS)
    assert committed == sum(int(standing.cursor.position) for standing in standings.values())


async def test_a_running_worker_that_loses_a_claim_asks_the_log_and_goes_on() -> None:
    world = World(8)
    world.produce(600)
    worker = world.worker()
    task = asyncio.create_task(worker.run())
    rival = world.worker()
    async with asyncio.timeout(20):
        while worker.observer.summary.records < 600:
            await asyncio.sleep(0.005)
        before = (await rival.log.standings(SPLITS))["a"].cursor
        await rival.log.seek({"a": rival.source.first_position}, "once more from the start")
        world.produce(300)
        while worker.observer.summary.records < 900 + int(before.position):
            await asyncio.sleep(0.005)
        worker.pipeline.stop()
        await task
    assert (await rival.log.standings(SPLITS))["a"].cursor.epoch == before.epoch + 1
    landed = await world.landed()
    twice = {value for value, count in landed.items() if count == 2}
    assert set(landed) == set(world.produced)
    assert len(twice) == int(before.position)
    assert all(value.split(b"-")[1] == b"a" for value in twice)
