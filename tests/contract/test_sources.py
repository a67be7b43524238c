"""What every source must do, in memory and on a real broker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import cast

import pytest

from loadtest.kafka_broker import KafkaBroker
from streamsvc.contracts import Assigned, Lag, Revoked, Source, SplitEvent
from streamsvc.core.offsets import offset_of, position_of
from streamsvc.errors import PositionLost
from streamsvc.records import Batch, Position, Split, row_bounds
from streamsvc.testing.kinesis_server import Limits
from streamsvc.testing.memory_source import Record
from tests.contract.source_stages import KafkaStage, KclStage, KinesisStage, MemoryStage, Stage
from tests.kinesis_emulators import DynamoDb
from tests.kinesis_sources import open_scene

KAFKA = pytest.param("kafka", marks=pytest.mark.broker)


@pytest.fixture(params=["memory", KAFKA, "polling", "fanout", "kcl"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    if request.param in ("polling", "fanout"):
        dynamodb: DynamoDb = request.getfixturevalue("dynamodb")
        limits = Limits(resubscribe_s=0.0).unthrottled()
        async with open_scene(limits, shards=3, dynamodb=dynamodb.endpoint_url) as scene:
            yield KinesisStage(scene, request.param)
    elif request.param == "kcl":
        async with open_scene(Limits().unthrottled(), shards=3) as scene:
            yield KclStage(scene)
    elif request.param == "memory":
        yield MemoryStage()
    else:
        broker: KafkaBroker = request.getfixturevalue("broker")
        new_topic: Callable[..., str] = request.getfixturevalue("new_topic")
        yield KafkaStage(broker, new_topic(partitions=3, retention_ms=-1))


of_offsets = pytest.mark.parametrize("stage", ["memory", KAFKA], indirect=True)
"""What Kinesis does not have: places without a record, tombstones, headers, positions of a group. Its own tests are in
``tests/integration/test_kinesis_source.py``."""


class Reading:
    """What was read of each split, checked as it comes: every span goes on where the last one ended."""

    def __init__(self, source: Source, starts: Mapping[Split, Position]) -> None:
        self._source = source
        self.at = dict(starts)
        self.values: dict[Split, list[object]] = {split: [] for split in starts}
        self.places: dict[Split, list[Position]] = {split: [] for split in starts}
        source.start_at(starts)

    def move(self, split: Split, position: Position) -> None:
        self._source.start_at({split: position})
        self.at[split] = position

    def take(self, batch: Batch) -> None:
        values = batch.values.to_pylist()
        places = cast("list[str]", batch.position_text(batch.offsets).to_pylist())
        for span, start, end in row_bounds(batch.spans):
            assert span.first == self.at[span.split]
            assert span.to > span.first
            self.at[span.split] = span.to
            self.values[span.split] += values[start:end]
            self.places[span.split] += places[start:end]
            assert all(span.first <= place < span.to for place in places[start:end])

    def everything(self) -> list[bytes]:
        return [cast("bytes", value) for values in self.values.values() for value in values]

    async def until(self, ends: Mapping[Split, Position]) -> None:
        while any(self.at[split] < end for split, end in ends.items()):
            self.take(await self._source.read())


def numbered(count: int, start: int = 0) -> list[Record]:
    return [Record(f"{number}".encode()) for number in range(start, start + count)]


def values_of(numbers: Iterable[int]) -> list[bytes]:
    return [f"{number}".encode() for number in numbers]


async def next_event(events: AsyncIterator[SplitEvent]) -> SplitEvent:
    async with asyncio.timeout(20):
        return await anext(events)


async def assigned(events: AsyncIterator[SplitEvent], count: int) -> set[Split]:
    """The splits of so many coming assignments, which may come one by one."""
    splits: set[Split] = set()
    while len(splits) < count:
        event = await next_event(events)
        assert isinstance(event, Assigned)
        splits.update(event.splits)
    return splits


async def test_every_record_comes_once_and_in_order(stage: Stage) -> None:
    for number in range(3):
        stage.append(number, *numbered(100 * number + 20))
    async with stage.member() as source:
        owned = await assigned(source.assignments(), 3)
        starts = await source.first_positions()
        assert owned == set(starts) == set(await source.splits())
        reading = Reading(source, starts)
        await reading.until(await source.ends())
        for split in owned:
            assert reading.values[split] == values_of(range(100 * stage.number(split) + 20))
            number = stage.number(split)
            assert [stage.counted(number, place) for place in reading.places[split]] == list(range(100 * number + 20))


async def test_members_are_of_one_group_and_know_their_splits_by_name(stage: Stage) -> None:
    async with stage.member() as first, stage.member() as second:
        splits = await first.splits()
        assert first.group == second.group
        assert splits
        assert all(map(second.reads, splits))
        for stranger in ("elsewhere@0", "elsewhere@shardId-000000000000.1764300000", "reject@2026/x.json", ""):
            assert not first.reads(stranger)


async def test_a_record_that_comes_later_wakes_the_reader(stage: Stage) -> None:
    async with stage.member() as source:
        await assigned(source.assignments(), 3)
        reading = Reading(source, await source.first_positions())
        waiting = asyncio.create_task(source.read())
        await asyncio.sleep(0)
        assert not waiting.done()
        stage.append(1, Record(b"late"))
        reading.take(await waiting)
        assert reading.everything() == [b"late"]


async def test_a_cancelled_read_loses_nothing(stage: Stage) -> None:
    async with stage.member() as source:
        await assigned(source.assignments(), 3)
        reading = Reading(source, await source.first_positions())
        for number in range(20):
            cancelled = asyncio.create_task(source.read())
            await asyncio.sleep(0)
            stage.append(number % 3, Record(b"%d" % number))
            cancelled.cancel()
            await asyncio.wait([cancelled])
            if not cancelled.cancelled():
                reading.take(cancelled.result())
        await reading.until(await source.ends())
        assert sorted(reading.everything()) == sorted(values_of(range(20)))


async def test_a_split_that_is_moved_is_read_from_there_and_from_nowhere_else(stage: Stage) -> None:
    dice = random.Random(8)
    for number in range(3):
        stage.append(number, *numbered(300))
    async with stage.member() as source:
        owned = sorted(await assigned(source.assignments(), 3))
        ends = await source.ends()
        reading = Reading(source, await source.first_positions())
        for _ in range(15):
            moved = dice.choice(owned)
            reading.move(moved, stage.before(stage.number(moved), dice.randrange(300)))
            if dice.random() < 0.7:
                reading.take(await source.read())
        await reading.until(ends)
        for split in owned:
            counted = [stage.counted(stage.number(split), place) for place in reading.places[split]]
            assert reading.values[split] == values_of(counted)


async def test_nothing_comes_of_a_split_that_is_not_to_be_read(stage: Stage) -> None:
    for number in range(3):
        stage.append(number, *numbered(50))
    async with stage.member() as source:
        stopped, *others = sorted(await assigned(source.assignments(), 3))
        reading = Reading(source, await source.first_positions())
        reading.take(await source.read())
        source.stop_reading([stopped])
        held = list(reading.values[stopped])
        ends = await source.ends()
        await reading.until({split: ends[split] for split in others})
        assert reading.values[stopped] == held


@of_offsets
async def test_the_position_moves_over_what_holds_no_record(stage: Stage) -> None:
    stage.append(0, *numbered(3))
    stage.abort(0, 5)
    stage.append(0, *numbered(2, start=3))
    stage.abort(0, 4)
    stage.abort(1, 2)
    async with stage.member() as source:
        await assigned(source.assignments(), 3)
        reading = Reading(source, await source.first_positions())
        ends = await source.ends()
        await reading.until(ends)
        values = {stage.number(split): values for split, values in reading.values.items()}
        assert values == {0: values_of(range(5)), 1: [], 2: []}
        assert {stage.number(split): offset_of(end) for split, end in reading.at.items()} == {0: 16, 1: 3, 2: 0}


@of_offsets
async def test_a_range_is_read_exactly(stage: Stage) -> None:
    stage.append(0, *numbered(3))
    stage.abort(0, 5)
    stage.append(0, *numbered(2, start=9))
    stage.abort(0, 4)
    async with stage.member() as source:
        split = next(split for split in await source.splits() if stage.number(split) == 0)
        for first, to in [(0, 16), (2, 12), (3, 9), (4, 8), (9, 11), (10, 16), (11, 16), (7, 7)]:
            values: list[object] = []
            at = position_of(first)
            async for batch in source.read_range({split: (at, position_of(to))}):
                for span in batch.spans:
                    assert (span.split, span.first) == (split, at)
                    at = span.to
                values += batch.values.to_pylist()
            assert at == position_of(to)
            assert values == values_of(offset for offset in (0, 1, 2, 9, 10) if first <= offset < to)


async def test_ranges_of_several_splits_are_read_whoever_owns_them(stage: Stage) -> None:
    for number in range(3):
        stage.append(number, *numbered(200))
    async with stage.member() as source:
        owned = await assigned(source.assignments(), 3)
        reading = Reading(source, await source.first_positions())
        numbers = {split: stage.number(split) for split in owned}
        ranges = {split: (stage.before(n, 10 * n), stage.before(n, 150)) for split, n in numbers.items()}
        found: dict[Split, list[object]] = {split: [] for split in owned}
        async for batch in source.read_range(ranges):
            values = batch.values.to_pylist()
            for span, start, end in row_bounds(batch.spans):
                found[span.split] += values[start:end]
        assert found == {split: values_of(range(10 * stage.number(split), 150)) for split in owned}
        await reading.until(await source.ends())
        assert all(values == values_of(range(200)) for values in reading.values.values())


async def test_a_range_that_is_left_early_is_let_go(stage: Stage) -> None:
    stage.append(0, *numbered(2000))
    async with stage.member() as source:
        split = next(split for split in await source.splits() if stage.number(split) == 0)
        batches = source.read_range({split: (stage.before(0, 0), stage.before(0, 2000))})
        assert len(await anext(batches)) > 0
        await cast("AsyncGenerator[Batch, None]", batches).aclose()


def is_behind(lag: Lag) -> bool:
    assert lag != Lag()
    return bool(lag.records or lag.milliseconds)


async def test_how_far_behind_and_whether_at_the_end(stage: Stage) -> None:
    for number in range(3):
        stage.append(number, *numbered(10 * number))
    async with stage.member() as source:
        owned = await assigned(source.assignments(), 3)
        starts = await source.first_positions()
        behind = await source.lag(starts)
        assert {stage.number(split): is_behind(lag) for split, lag in behind.items()} == {0: False, 1: True, 2: True}
        assert await source.lag({"unknown@0.x": source.first_position}) == {}
        ends = await source.ends()
        assert not any(map(is_behind, (await source.lag(ends)).values()))
        reading = Reading(source, starts)
        await reading.until(ends)
        while source.at_end(reading.at) != owned:
            await asyncio.sleep(0)
        assert source.at_end({split: starts[split] for split in owned if stage.number(split) > 0}) == frozenset()
        assert source.parents() == {}
        fuller = next(split for split in owned if stage.number(split) == 1)
        stage.append(1, Record(b"more"))
        await reading.until(await source.ends())
        while fuller not in source.at_end(reading.at):
            await asyncio.sleep(0)
        assert fuller not in source.at_end(ends)


@of_offsets
async def test_keys_headers_times_and_tombstones_are_kept(stage: Stage) -> None:
    moment = datetime(2026, 1, 31, 6, 0, 0, 123000, tzinfo=UTC)
    milliseconds = int(moment.timestamp() * 1000)
    headers = [("trace", b"\x00\xff"), ("trace", b"again"), ("none", None)]
    stage.append(
        2, Record(None, key=b"gone", timestamp_ms=milliseconds), Record(b"", key=None, timestamp_ms=milliseconds)
    )
    stage.append(2, Record(b"\xff\x00", key=b"", timestamp_ms=milliseconds, headers=headers))
    async with stage.member() as source:
        split = next(split for split in await source.splits() if stage.number(split) == 2)
        batches = [batch async for batch in source.read_range({split: (position_of(0), position_of(3))})]
        columns = {
            "values": [value for batch in batches for value in batch.values.to_pylist()],
            "keys": [key for batch in batches for key in batch.keys().to_pylist()],
            "headers": [each for batch in batches for each in batch.headers().to_pylist()],
            "arrivals": [time for batch in batches for time in batch.arrivals().to_pylist()],
            "positions": [place for batch in batches for place in batch.position_text(batch.offsets).to_pylist()],
        }
        assert columns == {
            "values": [None, b"", b"\xff\x00"],
            "keys": [b"gone", None, b""],
            "headers": [None, None, headers],
            "arrivals": [moment] * 3,
            "positions": [position_of(offset) for offset in range(3)],
        }


async def test_a_split_moves_to_a_new_member_once_it_is_released(stage: Stage) -> None:
    async with stage.member() as first:
        events = first.assignments()
        owned = await assigned(events, 3)
        async with stage.member() as second:
            joined = asyncio.create_task(assigned(second.assignments(), 1))
            leaving = await next_event(events)
            assert isinstance(leaving, Revoked)
            assert 0 < leaving.deadline_s <= stage.hold_s
            assert not joined.done()
            first.release(leaving.splits)
            assert await joined == set(leaving.splits)
            assert len(leaving.splits) == 1
        assert await assigned(events, 1) == set(leaving.splits) <= owned


async def test_a_split_that_is_not_released_is_taken_at_the_deadline(stage: Stage) -> None:
    for number in range(3):
        stage.append(number, *numbered(10))
    async with stage.member() as first:
        events = first.assignments()
        await assigned(events, 3)
        reading = Reading(first, await first.first_positions())
        await reading.until(await first.ends())
        async with stage.member() as second:
            taken = await assigned(second.assignments(), 1)
            leaving = await next_event(events)
            assert isinstance(leaving, Revoked)
            assert set(leaving.splits) == taken
            if stage.learns_of_loss:
                assert await next_event(events) == Revoked(leaving.splits, 0.0)
            for number in range(3):
                stage.append(number, *numbered(10, start=10))
            ends = await first.ends()
            await reading.until({split: end for split, end in ends.items() if split not in taken})
            assert all(reading.values[split] == values_of(range(10)) for split in taken)


async def test_what_retention_took_is_not_skipped(stage: Stage) -> None:
    stage.append(0, *numbered(20))
    stage.append(1, *numbered(20))
    stage.expire(0, before=10)
    async with stage.member() as source:
        owned = {stage.number(split): split for split in await assigned(source.assignments(), 3)}
        with pytest.raises(PositionLost) as lost:
            async for _ in source.read_range({owned[0]: (stage.before(0, 5), stage.before(0, 15))}):
                pass
        assert lost.value.where["split"] == owned[0]
        assert lost.value.where["earliest"] == stage.before(0, 10)
        starts = await source.first_positions()
        assert starts[owned[0]] <= stage.before(0, 10)
        reading = Reading(source, starts)
        await reading.until(await source.ends())
        assert reading.values[owned[0]] == values_of(range(10, 20))
        source.start_at({owned[0]: stage.before(0, 5)})
        with pytest.raises(PositionLost):
            await source.read()


@of_offsets
async def test_the_first_start_is_where_the_configuration_says(stage: Stage) -> None:
    stage.append(0, *numbered(10))
    async with stage.member("latest") as source:
        owned = {stage.number(split): split for split in await assigned(source.assignments(), 3)}
        assert await source.first_positions() == await source.ends()
        source.acknowledge({owned[0]: position_of(4)})
    async with stage.member("committed") as source:
        assert await source.first_positions() == {
            owned[0]: position_of(4),
            owned[1]: position_of(0),
            owned[2]: position_of(0),
        }
