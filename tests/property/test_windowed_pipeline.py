"""Windowed pipelines over a scripted source and a faulty store: each line is in its window or late, come what may."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import orjson
import pytest
from structlog.testing import capture_logs

from streamsvc.contracts import ObjectStore, ResultSink
from streamsvc.core.segments import Watermark
from streamsvc.core.windows.assignment import FixedWindows
from streamsvc.core.windows.control import View
from streamsvc.errors import SourceUnavailable, StoreRefused, WindowsChanged
from streamsvc.log.reader import digest_of
from streamsvc.log.window_log import WindowLog
from streamsvc.ops.metrics import Metrics
from streamsvc.records import Finished, ObjectInfo, Window
from streamsvc.runtime import destinations
from streamsvc.runtime.destinations import Closings
from streamsvc.runtime.finishing import Finisher
from streamsvc.runtime.landing import Identity
from streamsvc.runtime.memory import MemoryBudget
from streamsvc.runtime.observer import Observer
from streamsvc.runtime.pipeline import Pipeline, Policy
from streamsvc.runtime.segment import Recipe
from streamsvc.sinks.retrying import RetryingResults
from streamsvc.stores.memory import MemoryStore
from streamsvc.stores.retrying import RetryingStore, StoreHealth
from streamsvc.testing.faulty_store import Fault, FaultyStore, random_faults
from streamsvc.testing.memory_source import MemorySource, MemoryTopic, Record
from tests.property.windowed_lines import Pair, ResultPairs, aggregation, recipe_of, reference

SPLITS = ("a", "b", "c")
CONFIG = {"decode": "timed lines"}
CONFIG_DIGEST = digest_of(orjson.dumps(CONFIG))
WINDOWS = FixedWindows(100, 100)
DISORDER, LATENESS = 20, 10
AGGREGATION = aggregation()


class World:
    """A topic of timed lines, a lake, a state prefix; workers come and go."""

    def __init__(self, seed: int, fault_share: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.topic = MemoryTopic(SPLITS, revoke_deadline_s=0.3)
        self.name = f"world-{uuid4().hex}"
        self.fault_share = fault_share
        self.now = 0
        self.produced: dict[str, list[tuple[str, int]]] = {}

    def store(self, prefix: str) -> ObjectStore:
        inner = MemoryStore(self.name, prefix)
        if not self.fault_share:
            return inner
        faults = random_faults(self.random.getrandbits(32), before=self.fault_share / 2, after=self.fault_share / 2)
        return RetryingStore(FaultyStore(inner, faults), sleep=lambda _: asyncio.sleep(0))

    def produce(self, records: int, splits: tuple[str, ...] = SPLITS) -> None:
        """Time goes on, a bit to and fro; now and then somebody is far behind."""
        for _ in range(records):
            self.now += 1
            behind = self.random.randint(0, DISORDER) if self.random.random() < 0.95 else 500
            self.put(self.random.choice(splits), max(0, self.now - behind))

    def put(self, split: str, at: int, *, arrival_ms: int | None = None) -> str:
        rows = self.produced.setdefault(split, [])
        line = f"{split}{len(rows)}"
        rows.append((line, at))
        self.topic.append(split, Record(f"{line} {at}".encode(), timestamp_ms=arrival_ms))
        return line

    def worker(self, **options: Any) -> Worker:
        return Worker(self, **options)

    async def found(self) -> tuple[Counter[Pair], Counter[Pair]]:
        """By plain listing: results, and what was late."""
        store = MemoryStore(self.name, "lake")
        results: Counter[Pair] = Counter()
        late: Counter[Pair] = Counter()
        async for entry in store.list(""):
            body = orjson.loads(await store.get(entry.key) or b"[]")
            if entry.key.startswith("results/"):
                results.update({(line, start): lines for line, start, lines in body})
            else:
                late.update((line, start) for line, start in body)
        return results, late

    async def check(self) -> None:
        """Every line once, and late at least what is late in its own split."""
        results, late = await self.found()
        in_time, late_alone = reference(self.produced, WINDOWS, DISORDER, LATENESS)
        assert results + late == in_time + late_alone
        assert not late_alone - late

    async def view(self) -> View:
        return await self.worker().log.view()


class Worker:
    def __init__(
        self,
        world: World,
        *,
        until_end: bool = False,
        close: bool = False,
        idle_after_s: float | None = None,
        memory: int | MemoryBudget = 1 << 24,
        interval_s: float = 0.02,
        digest: str = "lines",
        max_ahead: int | None = None,
        results: Callable[[Observer], ResultSink] | None = None,
    ) -> None:
        lake = world.store("lake")
        self.observer = Observer("p", Metrics("test"))
        name = f"worker-{uuid4().hex[:6]}"

        def build(stored: dict[str, Any] | None = None) -> Recipe:
            return recipe_of(
                lake,
                WINDOWS,
                disorder=DISORDER,
                lateness=LATENESS,
                max_ahead=max_ahead,
                aggregate=lambda: AGGREGATION,
                digest=digest,
                results=results(self.observer) if results else None,
            )

        recipe = build()
        assert recipe.window is not None
        assert recipe.window.results is not None
        self.source = MemorySource(world.topic, batch_rows=lambda: world.random.randint(1, 40))
        self.log = WindowLog(
            world.store("state"), name, self.source.first_position, landing_s=0.02, merge=recipe.window.results.merge
        )
        self.finisher = Finisher(self.source, self.log, build, self.observer)
        self.pipeline = Pipeline(
            Identity("p", CONFIG_DIGEST, recipe.version, lambda: f"20261124T000000Z-{uuid4().hex[:12]}"),
            self.source,
            self.log,
            recipe,
            self.finisher,
            Policy(
                size_bytes=1 << 20,
                interval_s=interval_s,
                until_end=until_end,
                tick_s=0.01,
                closings=Closings(at_end=close, idle_after_s=idle_after_s, poll_s=0.01),
            ),
            memory if isinstance(memory, MemoryBudget) else MemoryBudget(memory),
            self.observer,
        )

    async def run(self) -> None:
        assert await self.log.save_config(CONFIG) == CONFIG_DIGEST
        async with self.source:
            await self.pipeline.run()


async def settle(world: World) -> None:
    async with asyncio.timeout(60):
        await world.worker(until_end=True, close=True).run()


@pytest.mark.parametrize("workers", [1, 3])
async def test_what_was_there_is_in_the_windows_of_the_reference(workers: int) -> None:
    """Nothing joins or is lifted before it is read, so nothing is late but what is late in its own split."""
    world = World(workers)
    world.produce(1500)
    async with asyncio.timeout(60):
        await asyncio.gather(*(world.worker(until_end=True, close=True).run() for _ in range(workers)))
    results, late = await world.found()
    assert (results, late) == reference(world.produced, WINDOWS, DISORDER, LATENESS)
    assert late


async def test_until_end_leaves_the_last_windows_open_for_tomorrow() -> None:
    world = World(3)
    world.produce(450)
    async with asyncio.timeout(60):
        await world.worker(until_end=True).run()
    results, _ = await world.found()
    assert max(start for _, start in results) < 400
    assert 400 in (await world.view()).open_windows
    world.produce(450)
    await settle(world)
    await world.check()
    assert (await world.view()).open_windows == []


async def test_rows_of_tomorrow_are_not_late_for_windows_that_were_closed_at_the_end() -> None:
    world = World(4)
    world.produce(350)
    await settle(world)
    closed = (await world.view()).control.passed
    world.now = closed + 100
    lines = [world.put(split, world.now) for split in SPLITS]
    await settle(world)
    results, _ = await world.found()
    assert all((line, world.now // 100 * 100) in results for line in lines)


async def until(world: World, reached: Any) -> None:
    async with asyncio.timeout(30):
        while not reached(await world.view()):
            await asyncio.sleep(0.01)


async def test_an_idle_split_holds_nothing_back() -> None:
    """Two of three are idle; then one of them is not, and its rows that come too late are late."""
    world = World(5)
    for split in SPLITS:
        world.put(split, 50)
    task = asyncio.create_task(world.worker().run())
    await until(world, lambda view: len(view.standings) == 3 and all(at.watermark for at in view.standings.values()))
    world.put("a", 500)
    await until(world, lambda view: view.control.closed == 0)
    view = await world.view()
    assert view.watermark("b") == view.watermark("c") == Watermark(480, True)
    missed, found = world.put("b", 60), world.put("b", 490)
    await until(world, lambda view: view.standings["b"].cursor.position[-1] == "3")
    task.cancel()
    await asyncio.wait([task])
    await settle(world)
    results, late = await world.found()
    assert (missed, 0) in late
    assert (found, 400) in results


async def test_a_split_that_appears_begins_where_the_last_window_was_closed() -> None:
    world = World(6)
    task = asyncio.create_task(world.worker().run())
    for at in (50, 350):
        for split in SPLITS:
            world.put(split, at)
    await until(world, lambda view: view.control.closed == 0)
    world.topic.add_split("new")
    missed, found = world.put("new", 60), world.put("new", 160)
    await until(world, lambda view: "new" in view.standings and view.standings["new"].watermark)
    assert (await world.view()).control.joined["new"] == 110
    task.cancel()
    await asyncio.wait([task])
    await settle(world)
    results, late = await world.found()
    assert (missed, 0) in late
    assert (found, 100) in results


async def test_children_begin_where_their_parent_ended() -> None:
    world = World(7)
    task = asyncio.create_task(world.worker().run())
    for at in (50, 300):
        for split in SPLITS:
            world.put(split, at)
    await until(world, lambda view: view.control.closed == 0)
    for child in ("a1", "a2"):
        world.topic.add_split(child, parents=["a"])
    for split in ("a1", "a2", "b", "c"):
        world.put(split, 500)
    await until(world, lambda view: view.control.closed == 200 or view.control.closed == 300)
    view = await world.view()
    assert view.control.ended == ["a"]
    assert view.control.joined["a1"] == view.control.joined["a2"] == 280
    task.cancel()
    await asyncio.wait([task])
    await settle(world)
    await world.check()


async def test_a_split_that_the_source_has_no_longer_holds_nothing_back() -> None:
    """It had no children, as the shards of a stream that was made anew."""
    world = World(11)
    for split in SPLITS:
        world.put(split, 50)
    await asyncio.wait_for(world.worker(until_end=True).run(), 60)
    world.topic.remove_split("b")
    for split in ("a", "c"):
        world.put(split, 500)
    await asyncio.wait_for(world.worker(until_end=True).run(), 60)
    view = await world.view()
    assert (view.control.ended, view.control.closed, view.pipeline_watermark) == (["b"], 0, 480)
    await settle(world)
    await world.check()


async def test_who_closes_windows_at_the_end_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "WAITS_TOLD_EVERY_S", 0.05)
    world = World(14)
    world.put("a", 50)
    await asyncio.wait_for(world.worker(until_end=True).run(), 60)
    await world.worker().log.join(["ghost"], ["ghost"], {})
    worker = world.worker(until_end=True, close=True)
    with capture_logs() as told:
        task = asyncio.create_task(worker.run())
        while not any(line["event"].startswith("windows cannot be closed") for line in told):
            await asyncio.sleep(0.01)
    [first, *_] = [line for line in told if line["event"].startswith("windows cannot be closed")]
    assert (first["split"], first["windows"]) == ("ghost", 1)
    await worker.log.end(["ghost"], "it is gone", worker.finisher)
    await asyncio.wait_for(task, 60)
    await world.check()


async def test_a_split_that_was_ended_by_hand_holds_nothing_back_and_what_still_comes_of_it_is_late() -> None:
    world = World(12)
    for split in SPLITS:
        world.put(split, 50)
    running = world.worker()
    task = asyncio.create_task(running.run())
    await until(world, lambda view: len(view.standings) == 3 and all(at.watermark for at in view.standings.values()))
    command = world.worker()
    await command.log.end(["b"], "it is gone", command.finisher)
    for split in SPLITS:
        world.put(split, 300)
    missed = world.put("b", 800)
    for split in ("a", "c"):
        world.put(split, 700)
    await until(world, lambda view: view.control.closed == 300 and view.standings["b"].cursor.position[-1] == "3")
    task.cancel()
    await asyncio.wait([task])
    await settle(world)
    await world.check()
    _, late = await world.found()
    assert {("b1", 300), (missed, 800)} <= late.keys()


async def test_a_split_that_counts_no_more_and_is_sought_back_counts_nothing_twice() -> None:
    """A parent is read once more from its start while its children are read: its rows are late, every one."""
    world = World(13)
    world.put("a", 50)
    world.put("b", 50)
    await asyncio.wait_for(world.worker(until_end=True).run(), 60)
    for child in ("a1", "a2"):
        world.topic.add_split(child, parents=["a"])
    for split in ("a1", "a2", "b"):
        world.put(split, 60)
    worker = world.worker(until_end=True)
    await asyncio.wait_for(worker.run(), 60)
    assert (await world.view()).control.ended == ["a"]
    await worker.log.seek({"a": worker.source.first_position}, "once more", worker.finisher)
    await settle(world)
    results, late = await world.found()
    assert results["a0", 0] == 1
    assert late == Counter({("a0", 0): 1})


async def test_silence_closes_the_last_windows_if_that_is_wanted() -> None:
    world = World(8)
    task = asyncio.create_task(world.worker(idle_after_s=0.1).run())
    for split in SPLITS:
        world.put(split, 50)
    await until(world, lambda view: view.control.closed == 0)
    task.cancel()
    await asyncio.wait([task])
    await settle(world)
    await world.check()


async def test_windows_that_mean_something_else_are_refused() -> None:
    world = World(9)
    world.produce(10)
    await settle(world)
    with pytest.raises(WindowsChanged):
        await world.worker(until_end=True, digest="others").run()


async def test_memory_short_for_partials_cuts_early() -> None:
    world = World(10)
    world.produce(2000)
    worker = world.worker(until_end=True, close=True, memory=20_000, interval_s=1000.0)
    await asyncio.wait_for(worker.run(), 60)
    await world.check()
    assert worker.observer.summary.segments > 5


class Held(MemoryBudget):
    """The most that each has held."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.most: Counter[str] = Counter()

    def hold(self, holder: str, nbytes: int) -> None:
        super().hold(holder, nbytes)
        self.most[holder] = max(self.most[holder], nbytes)


async def test_partials_of_windows_that_are_closed_count_as_memory() -> None:
    world = World(15)
    world.produce(300)
    budget = Held(1 << 24)
    await asyncio.wait_for(world.worker(until_end=True, close=True, memory=budget).run(), 60)
    assert budget.most["p: closing windows"] > 100
    assert budget.held_bytes == 0


class Destination:
    """Of results, which takes none while it is down."""

    def __init__(self, world: World, kind: str) -> None:
        self._lake = MemoryStore(world.name, "lake")
        self._kind = kind
        self.is_down = True

    def of(self, observer: Observer) -> ResultSink:
        """As the composition root puts it together."""
        if self._kind == "topic":
            return RetryingResults(self, observer.results_failed, sleep=lambda _: asyncio.sleep(0.005))

        def tell(health: StoreHealth) -> None:
            if health.error:
                observer.part_failed("sink", f"{health.url}: {health.error.what}")
            else:
                observer.part_mended("sink")

        faulty = FaultyStore(self._lake, self._faults())
        return ResultPairs(RetryingStore(faulty, tell, sleep=lambda _: asyncio.sleep(0.005)))

    def _faults(self) -> Iterator[Fault | None]:
        while True:
            yield Fault.BEFORE if self.is_down else None

    async def publish(self, window: Window, results: Finished) -> list[ObjectInfo]:
        if self.is_down:
            raise SourceUnavailable("results cannot be written now", topic="totals")
        return await ResultPairs(self._lake).publish(window, results)


@pytest.mark.parametrize(("kind", "part", "name"), [("topic", "results", "topic=totals"), ("objects", "sink", "/lake")])
async def test_all_else_goes_on_while_results_have_nowhere_to_go(kind: str, part: str, name: str) -> None:
    """Reading, committing and lifting; memory does not grow; it is told, and goes on by itself."""
    world = World(16)
    destination, budget = Destination(world, kind), MemoryBudget(1 << 24)
    worker = world.worker(results=destination.of, memory=budget)
    for at in (50, 300):
        for split in SPLITS:
            world.put(split, at)
    with capture_logs() as told:
        task = asyncio.create_task(worker.run())
        await happens(lambda: part in worker.observer.problems and not worker.pipeline.open_segment())
    assert name in worker.observer.problems[part]
    assert [name in line["problem"] for line in told if line["event"] == f"{part} fails"] == [True]
    await happens(lambda: (status := worker.pipeline.open_windows()) and status["unfinished"] == 1)
    held = budget.held_bytes
    for at in range(400, 480):
        world.put("a", at)
    await until(world, lambda view: view.watermark("b") == view.watermark("c") == Watermark(459, True))
    await happens(lambda: (status := worker.pipeline.open_windows()) and str(status["watermark"]).endswith("459Z"))
    await happens(lambda: budget.held_bytes <= held)
    assert [len(closing.windows) for closing in (await world.view()).control.owed] == [1]
    destination.is_down = False
    await until(world, lambda view: view.control.closed == 300)
    await happens(lambda: worker.observer.problems == {})
    task.cancel()
    await asyncio.wait([task])
    await settle(world)
    await world.check()


class NoPermission:
    """A ``ResultSink``."""

    async def publish(self, window: Window, results: Finished) -> list[ObjectInfo]:
        raise StoreRefused("no permission", hint="Ask for it.")


async def test_a_refusal_of_results_comes_through_as_it_is() -> None:
    """Whoever runs the pipeline goes by its class: what waiting does not mend is not tried again."""
    world = World(17)
    for at in (50, 300):
        for split in SPLITS:
            world.put(split, at)
    with pytest.raises(StoreRefused, match="no permission"):
        await world.worker(results=lambda _: NoPermission()).run()


async def happens(what: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not what():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", range(8))
async def test_crashes_lost_sessions_and_a_faulty_store(seed: int) -> None:
    world = World(seed, fault_share=0.1)
    dice = random.Random(seed)
    world.produce(200)
    running: dict[asyncio.Task[None], Worker] = {}
    lost: set[asyncio.Task[None]] = set()
    kills = 0
    for _ in range(50):
        world.produce(dice.randint(0, 60))
        if len(running) < 3:
            worker = world.worker()
            running[asyncio.create_task(worker.run())] = worker
        task = dice.choice(list(running))
        match dice.randint(0, 6):
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
            case 3:
                await running[task].log.checkpoint()
                await running[task].log.gc()
        await asyncio.sleep(dice.random() * 0.03)
    assert kills > 2
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await settle(world)
    await world.check()
