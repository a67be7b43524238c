"""Splits that a source has no longer: which of them are a loss, and that a pipeline that has lost one says so."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from streamsvc.core.log_keys import Cursor
from streamsvc.core.offsets import position_of
from streamsvc.core.segments import Plan, Range
from streamsvc.errors import PositionLost
from streamsvc.log.segment_log import SegmentLog
from streamsvc.records import ObjectInfo, Split
from streamsvc.runtime.expiry import Expiry
from streamsvc.testing.memory_source import MemorySource, MemoryTopic, Record
from streamsvc.testing.scripted_store import ScriptedStore


class Bench:
    """Splits ``a`` and ``b`` of ten records each, with which a pipeline has begun."""

    def __init__(self) -> None:
        self.topic = MemoryTopic(["a", "b"])
        for split in ("a", "b"):
            self.topic.append(split, *[Record(b"x")] * 10)
        self.source = MemorySource(self.topic)
        self.objects: dict[str, bytes] = {}
        self.log = SegmentLog(ScriptedStore(objects=self.objects), "w", position_of(0), landing_s=0.0)
        self.expiry = Expiry(self.source, self.log, self.finish)
        self.finished: list[Plan] = []

    async def finish(self, plan: Plan) -> list[ObjectInfo]:
        self.finished.append(plan)
        return []

    async def plan(self, split: Split, to: int) -> Plan:
        cursor = (await self.log.standing(split)).cursor
        ranges = {split: Range(cursor, position_of(to))}
        return await self.log.plan(f"{split}-{to}", ranges, config="", decode_version=1)

    async def land(self, split: Split, to: int) -> None:
        async def write() -> list[ObjectInfo]:
            return []

        assert (await self.log.land(await self.plan(split, to), write)).committed


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    async with bench.source:
        await bench.log.begin(bench.source.first_positions)
        yield bench


async def test_nothing_is_missing_of_splits_that_are_there_or_ended(bench: Bench) -> None:
    assert await bench.expiry.check() == {}
    await bench.land("a", 10)
    bench.topic.remove_split("a")
    assert await bench.expiry.check() == {"a": Cursor(0, position_of(10))}
    assert await bench.expiry.check(["b"]) == {}


async def test_a_split_that_is_gone_before_its_end_is_named_with_the_way_on(bench: Bench) -> None:
    await bench.land("a", 7)
    bench.topic.remove_split("a")
    with pytest.raises(PositionLost) as lost:
        await bench.expiry.check()
    assert lost.value.where == {"a": position_of(7)}
    assert "streamsvc seek --to end --split a" in lost.value.hint
    await bench.log.seek({"a": position_of(10)}, "it is gone", bench.finish)
    assert await bench.expiry.check() == {"a": Cursor(1, position_of(10))}


async def test_what_another_worker_has_read_of_it_in_time_is_no_loss(bench: Bench) -> None:
    other = SegmentLog(ScriptedStore(objects=bench.objects), "other", position_of(0), landing_s=0.0)

    async def crash() -> list[ObjectInfo]:
        raise PositionLost("the worker ends here")

    with pytest.raises(PositionLost):
        await other.land(await bench.plan("a", 10), crash)
    bench.topic.remove_split("a")
    assert await bench.expiry.check() == {"a": Cursor(0, position_of(10))}
    assert [plan.segment for plan in bench.finished] == ["a-10"]


async def test_a_split_that_came_and_went_unseen_is_missed_by_its_children(bench: Bench) -> None:
    await bench.land("a", 10)
    bench.topic.add_split("child", parents=["a"])
    bench.topic.append("child", Record(b"unseen"))
    bench.topic.add_split("grandchild", parents=["child"])
    for split in ("a", "child"):
        bench.topic.remove_split(split)
    for splits in ([], ["grandchild"]):
        with pytest.raises(PositionLost) as lost:
            await bench.expiry.check(splits)
        assert lost.value.where == {"child": position_of(0)}
    await bench.log.seek({"child": position_of(1)}, "it is gone", bench.finish)
    assert (await bench.expiry.check(["grandchild"])).keys() == {"a", "child"}


async def test_what_was_gone_before_the_pipeline_began_is_none_of_its_business() -> None:
    bench = Bench()
    bench.topic.add_split("child", parents=["a"])
    bench.topic.remove_split("a")
    async with bench.source:
        await bench.log.begin(bench.source.first_positions)
        assert await bench.expiry.check() == {}
        assert await bench.expiry.check(["child"]) == {}
