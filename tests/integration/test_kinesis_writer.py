"""Records into Kinesis: nothing is lost, whatever fails, and aggregates land where their readers keep them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from streamsvc.core.kpl import HashRange, Put, deaggregate, hash_key
from streamsvc.errors import SourceRefused, SourceUnavailable, StreamsvcError
from streamsvc.sinks.kinesis.aggregating import AggregatingWriter
from streamsvc.sinks.kinesis.writer import KinesisWriter, batches
from streamsvc.sources.kinesis import failures
from streamsvc.testing.kinesis_server import Fault, Limits, random_faults
from streamsvc.testing.kinesis_server.limits import MIB
from streamsvc.testing.kinesis_server.streams import Options
from tests.kinesis_world import FIRST, UNTHROTTLED, World, open_world, values


def explain(error: BaseException, action: str) -> StreamsvcError:
    return failures.mapped(error, action)


@asynccontextmanager
async def open_writer(world: World, stream: str = "s") -> AsyncIterator[KinesisWriter]:
    """The writer waits on the world's clock: waiting takes no time."""

    async def sleep(seconds: float) -> None:
        world.clock.now += seconds

    async with KinesisWriter(world.kinesis, stream, explain, sleep=sleep, clock=world.clock) as writer:
        yield writer


def numbered(count: int, size: int = 10) -> list[Put]:
    return [Put(f"key-{number % 97}", None, b"%0*d" % (size, number)) for number in range(count)]


async def stored(world: World) -> list[bytes]:
    """What a reader gets of all shards, as the KCL would: without aggregates that landed outside."""
    found: list[bytes] = []
    for shard in list(world.stream.shards.values()):
        answer = await world.records(await world.iterator(shard=shard.id))
        keys = [record["PartitionKey"] for record in answer["Records"]]
        found += deaggregate(keys, values(answer), HashRange(shard.first_hash_key, shard.last_hash_key)).values
    return found


def data(records: Iterable[Put]) -> list[bytes]:
    return [record.data for record in records]


def test_batches_fill_requests_and_keep_the_order() -> None:
    small = numbered(1_203)
    assert [len(batch) for batch in batches(small)] == [500, 500, 203]
    assert [record for batch in batches(small) for record in batch] == small
    large = [Put("k", None, bytes(3 * MIB))] * 7
    assert [len(batch) for batch in batches(large)] == [3, 3, 1]
    assert list(batches([])) == []
    exact = [Put("k", None, bytes(5 * MIB - 1))] * 2
    assert [len(batch) for batch in batches(exact)] == [2]


async def test_records_are_stored_and_their_shards_answered() -> None:
    async with open_world(shards=3) as world, open_writer(world) as writer:
        records = numbered(1_203)
        shards = await writer.put(records)
        assert sorted(await stored(world)) == sorted(data(records))
        for record, shard in zip(records, shards, strict=True):
            found = world.shard(shard)
            assert found.first_hash_key <= hash_key(record.partition_key) <= found.last_hash_key
        assert (writer.counts.records, writer.counts.requests, writer.counts.retries) == (1_203, 3, 0)


async def test_only_what_failed_is_sent_again() -> None:
    faults = {"PutRecords": [Fault.PARTIAL, Fault.PARTIAL, Fault.THROTTLE, Fault.PARTIAL]}
    async with open_world(faults=faults) as world, open_writer(world) as writer:
        records = numbered(400)
        await writer.put(records)
        assert sorted(await stored(world)) == data(records)
        assert writer.counts.requests == 5
        assert 0 < writer.counts.retries < 1_000


async def test_what_a_shard_may_take_in_a_second_is_waited_for() -> None:
    async with open_world(Limits()) as world, open_writer(world) as writer:
        records = numbered(3_000)
        await writer.put(records)
        assert world.shard().end == 3_000
        assert writer.counts.retries > 0


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_of_a_later_request_gets_in_front_of_what_failed(seed: int) -> None:
    """Nor in front of what was stored twice: whoever keeps the newest value of a key has the last one that was put."""
    rates = {Fault.PARTIAL: 0.5, Fault.THROTTLE: 0.1, Fault.RESET_AFTER: 0.1}
    async with open_world(faults={"PutRecords": random_faults(seed, rates)}) as world, open_writer(world) as writer:
        rounds = [[Put(f"k{key}", None, b"%d" % number) for key in range(500)] for number in range(4)]
        await writer.put(rounds[0] + rounds[1])
        await writer.put(rounds[2])
        await writer.put(rounds[3])
        found = await stored(world)
        assert found == sorted(found)
        assert all(count >= 500 for count in Counter(found).values())
        assert world.server.faults.fired["PutRecords.partial"] > 0


@pytest.mark.parametrize("fault", [Fault.INTERNAL, Fault.UNAVAILABLE, Fault.RESET_BEFORE])
async def test_what_was_not_applied_is_stored_once(fault: Fault) -> None:
    async with open_world(faults={"PutRecords": [fault]}) as world, open_writer(world) as writer:
        await writer.put(numbered(3))
        assert await stored(world) == data(numbered(3))


@pytest.mark.parametrize("fault", [Fault.RESET_AFTER, Fault.ERROR_AFTER])
async def test_a_lost_acknowledgement_doubles_and_loses_nothing(fault: Fault) -> None:
    async with open_world(faults={"PutRecords": [fault]}) as world, open_writer(world) as writer:
        await writer.put(numbered(3))
        assert Counter(await stored(world)) == Counter(data(numbered(3)) * 2)


async def test_it_gives_up_when_nothing_is_stored_for_a_minute() -> None:
    async with open_world(faults={"PutRecords": [Fault.INTERNAL] * 100}) as world, open_writer(world) as writer:
        began = world.clock.now
        with pytest.raises(SourceUnavailable, match="Given up after 60 seconds"):
            await writer.put(numbered(3))
        assert 60 <= world.clock.now - began < 70


async def test_a_stream_that_is_not_there_is_refused_at_once() -> None:
    async with open_world() as world:
        with pytest.raises(SourceRefused, match="no such resource"):
            await open_writer(world, "nothing").__aenter__()


async def test_large_records_go_through_in_pieces() -> None:
    async with open_world(options=Options(max_record_kib=10_240)) as world, open_writer(world) as writer:
        assert writer.max_record_bytes == 10 * MIB
        records = [Put("k", None, bytes([number]) * (4 * MIB)) for number in range(3)]
        await writer.put(records)
        assert writer.counts.requests == 2
        assert world.shard().end == 3


async def test_aggregates_hold_what_belongs_into_their_shard() -> None:
    async with open_world(shards=4) as world, open_writer(world) as plain:
        writer = AggregatingWriter(plain)
        records = numbered(20_000, size=50)
        await writer.put(records[:12_000])
        await writer.put(records[12_000:])
        await writer.flush()
        assert sorted(await stored(world)) == data(records)
        assert writer.counts.records == 20_000
        assert 20 < writer.counts.puts < 60
        assert sum(shard.end for shard in world.stream.shards.values()) == writer.counts.puts


async def test_what_a_reshard_misplaces_is_packed_again() -> None:
    async with open_world(shards=2) as world, open_writer(world) as plain:
        writer = AggregatingWriter(plain)
        records = numbered(9_000, size=50)
        await writer.put(records[:3_000])
        world.stream.split(FIRST, str(2**126), world.clock.now)
        await writer.put(records[3_000:6_000])
        await writer.flush()
        world.stream.merge("shardId-000000000003", "shardId-000000000001", world.clock.now)
        await writer.put(records[6_000:])
        await writer.flush()
        assert sorted(await stored(world)) == data(records)
        assert writer.counts.records == 9_000
        assert writer.counts.retries > 0


async def test_a_record_that_stays_alone_is_none_of_an_aggregate() -> None:
    async with open_world(UNTHROTTLED, shards=2) as world, open_writer(world) as plain:
        writer = AggregatingWriter(plain)
        alone = [Put("a", None, b"small"), Put("a", None, bytes(60_000)), Put("a", "5", b"explicit")]
        for record in alone:
            await writer.put([record])
            await writer.flush()
        await writer.flush()
        assert Counter(await stored(world)) == Counter(data(alone))
        assert writer.counts.puts == 3
