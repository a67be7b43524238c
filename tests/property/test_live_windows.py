"""What people see of open windows is what is committed of them, by whichever worker, and no more than fits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamsvc.core.windows.assignment import LAST_TIME
from streamsvc.log import window_log
from streamsvc.log.window_log import WindowLog
from streamsvc.ops.health import WindowsStatus
from streamsvc.ops.metrics import Metrics
from streamsvc.records import Partials
from streamsvc.runtime import live_windows
from streamsvc.runtime.health import Watched, WorkerHealth
from streamsvc.runtime.live_windows import LiveWindows
from streamsvc.runtime.memory import MemoryBudget
from tests.property.test_windowed_pipeline import AGGREGATION, DISORDER, LATENESS, WINDOWS, World, settle
from tests.property.windowed_lines import Pair, recipe_of, reference


def live(world: World) -> LiveWindows:
    window = recipe_of(world.store("lake"), WINDOWS, disorder=DISORDER, lateness=LATENESS).window
    assert window is not None
    assert window.results is not None
    return LiveWindows(world.worker().log, WINDOWS, window.results)


def shown(status: WindowsStatus) -> Counter[Pair]:
    found: Counter[Pair] = Counter()
    for window in status["windows"]:
        start = datetime.fromisoformat(window["window_start"]) - datetime(1970, 1, 1, tzinfo=UTC)
        found.update({(row["line"], start.microseconds): row["lines"] for row in window["rows"]})
    return found


async def commit(world: World) -> None:
    """What is there, without closing what stays open."""
    async with asyncio.timeout(60):
        await world.worker(until_end=True).run()


async def test_open_windows_are_as_they_are_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_windows, "ROWS_SHOWN", 10_000)
    world = World(1)
    looking = live(world)
    log = world.worker().log
    for step in range(4):
        world.produce(130)
        await commit(world)
        if step == 2:
            await log.checkpoint()
            await log.gc()
        view = await log.view()
        await looking.refresh(view)
        assert looking.status is not None
        in_time, _ = reference(world.produced, WINDOWS, DISORDER, LATENESS)
        opened = Counter({pair: n for pair, n in in_time.items() if pair[1] in view.open_windows})
        assert opened
        assert shown(looking.status) == opened
        assert looking.status["open"] == len(view.open_windows)
        assert looking.status["groups"] == len(opened)
    await settle(world)
    await looking.refresh(await log.view())
    assert looking.status is not None
    assert (looking.status["open"], looking.status["windows"]) == (0, [])


async def test_what_is_shown_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(2)
    for at in range(900, 1_000):
        world.put("a", at)
    await commit(world)
    view = await world.worker().log.view()
    looking = live(world)
    await looking.refresh(view)
    assert looking.status is not None
    [window] = looking.status["windows"]
    assert (window["groups"], len(window["rows"]), window["rows_left_out"]) == (100, 50, 50)
    monkeypatch.setattr(live_windows, "MAX_GROUPS", 99)
    looking = live(world)
    await looking.refresh(view)
    assert looking.status is not None
    assert (looking.status["groups"], looking.status["windows"]) == (100, [])


async def test_what_is_too_large_is_not_read_again_until_it_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_windows, "KEPT_BYTES", 1)
    world = World(5)
    world.produce(90)
    await commit(world)
    log = world.worker().log
    looking = live(world)
    await looking.refresh(await log.view())
    before = looking.status
    assert before is not None
    assert (before["open"], before["groups"], before["windows"]) == (1, 90, [])
    for split in ("a", "b", "c"):
        world.put(split, 150)
    await commit(world)
    view = await log.view()
    await looking.refresh(view)
    assert looking.status is not None
    assert (looking.status["open"], looking.status["groups"], looking.status["watermark"]) == (
        len(view.open_windows),
        90,
        "1970-01-01T00:00:00.000130Z",
    )
    await log.checkpoint()
    await looking.refresh(await log.view())
    assert looking.status["groups"] == 3


async def test_a_window_that_ends_behind_all_dates_is_shown() -> None:
    world = World(9)
    for split in ("a", "b", "c"):
        world.put(split, LAST_TIME)
    await commit(world)
    looking = live(world)
    await looking.refresh(await world.worker().log.view())
    assert looking.status is not None
    assert [window["window_end"] for window in looking.status["windows"]] == ["10000-01-01T00:00:00Z"]


async def test_of_many_segments_some_are_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(10)
    for _ in range(5):
        world.produce(15)
        await commit(world)
    merged: list[int] = []

    async def merge(parts: Sequence[Partials]) -> Partials:
        merged.append(len(parts))
        return AGGREGATION.merge(parts)

    log = WindowLog(world.store("state"), "one", "0", landing_s=0.02, merge=merge)
    view = await log.view()
    whole = await log.open_partials(view)
    monkeypatch.setattr(window_log, "READ_AT_ONCE", 2)
    by_parts = await log.open_partials(view)
    assert merged[0] >= 5
    assert max(merged[1:]) == 3
    assert whole is not None
    assert by_parts is not None
    assert by_parts.flat.equals(whole.flat)


async def test_nothing_is_computed_where_nothing_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(6)
    world.produce(90)
    await commit(world)
    log = world.worker().log
    looking = live(world)
    await looking.refresh(view := await log.view())
    before = looking.status
    monkeypatch.setattr(LiveWindows, "_look", None)
    await looking.refresh(await log.view(view))
    assert looking.status is before


async def test_a_pipeline_says_what_is_open() -> None:
    world = World(3)
    for split in ("a", "b", "c"):
        world.put(split, 50)
    worker = world.worker()
    task = asyncio.create_task(worker.run())
    status: Any = None
    async with asyncio.timeout(30):
        while status is None or status["groups"] < 3:
            await asyncio.sleep(0.01)
            status = worker.pipeline.open_windows()
    task.cancel()
    await asyncio.wait([task])
    assert shown(status) == {("a0", 0): 1, ("b0", 0): 1, ("c0", 0): 1}
    assert status["provisional"] is True


async def test_what_windows_wait_for_is_charted() -> None:
    """Of the splits that this worker has; what is not known is not there."""
    world = World(8)
    for split, at in (("a", 350), ("b", 150), ("c", 300)):
        world.put(split, at)
    worker = world.worker(until_end=True, interval_s=1_000.0)
    health = WorkerHealth(Metrics("s"), MemoryBudget(1), {"p": worker.observer}, clock=lambda: 1.0)
    health.watch("p", Watched(worker.pipeline, worker.observer, worker.source, "", ""))
    assert charted(health) == {}
    await asyncio.wait_for(worker.run(), 60)
    found = {
        "watermark_timestamp_seconds": 0.00013,
        "watermark_behind_seconds": 1 - 0.00013,
        "split_watermark_timestamp_seconds a": 0.00033,
        "split_watermark_timestamp_seconds b": 0.00013,
        "split_watermark_timestamp_seconds c": 0.00028,
        "open_windows": 2,
        "oldest_unfinished_window_seconds": 1 - 0.0002,
    }
    assert charted(health) == found
    worker.pipeline.splits.assigned.remove("a")
    del found["split_watermark_timestamp_seconds a"]
    assert charted(health) == found


def charted(health: WorkerHealth) -> dict[str, float]:
    """Of windows, by name and split."""
    families = text_string_to_metric_families(health.metrics().decode())
    samples = [sample for family in families if family.type == "gauge" for sample in family.samples]
    named = {f"{sample.name[10:]} {sample.labels.get('split', '')}".rstrip(): sample.value for sample in samples}
    return {name: value for name, value in named.items() if "window" in name or "watermark" in name}


async def test_the_split_that_holds_windows_back_is_named_and_since_when() -> None:
    """Also by who looks at the log from a checkpoint."""
    world = World(4)
    for split, at in (("a", 90), ("b", 30), ("c", 80)):
        world.put(split, at)
    await commit(world)
    for folds in (False, True):
        log = world.worker().log
        if folds:
            await log.checkpoint()
        looking = live(world)
        await looking.refresh(await log.view())
        assert looking.status is not None
        assert (looking.status["held_by"], looking.status["held_since"]) == ("b", "2026-11-24T00:00:00Z")
