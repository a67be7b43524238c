"""A pipeline that has to wait: for its source, for memory that another holds, for records that do not come.

What must come is waited for as long as it takes, and stays once it has come; what hangs is ended by the suite's limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace

from streamsvc.contracts import ObjectStore, Source
from streamsvc.errors import SourceUnavailable
from streamsvc.runtime.health import Watched
from streamsvc.runtime.memory import MemoryBudget
from streamsvc.runtime.pipeline import Pipeline
from streamsvc.runtime.worker import Worker as Service
from streamsvc.testing.faulty_store import Fault as StoreFault
from streamsvc.testing.faulty_store import FaultyStore
from streamsvc.testing.memory_source import Fault
from tests.property.test_pipeline import SPLITS, World


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.005)


async def test_a_seek_of_a_silent_split_is_followed() -> None:
    world = World(8)
    world.produce(300)
    worker = world.worker(look_s=0.05)
    running = asyncio.create_task(worker.run())
    await until(lambda: worker.observer.summary.records == 300)
    log = world.worker().log
    before = (await log.standings(SPLITS))["a"].cursor
    await log.seek({"a": worker.source.first_position}, "once more from the start")
    await until(lambda: worker.observer.summary.records == 300 + int(before.position))
    worker.pipeline.stop()
    await running
    assert (await log.standings(SPLITS))["a"].cursor == replace(before, epoch=before.epoch + 1)


async def test_stop_is_heeded_while_the_source_fails_at_the_start() -> None:
    faults = [Fault("first_positions", nth, SourceUnavailable("down")) for nth in range(1, 1000)]
    worker = World(1).worker(faults=faults)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0)
    worker.pipeline.stop()
    await running


async def test_a_worker_for_which_no_split_is_left_is_ready() -> None:
    world = World(3)
    workers = [world.worker() for _ in range(len(SPLITS) + 1)]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    await until(lambda: sum(len(worker.pipeline.splits.reached) for worker in workers) == len(SPLITS))
    idle = [worker for worker in workers if not worker.pipeline.splits.assigned]
    assert [Watched(worker.pipeline, worker.observer, worker.source, "", "").problems() for worker in idle] == [{}]
    for worker in workers:
        worker.pipeline.stop()
    await asyncio.gather(*running)


class Shut(World):
    """No call of the stores under the prefixes ``shut`` is answered."""

    shut: frozenset[str] = frozenset()

    def store(self, prefix: str) -> ObjectStore:
        return FaultyStore(super().store(prefix), self._faults(prefix))

    def _faults(self, prefix: str) -> Iterator[StoreFault | None]:
        while True:
            yield StoreFault.HANG if prefix in self.shut else None


class CountingBudget(MemoryBudget):
    """How often somebody had no room."""

    asked = 0

    def ask_largest(self) -> str:
        self.asked += 1
        return super().ask_largest()


async def test_memory_that_another_holds_for_long_keeps_nothing_from_landing_nor_from_stopping() -> None:
    """The other's store does not answer, and it holds all but what one batch of this one needs."""
    largest_batch = 600
    budget = CountingBudget(1 << 20)
    greedy, modest = Shut(1), World(2)
    hoarder = greedy.worker(memory=budget, size_bytes=1 << 30, interval_s=1000)
    worker = modest.worker(memory=budget, interval_s=0.3)
    tasks = [asyncio.create_task(each.run()) for each in (hoarder, worker)]
    await until(lambda: len(hoarder.pipeline.splits.reached) == len(worker.pipeline.splits.reached) == len(SPLITS))
    greedy.shut = frozenset({"state", "lake"})
    greedy.produce(500)
    await until(lambda: (status := hoarder.pipeline.open_segment()) is not None and status["records"] == 500)
    budget.limit_bytes = budget.held_bytes + largest_batch
    modest.produce(400)
    await until(lambda: worker.observer.summary.records == 400)
    budget.asked = 0
    while not budget.asked:
        modest.produce(40)
        await asyncio.sleep(0.005)
    worker.pipeline.stop()
    await tasks[1]
    tasks[0].cancel()
    await asyncio.wait(tasks)


async def test_a_segment_that_is_finished_for_another_counts_as_memory() -> None:
    world = Shut(4)
    world.shut = frozenset({"lake"})
    world.produce(300)
    planner = world.worker(size_bytes=1 << 30, interval_s=1000)
    running = asyncio.create_task(planner.run())
    await until(lambda: (status := planner.pipeline.open_segment()) is not None and status["records"] == 300)
    planner.pipeline.stop()
    while not all(standing.pending for standing in (await planner.log.standings(SPLITS)).values()):
        await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.wait([running])

    budget = MemoryBudget(1 << 20)
    finisher = world.worker(memory=budget)
    running = asyncio.create_task(finisher.run())
    await until(lambda: budget.held_bytes > 0)
    assert finisher.observer.records_read == 0
    running.cancel()
    await asyncio.wait([running])
    await until(lambda: budget.held_bytes == 0)


async def test_a_pipeline_that_opens_in_the_moment_of_the_stop_does_not_run() -> None:
    inside = World(5).worker()

    async def open_and_be_stopped() -> tuple[Source, Pipeline]:
        service.stop()
        return inside.source, inside.pipeline

    service = Service([open_and_be_stopped], drain_s=1000)
    await service.run()
