"""The Kinesis source against the server of this process, whose faults are on purpose."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from contextlib import suppress
from itertools import repeat
from typing import Literal

import pytest

from streamsvc.contracts import Lag
from streamsvc.core.kinesis_positions import BEGINNING, END, position_after, position_at_time, position_before
from streamsvc.core.kpl import encode_aggregate, hash_key
from streamsvc.errors import PositionLost, SourceRefused
from streamsvc.records import Position, Split
from streamsvc.sources.kinesis import answers, fanout, pacing
from streamsvc.sources.kinesis.source import KinesisSource
from streamsvc.testing.kinesis_server import Fault, Limits, random_faults
from streamsvc.testing.kinesis_server.streams import Options
from tests.kinesis_sources import MIB, Follower, Scene, open_scene, revoked

Retrieval = Literal["polling", "fanout"]
BOTH = pytest.mark.parametrize("retrieval", ["polling", "fanout"])
MIDDLE = str(2**127)


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


async def only_split(scene: Scene, follower: Follower) -> Split:
    (split,) = await follower.assigned()
    return split


async def whole_range(source: KinesisSource, split: Split, first: Position, to: Position) -> list[bytes]:
    """What a range holds; every span goes on where the last one ended, to the end of the range."""
    values: list[bytes] = []
    at = first
    async for batch in source.read_range({split: (first, to)}):
        for span in batch.spans:
            assert span.first == at
            at = span.to
        values += batch.values.to_pylist()
    assert at == to
    return values


@BOTH
async def test_every_record_comes_once_and_in_order(retrieval: Retrieval) -> None:
    async with open_scene(shards=4) as scene:
        for number in range(4):
            scene.put(*numbered(100 * number + 5), shard=number, key=f"k{number}")
        async with scene.source(retrieval=retrieval) as source:
            follower = Follower(source, await source.first_positions())
            splits = await follower.assigned(4)
            assert splits == set(await source.splits())
            await follower.read_until(620)
            assert follower.at == await source.ends()
            for number, split in enumerate(sorted(splits)):
                assert follower.values[split] == numbered(100 * number + 5)
            assert source.at_end(follower.at) == splits
            assert set((await source.lag(follower.at)).values()) == {Lag(milliseconds=0)}
            assert source.problem is None


@BOTH
async def test_what_a_record_is_besides_its_data(retrieval: Retrieval) -> None:
    async with open_scene() as scene:
        moment = int(time.time()) - 100 + 0.123
        [sequence] = scene.put(b"\xff\x00", key="schl\u00fcssel", at=moment)
        async with scene.source(retrieval=retrieval) as source:
            split = await only_split(scene, follower := Follower(source))
            batch = await source.read()
        assert batch.values.to_pylist() == [b"\xff\x00"]
        assert batch.keys().to_pylist() == ["schl\u00fcssel".encode()]
        assert [moment.timestamp() for moment in batch.arrivals().to_pylist()] == [moment]
        assert batch.headers().to_pylist() == [None]
        assert batch.offsets.to_pylist() == [position_before(sequence)]
        assert split.startswith("access@shardId-000000000000.")
        assert batch.spans[0].first == follower.at[split] == BEGINNING
        assert batch.spans[0].to == position_after(sequence)


async def test_records_come_soon_after_they_were_put() -> None:
    """No time is asserted; but a reader that polled once a second would take this test a minute."""
    async with open_scene(Limits()) as scene, scene.source() as source:
        await only_split(scene, follower := Follower(source))
        for number in range(20):
            scene.put(b"%d" % number)
            await follower.read_until(number + 1)
        assert follower.everything() == numbered(20)


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a source waits for while it polls comes twenty times as soon; how waits grow and shrink is the same."""
    for name in ("TIP_INTERVAL_S", "THROTTLED_S", "RETRY_S", "OUTAGE_S"):
        monkeypatch.setattr(pacing, name, getattr(pacing, name) / 20)
    monkeypatch.setattr(pacing, "CALLS_PER_S", 20 * pacing.CALLS_PER_S)


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("seed", range(6))
async def test_polling_under_faults(seed: int) -> None:
    rates = {Fault.THROTTLE: 0.15, Fault.INTERNAL: 0.05, Fault.UNAVAILABLE: 0.05, Fault.RESET_BEFORE: 0.05}
    rates |= {Fault.RESET_AFTER: 0.05, Fault.EXPIRED: 0.15, Fault.EMPTY: 0.1}
    faults = {"GetRecords": random_faults(seed, rates), "GetShardIterator": random_faults(seed, {Fault.THROTTLE: 0.2})}
    async with open_scene(
        Limits(reads_per_s=None, read_bytes_per_s=None, answer_records=17), shards=2, faults=faults
    ) as scene:
        async with scene.source() as source:
            follower = Follower(source)
            await follower.assigned(2)
            for number in range(40):
                scene.put(*numbered(5, start=5 * number), key=f"k{number}")
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await follower.read()
            await follower.read_until(200)
            assert sorted(follower.everything()) == sorted(numbered(200))
        assert scene.server.faults.fired.total() > 5


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize(
    ("operation", "fault", "told"),
    [
        ("GetRecords", Fault.THROTTLE, "kinesis throttles"),
        ("GetShardIterator", Fault.THROTTLE, "kinesis throttles"),
        ("GetRecords", Fault.EXPIRED, "expire as soon as they are made"),
        ("GetRecords", Fault.INTERNAL, "answered with a fault"),
        ("GetRecords", Fault.RESET_AFTER, "does not answer"),
    ],
)
async def test_a_shard_that_cannot_be_read_is_told_and_goes_on(operation: str, fault: Fault, told: str) -> None:
    async with open_scene(faults={operation: repeat(fault)}) as scene, scene.source() as source:
        scene.put(*numbered(10))
        await only_split(scene, follower := Follower(source))
        async with asyncio.timeout(30):
            while told not in (source.problem or ""):
                await asyncio.sleep(0.01)
            assert "shardId-000000000000" in str(source.problem)
            scene.server.faults.replace({})
            await follower.read_until(10)
            while source.problem is not None:
                await asyncio.sleep(0.01)
        assert follower.everything() == numbered(10)


@pytest.mark.parametrize("seed", range(2))
async def test_fan_out_that_ends_and_is_cut(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(fanout, "RESUBSCRIBE_S", 0.1)
    limits = Limits(subscription_s=0.4, resubscribe_s=0.1, idle_event_s=0.1, fanout_bytes_per_s=None)
    faults = {"SubscribeToShard": random_faults(seed, {Fault.CUT: 0.3, Fault.THROTTLE: 0.1, Fault.RESET_BEFORE: 0.1})}
    async with open_scene(limits, shards=2, faults=faults) as scene, scene.source(retrieval="fanout") as source:
        follower = Follower(source)
        await follower.assigned(2)
        sent = 0
        while scene.server.faults.calls["SubscribeToShard"] < 10:
            scene.put(*numbered(5, start=sent), key=f"k{sent}")
            sent += 5
            await follower.read_until(sent)
        assert sorted(follower.everything()) == sorted(numbered(sent))
        assert scene.server.faults.calls["GetRecords"] == 0


async def test_where_fan_out_is_not_allowed_the_stream_is_polled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streamsvc.sources.kinesis.consumer.ACTIVE_POLL_S", 0.01)
    monkeypatch.setattr(logging.getLogger("streamsvc.kinesis"), "disabled", False)
    caplog.set_level(logging.WARNING, "streamsvc.kinesis")
    async with open_scene() as scene:
        for number in range(20):
            scene.server.account.register(scene.stream, f"other-{number}")
        scene.put(*numbered(10))
        async with scene.source(retrieval="fanout") as source:
            await only_split(scene, follower := Follower(source))
            await follower.read_until(10)
        assert follower.everything() == numbered(10)
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        (told,) = [warning for warning in warnings if "fan-out is not allowed: the stream is polled" in warning]
        assert "as many registered consumers as it may have" in told


async def test_a_consumer_that_does_not_become_active_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsvc.sources.kinesis.consumer.ACTIVE_POLL_S", 0.01)
    async with open_scene() as scene, scene.source(retrieval="fanout") as source:
        monkeypatch.setattr(scene.server.account, "limits", Limits(transition_s=1e9).unthrottled())
        await only_split(scene, Follower(source))
        async with asyncio.timeout(30):
            while "does not become active (shardId-000000000000)" not in (source.problem or ""):
                await asyncio.sleep(0.01)


@BOTH
@pytest.mark.parametrize("ends_with_records", [False, True])
async def test_children_follow_their_parents(retrieval: Retrieval, ends_with_records: bool) -> None:
    limits = Limits(ends_with_records=ends_with_records).unthrottled()
    async with open_scene(limits, shards=2) as scene, scene.source(retrieval=retrieval) as source:
        follower = Follower(source)
        first, second = sorted(await follower.assigned(2))
        sent = 0

        def put(count: int) -> None:
            nonlocal sent
            for _ in range(count):
                scene.put(b"%d" % sent, key=f"k{sent % 7}")
                sent += 1

        put(50)
        scene.stream.split("shardId-000000000000", str(2**126), time.time())
        put(50)
        assert source.parents() == {}
        await follower.to_end(first)
        source.acknowledge({first: END})
        assert (await revoked(follower)).splits == (first,)
        children = await follower.assigned(2)
        assert source.parents() == {child: frozenset({first}) for child in children}
        scene.stream.merge("shardId-000000000003", "shardId-000000000001", time.time())
        put(50)
        merged = {child for child in children if "000000000003" in child} | {second}
        await follower.to_end(*merged)
        source.acknowledge(dict.fromkeys(merged, END))
        (last,) = await follower.assigned()
        assert source.parents()[last] == merged
        await follower.read_until(150)
        for key in range(7):
            ours = [int(value) for name, value in follower.keys if name == b"k%d" % key]
            assert ours == list(range(key, 150, 7))


async def test_children_wait_until_both_parents_have_landed() -> None:
    async with open_scene(shards=2) as scene, scene.source() as source:
        scene.put(*numbered(10), shard=0)
        scene.stream.merge("shardId-000000000000", "shardId-000000000001", time.time())
        follower = Follower(source)
        parents = sorted(await follower.assigned(2))
        await follower.to_end(*parents)
        source.acknowledge({parents[0]: END})
        assert (await revoked(follower)).splits == (parents[0],)
        waiting = asyncio.create_task(follower.assigned())
        scene.put(b"child")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await source.read()
        assert not waiting.done()
        source.acknowledge({parents[1]: END})
        await waiting
        await follower.read_until(11)


async def test_after_a_restart_closed_shards_stay_closed() -> None:
    async with open_scene() as scene:
        scene.put(*numbered(10))
        scene.stream.split("shardId-000000000000", MIDDLE, time.time())
        async with scene.source() as source:
            parent = await only_split(scene, follower := Follower(source))
            await follower.to_end(parent)
        scene.put(*numbered(10, start=10))
        calls = scene.server.faults.calls["GetRecords"]
        async with scene.source() as source:
            assert (await source.ends())[parent] == END
            follower = Follower(source, {parent: END})
            await follower.assigned(3)
            await follower.read_until(10)
        assert sorted(follower.everything()) == sorted(numbered(10, start=10))
        assert follower.values[parent] == []
        assert scene.server.faults.calls["GetRecords"] > calls


async def test_shards_are_listed_seldom() -> None:
    async with open_scene() as scene, scene.source() as source:
        follower = Follower(source, await source.first_positions())
        await follower.assigned()
        for _ in range(4):
            parent = max(follower.at)
            scene.stream.split(parent.partition("@")[2].partition(".")[0], _half(scene), time.time())
            await follower.to_end(parent)
            source.acknowledge({parent: END})
            await follower.assigned(2)
        assert scene.server.faults.calls["ListShards"] == 1


def _half(scene: Scene) -> str:
    """The middle of the newest shard."""
    shard = scene.stream.open_shards()[-1]
    return str((shard.first_hash_key + shard.last_hash_key + 1) // 2)


@BOTH
async def test_records_of_ten_mebibytes_pass_through_a_small_queue(retrieval: Retrieval) -> None:
    dice = random.Random(1)
    values = [dice.randbytes(10 * MIB - 1024) for _ in range(3)]
    async with open_scene(shards=3, options=Options(max_record_kib=10240)) as scene:
        for number, value in enumerate(values):
            scene.put(value, *numbered(10), shard=number)
        async with scene.source(retrieval=retrieval, queue_bytes=4 * MIB) as source:
            follower = Follower(source)
            await follower.assigned(3)
            await follower.read_until(33)
        for split, value in zip(sorted(follower.values), values, strict=True):
            assert follower.values[split] == [value, *numbered(10)]


async def test_a_queue_that_nobody_empties_is_filled_and_no_more() -> None:
    limits = Limits(answer_records=100).unthrottled()
    async with open_scene(limits, shards=4) as scene:
        for shard in range(4):
            scene.put(*[bytes(10_000)] * 1000, shard=shard)
        async with scene.source(queue_bytes=4 * MIB) as source:
            follower = Follower(source)
            await follower.assigned(4)
            calls = -1
            while calls != scene.server.faults.calls["GetRecords"]:
                calls = scene.server.faults.calls["GetRecords"]
                await asyncio.sleep(0.3)
            assert calls * 1_000_000 < 12 * MIB
            await follower.read_until(4000)


# Aggregates


def own_key(scene: Scene, shard: int, number: int = 0) -> str:
    """A partition key whose records belong into this shard."""
    taker = scene.shards[shard]
    keys = (f"key-{n}" for n in range(10_000))
    fitting = [key for key in keys if taker.first_hash_key <= hash_key(key) <= taker.last_hash_key]
    return fitting[number]


@BOTH
async def test_aggregates_are_unpacked_and_may_be_left_in_the_middle(retrieval: Retrieval) -> None:
    async with open_scene(Limits(resubscribe_s=0.0).unthrottled(), shards=2) as scene:
        keys = [own_key(scene, 0, number) for number in range(5)]
        packed = encode_aggregate((keys[number % 5], b"%d" % number) for number in range(5))
        [before, middle, after] = scene.put(b"first", packed, b"last", shard=0)
        async with scene.source(retrieval=retrieval) as source:
            follower = Follower(source)
            await follower.assigned(2)
            await follower.read_until(7)
        split = min(follower.values)
        assert follower.values[split] == [b"first", *numbered(5), b"last"]
        assert [key for key, _ in follower.keys][1:6] == [key.encode() for key in keys]
        assert follower.at[split] == position_after(after)
        assert scene.counted("kinesis_aggregates", "aggregates") == 1
        for sub in range(6):
            async with scene.source(retrieval=retrieval) as source:
                follower = Follower(source, {split: position_before(middle, sub)})
                await follower.assigned(2)
                await follower.read_until(6 - sub)
                assert follower.values[split] == [*numbered(5)[sub:], b"last"]
        async with scene.source(joins=False) as source:
            for first in range(6):
                for to in range(first, 6):
                    places = position_before(middle, first), position_before(middle, to)
                    assert await whole_range(source, split, *places) == numbered(5)[first:to]
            between = position_after(before), position_before(after)
            assert await whole_range(source, split, *between) == numbered(5)


async def test_poison_is_passed_on_as_it_is_and_counted() -> None:
    good = encode_aggregate([("a", b"1"), ("b", b"2")])
    poison = [good[:-1] + b"\x00", good[:10], b"\xf3\x89\x9a\xc2", b"\xf3\x89\x9a\xc2" + bytes(16)]
    async with open_scene() as scene:
        scene.put(*poison, good)
        async with scene.source() as source:
            await only_split(scene, follower := Follower(source))
            await follower.read_until(6)
        assert follower.everything() == [*poison, b"1", b"2"]
        assert scene.counted("kinesis_aggregates", "bad_digest") == 4


async def test_a_record_may_be_empty() -> None:
    """Alone and in an aggregate. An aggregate of no bytes is none, and passed on as it is."""
    nothing = b"\xf3\x89\x9a\xc2" + hashlib.md5(b"").digest()
    async with open_scene() as scene:
        scene.put(b"", b"1", encode_aggregate([("a", b""), ("b", b"2")]), nothing, b"")
        async with scene.source() as source:
            split = await only_split(scene, follower := Follower(source))
            while follower.at[split] < (await source.ends())[split]:
                await follower.read()
        assert follower.everything() == [b"", b"1", b"", b"2", nothing, b""]


@pytest.mark.parametrize("rule", ["drop", "keep"])
async def test_an_aggregate_with_a_record_of_another_shard(rule: str) -> None:
    async with open_scene(shards=2) as scene:
        ours, other = own_key(scene, 0), own_key(scene, 1)
        strays = encode_aggregate([(ours, b"1"), (other, b"2"), (ours, b"3")])
        [_, sequence] = scene.put(b"0", strays, shard=0)
        async with scene.source(kpl={"out_of_range": rule}) as source:
            follower = Follower(source)
            await follower.assigned(2)
            split = min(follower.at)
            while follower.at[split] < position_before(sequence, 3):
                await follower.read()
        assert follower.everything() == (numbered(1) if rule == "drop" else numbered(4))
        assert scene.counted("kinesis_aggregates", "out_of_range") == 1
        scene.put(b"next", shard=0)
        async with scene.source(kpl={"out_of_range": rule}) as source:
            follower = Follower(source, {split: position_before(sequence, 3)})
            await follower.assigned(2)
            await follower.read_until(1)
        assert follower.everything() == [b"next"]


async def test_aggregates_may_be_left_as_they_are() -> None:
    packed = encode_aggregate([("a", b"1"), ("b", b"2")])
    async with open_scene() as scene:
        scene.put(packed)
        async with scene.source(kpl={"deaggregate": False}) as source:
            await only_split(scene, follower := Follower(source))
            await follower.read_until(1)
        assert follower.everything() == [packed]


# Where reading begins, and ranges


async def test_starts_at_a_time_and_at_the_latest() -> None:
    async with open_scene() as scene:
        now = int(time.time())
        scene.put(*numbered(3), at=now - 100.0)
        scene.put(*numbered(3, start=3), at=now - 50.4)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now - 51)) + "+00:00"
        async with scene.source(start=moment) as source:
            starts = await source.first_positions()
            follower = Follower(source, starts)
            split = await only_split(scene, follower)
            await follower.read_until(3)
            assert follower.everything() == numbered(3, start=3)
        async with scene.source(start="latest") as source:
            follower = Follower(source, await source.first_positions())
            await follower.assigned()
            # What was there already is left out, and the place is as exact as that of `ends`.
            await follower.read()
            assert follower.at == await source.ends()
            scene.put(b"new")
            await follower.read_until(1)
            assert follower.everything() == [b"new"]
            assert scene.counted("kinesis_trimmed") == 0
            behind = position_at_time(now * 1000 - 50_399)
            assert await whole_range(source, split, behind, follower.at[split]) == [b"new"]


@BOTH
@pytest.mark.parametrize("records", [3, 10_000])
async def test_a_time_is_exact_to_the_millisecond(retrieval: Retrieval, records: int) -> None:
    """Though whole seconds are asked for, and what came earlier in that second is more than one answer."""
    async with open_scene(Limits(answer_records=records, resubscribe_s=0.0).unthrottled()) as scene:
        second = int(time.time()) - 100
        for number in range(20):
            scene.put(b"%d" % number, at=second + number / 1000)
        for first in (1, 13):
            place = position_at_time(second * 1000 + first)
            async with scene.source(retrieval=retrieval) as source:
                split = await only_split(
                    scene, follower := Follower(source, dict.fromkeys(await source.splits(), place))
                )
                await follower.read_until(20 - first)
                assert follower.everything() == numbered(20 - first, start=first)
                assert await whole_range(source, split, place, follower.at[split]) == numbered(20 - first, start=first)


async def _ends(scene: Scene) -> dict[Split, Position]:
    async with scene.source(joins=False) as source:
        return dict(await source.ends())


async def test_ends_are_behind_the_newest_record_however_old() -> None:
    async with open_scene(Limits(retention_s=1e9).unthrottled(), shards=4) as scene:
        now = time.time()
        old = scene.put(*numbered(5), shard=0, at=now - 2 * 24 * 3600)
        packed = scene.put(
            encode_aggregate([(own_key(scene, 1), b"a"), (own_key(scene, 1), b"b")]), shard=1, at=now - 600
        )
        scene.stream.split("shardId-000000000002", str(scene.shards[2].first_hash_key + 1000), now)
        ends = await _ends(scene)
        assert [ends[split] for split in sorted(ends)] == [
            position_after(old[-1]),
            position_before(packed[0], 2),
            END,
            BEGINNING,
            BEGINNING,
            BEGINNING,
        ]


async def test_ranges() -> None:
    async with open_scene() as scene, scene.source(joins=False) as source:
        sequences = scene.put(*numbered(10))
        scene.stream.split("shardId-000000000000", MIDDLE, time.time())
        split = min(await source.ends())
        assert await whole_range(source, split, BEGINNING, END) == numbered(10)
        assert await whole_range(source, split, position_after(sequences[9]), END) == []
        assert await whole_range(source, split, position_at_time(0), position_before(sequences[2])) == numbered(2)
        for first, to in [(0, 1), (0, 9), (3, 4), (4, 8), (8, 9)]:
            places = position_before(sequences[first]), position_before(sequences[to])
            assert await whole_range(source, split, *places) == numbered(to - first, start=first)
            after = position_after(sequences[first]), position_after(sequences[to])
            assert await whole_range(source, split, *after) == numbered(to - first, start=first + 1)


async def test_what_retention_took_is_not_skipped() -> None:
    async with open_scene() as scene:
        now = time.time() - 100
        sequences = [scene.put(b"%d" % number, at=now + number)[0] for number in range(10)]
        (split,) = await _ends(scene)
        scene.shards[0].trim(now + 4.5)
        kept = position_before(sequences[5])
        for first, to in [
            (position_before(sequences[2]), position_after(sequences[8])),
            (position_after(sequences[1]), position_after(sequences[3])),
            (BEGINNING, position_after(sequences[3])),
        ]:
            with pytest.raises(PositionLost) as lost:
                async with scene.source(joins=False) as source:
                    await whole_range(source, split, first, to)
            assert (lost.value.where["split"], lost.value.where["earliest"]) == (split, kept)
        async with scene.source() as source:
            follower = Follower(source, {split: position_before(sequences[2])})
            await follower.assigned()
            with pytest.raises(PositionLost):
                await source.read()


@pytest.mark.parametrize("closed", [False, True])
async def test_a_range_of_which_nothing_is_left(closed: bool) -> None:
    async with open_scene() as scene, scene.source(joins=False) as source:
        now = time.time() - 100
        sequences = [scene.put(b"%d" % number, at=now + number)[0] for number in range(10)]
        scene.shards[0].trim(now + 50)
        if closed:
            scene.stream.split("shardId-000000000000", MIDDLE, time.time())
        split = min(await source.splits())
        for first in (BEGINNING, position_after(sequences[2])):
            with pytest.raises(PositionLost) as lost:
                await whole_range(source, split, first, position_after(sequences[5]))
            assert "ends before the range" in lost.value.what
        before = position_at_time(int(now * 1000) + 99_000), position_after(sequences[9])
        assert await whole_range(source, split, *before) == []


async def test_a_record_that_was_read_and_is_gone_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with open_scene() as scene:
        now = time.time() - 100
        sequences = [scene.put(b"%d" % number, at=now + number)[0] for number in range(10)]
        (split,) = await _ends(scene)
        scene.shards[0].trim(now + 4.5)
        async with scene.source() as source:
            follower = Follower(source, {split: position_after(sequences[4])})
            await follower.assigned()
            await follower.read_until(5)
        assert follower.everything() == numbered(5, start=5)
        assert scene.counted("kinesis_trimmed") == 1
        assert "retention has passed it" in caplog.text


async def test_which_shards_have_expired() -> None:
    async with open_scene(shards=2) as scene, scene.source() as source:
        first, second = sorted(await source.splits())
        scene.stream.merge("shardId-000000000000", "shardId-000000000001", time.time())
        scene.shards[1].closed = time.time() - 25 * 3600
        newer, older = first.replace("000.", "009."), first.rpartition(".")[0] + ".1000000000"
        places = dict.fromkeys([first, second, newer, older, "another" + second], BEGINNING)
        assert await source.expired(places | {older: END}) == frozenset()  # nobody has listed the shards since
        assert await source.expired(places) == {second, older}
        assert await source.expired(places | {second: END}) == {older}
        assert list(source.parents().values()) == [{first, second}]
        with pytest.raises(PositionLost, match="gone from the stream"):
            source.start_at({second: BEGINNING})
        source.start_at({second: END})


async def test_a_stream_created_anew_is_another_one() -> None:
    async with open_scene() as scene:
        scene.put(*numbered(3), at=time.time())
        (split,) = await _ends(scene)
        older = split.rpartition(".")[0] + ".1000000000"
        with pytest.raises(PositionLost) as lost:
            async with scene.source(joins=False) as source:
                await whole_range(source, older, BEGINNING, END)
        assert "deleted and created anew" in lost.value.what


@BOTH
async def test_a_shard_of_which_nothing_was_read_does_not_go_on_in_another_stream(retrieval: Retrieval) -> None:
    """Its beginning is a place in any stream of that name, whose records would land twice, under two names."""
    async with open_scene() as scene, scene.source(retrieval=retrieval) as source:
        (split,) = await source.splits()
        scene.server.account.delete_stream(scene.stream, with_consumers=True)
        newer = scene.server.account.create_stream("access", 1)
        newer.created += 10
        newer.shards["shardId-000000000000"].put(b"of another stream", "k", time.time())
        source.start_at({split: BEGINNING})
        with pytest.raises(PositionLost, match="created anew"):
            await source.read()


async def test_a_shard_that_ends_where_nothing_is_left_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with open_scene() as scene, scene.source(joins=False) as source:
        sequences = scene.put(*numbered(10), at=time.time() - 100)
        scene.stream.split("shardId-000000000000", MIDDLE, time.time())
        split = min(await source.splits())
        assert await whole_range(source, split, position_after(sequences[9]), END) == []
        assert scene.counted("kinesis_trimmed") == 0
        scene.shards[0].trim(time.time())
        assert await whole_range(source, split, position_after(sequences[5]), END) == []
        assert scene.counted("kinesis_trimmed") == 1
        assert "retention has passed it" in caplog.text
        with pytest.raises(PositionLost, match="no longer there"):
            await whole_range(source, split, position_before(sequences[5]), END)


async def test_moved_stopped_and_cancelled() -> None:
    dice = random.Random(3)
    async with open_scene(shards=2) as scene, scene.source() as source:
        sequences = {shard: scene.put(*numbered(300), shard=shard) for shard in range(2)}
        follower = Follower(source)
        splits = sorted(await follower.assigned(2))
        for _ in range(12):
            shard, number = dice.randrange(2), dice.randrange(300)
            follower.starts[splits[shard]] = position_before(sequences[shard][number])
            follower.values[splits[shard]] = numbered(number)
            follower.begin([splits[shard]])
            reading = asyncio.create_task(follower.read())
            await asyncio.sleep(dice.random() * 0.05)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
        await follower.read_until(600)
        assert [follower.values[split] for split in splits] == [numbered(300)] * 2
        source.stop_reading([splits[0]])
        scene.put(b"unseen", shard=0)
        scene.put(b"seen", shard=1)
        await follower.read_until(601)
        assert follower.values[splits[1]][-1] == b"seen"


# What goes wrong


async def test_a_stream_that_does_not_exist() -> None:
    async with open_scene() as scene, scene.source(stream="acess") as source:
        with pytest.raises(SourceRefused) as refused:
            await anext(source.assignments())
        with pytest.raises(SourceRefused):
            await source.read()
        with pytest.raises(SourceRefused):
            await source.first_positions()
        text = str(refused.value)
        assert "there is no such resource" in text
        assert "acess" in text
        assert "region=us-east-1" in text
        assert "aws.region" in text


async def test_a_server_that_is_not_there_is_waited_for() -> None:
    async with open_scene() as scene:
        gone = scene.server.endpoint_url
    scene.server._port = 1
    source = scene.source()
    assert gone
    async with source:
        waiting = asyncio.create_task(Follower(source).next_event())
        while source.problem == "not connected yet":
            await asyncio.sleep(0.01)
        assert "kinesis does not answer" in str(source.problem)
        assert not waiting.done()
        waiting.cancel()


async def test_an_answer_that_is_damaged_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = answers._DECODER
    broken = 3

    class Sometimes:
        def decode(self, body: bytes) -> answers.Answer:
            nonlocal broken
            broken -= 1
            return genuine.decode(body[:-10] if broken >= 0 else body)

    monkeypatch.setattr(answers, "_DECODER", Sometimes())
    async with open_scene() as scene:
        scene.put(*numbered(10))
        async with scene.source() as source:
            await only_split(scene, follower := Follower(source))
            await follower.read_until(10)
        assert follower.everything() == numbered(10)
