"""The Kinesis server by polling, through real clients: what the AWS API Reference says of records and iterators."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from streamsvc.testing.kinesis_server.limits import MIB, Limits
from streamsvc.testing.kinesis_server.streams import Options
from tests.kinesis_world import FIRST, START, UNTHROTTLED, open_world, refused, values

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")

SECOND = "shardId-000000000001"


async def test_a_record_goes_where_the_md5_of_its_key_or_its_explicit_hash_key_says() -> None:
    async with open_world(shards=4) as world:
        ranges = [(shard.first_hash_key, shard.last_hash_key) for shard in world.stream.open_shards()]
        assert ranges[0][0] == 0
        assert ranges[-1][1] == 2**128 - 1
        assert all(before[1] + 1 == after[0] for before, after in pairwise(ranges))
        keys = ["a", "b", "c", "é", "x" * 256]
        answer = await world.kinesis.put_records(
            StreamName="s", Records=[{"Data": b"", "PartitionKey": key} for key in keys]
        )
        for key, record in zip(keys, answer["Records"], strict=True):
            index = int.from_bytes(hashlib.md5(key.encode()).digest(), "big") >> 126
            assert record["ShardId"] == f"shardId-{index:012}"
        explicit = await world.kinesis.put_record(
            StreamName="s", Data=b"", PartitionKey="a", ExplicitHashKey=str(ranges[2][1])
        )
        assert explicit["ShardId"] == "shardId-000000000002"
        with refused("InvalidArgumentException"):
            await world.kinesis.put_record(StreamName="s", Data=b"", PartitionKey="a", ExplicitHashKey=str(2**128))


async def test_sequence_numbers_have_56_digits_and_grow_also_when_the_clock_goes_back() -> None:
    async with open_world() as world:
        numbers = []
        for step in (0.0, 5.0, -60.0, 0.001, 3600.0):
            world.clock.now += step
            numbers += world.put(b"a", b"b")
        assert numbers == sorted(set(numbers))
        assert {len(str(number)) for number in numbers} == {56}
        assert world.shard().start_number < numbers[0]
        world.stream.split(FIRST, str(2**127), world.clock.now)
        assert numbers[-1] < (world.shard().end_number or 0) < world.shard(SECOND).start_number


async def test_records_come_back_as_they_were_put() -> None:
    async with open_world() as world:
        sent = [b"", b"\x00\xff", b"text", bytes(MIB - 5)]
        for number, value in enumerate(sent):
            await world.kinesis.put_record(StreamName="s", Data=value, PartitionKey=f'"\\é{number}')
        answer = await world.records(await world.iterator())
        assert values(answer) == sent
        assert answer["Records"][3]["PartitionKey"] == '"\\é3'
        assert answer["Records"][0]["ApproximateArrivalTimestamp"] == datetime.fromtimestamp(START, UTC)
        assert answer["MillisBehindLatest"] == 0


async def test_a_record_may_be_as_large_as_the_stream_allows_key_included() -> None:
    async with open_world(options=Options(max_record_kib=10_240)) as world:
        whole = bytes(10 * MIB - 1)
        await world.kinesis.put_records(StreamName="s", Records=[{"Data": whole, "PartitionKey": "k"}])
        assert await world.read() == [whole]
        with refused("InvalidArgumentException"):
            await world.kinesis.put_record(StreamName="s", Data=whole, PartitionKey="kk")
        half = {"Data": bytes(5 * MIB), "PartitionKey": "k"}
        with refused("InvalidArgumentException"):
            await world.kinesis.put_records(StreamName="s", Records=[half, half])


async def test_an_answer_has_at_most_10_000_records_and_10_mib_and_at_least_one_record() -> None:
    async with open_world(options=Options(max_record_kib=10_240)) as world:
        world.put(*[b"x"] * 10_001)
        world.put(bytes(6 * MIB), bytes(5 * MIB), bytes(10 * MIB - 1))
        sizes, iterator = [], await world.iterator()
        for _ in range(5):
            answer = await world.records(iterator)
            sizes.append(len(answer["Records"]))
            iterator = answer["NextShardIterator"]
        assert sizes == [10_000, 2, 1, 1, 0]
        assert values(await world.records(await world.iterator(), Limit=3)) == [b"x"] * 3


async def test_the_five_kinds_of_iterator() -> None:
    async with open_world() as world:
        first, second = world.put(b"1", b"2")
        world.clock.now += 10
        world.put(b"3")
        assert await world.read("TRIM_HORIZON") == [b"1", b"2", b"3"]
        assert await world.read("AT_SEQUENCE_NUMBER", StartingSequenceNumber=str(second)) == [b"2", b"3"]
        assert await world.read("AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=str(second)) == [b"3"]
        start = str(world.shard().start_number)
        assert await world.read("AT_SEQUENCE_NUMBER", StartingSequenceNumber=start) == [b"1", b"2", b"3"]
        at = datetime.fromtimestamp(int(START) + 1, UTC)
        assert await world.read("AT_TIMESTAMP", Timestamp=at) == [b"3"]
        assert await world.read("AT_TIMESTAMP", Timestamp=datetime.fromtimestamp(0, UTC)) == [b"1", b"2", b"3"]
        latest = await world.iterator("LATEST")
        world.put(b"4")
        assert values(await world.records(latest)) == [b"4"]
        world.shard().trim(START + 1)
        assert await world.read("AT_SEQUENCE_NUMBER", StartingSequenceNumber=str(first)) == [b"3", b"4"]
        assert await world.read("TRIM_HORIZON") == [b"3", b"4"]


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("AT_SEQUENCE_NUMBER", {}),
        ("AT_SEQUENCE_NUMBER", {"StartingSequenceNumber": "123456"}),
        ("AFTER_SEQUENCE_NUMBER", {"StartingSequenceNumber": "9" * 56}),
        ("TRIM_HORIZON", {"StartingSequenceNumber": "1"}),
        ("AT_TIMESTAMP", {}),
        ("AT_TIMESTAMP", {"Timestamp": datetime.fromtimestamp(START + 60, UTC)}),
        ("LATEST", {"Timestamp": datetime.fromtimestamp(START, UTC)}),
    ],
)
async def test_a_start_that_is_none_is_an_invalid_argument(kind: str, place: dict[str, Any]) -> None:
    async with open_world() as world:
        with refused("InvalidArgumentException"):
            await world.iterator(kind, **place)


async def test_a_sequence_number_is_of_one_shard_of_one_stream() -> None:
    async with open_world(shards=2) as world:
        (number,) = world.put(b"1")
        with refused("InvalidArgumentException"):
            await world.iterator("AT_SEQUENCE_NUMBER", SECOND, StartingSequenceNumber=str(number))
        await world.kinesis.delete_stream(StreamName="s")
        world.clock.now += 5
        await world.kinesis.create_stream(StreamName="s", ShardCount=1)
        with refused("InvalidArgumentException"):
            await world.iterator("AT_SEQUENCE_NUMBER", StartingSequenceNumber=str(number))


async def test_iterators_expire_cannot_be_forged_and_die_with_their_stream() -> None:
    async with open_world(replace(UNTHROTTLED, iterator_s=30)) as world:
        world.put(b"1")
        iterator = await world.iterator()
        world.clock.now += 30
        assert values(await world.records(iterator)) == values(await world.records(iterator)) == [b"1"]
        world.clock.now += 1
        with refused("ExpiredIteratorException"):
            await world.records(iterator)
        for garbage in ("garbage", iterator[:-8], "A" * len(iterator)):
            with refused("InvalidArgumentException"):
                await world.records(garbage)
        fresh = await world.iterator()
        await world.kinesis.delete_stream(StreamName="s")
        with refused("ResourceNotFoundException"):
            await world.records(fresh)
        await world.kinesis.create_stream(StreamName="s", ShardCount=1)
        with refused("ResourceNotFoundException"):
            await world.records(fresh)


async def test_millis_behind_latest_is_the_age_of_what_is_not_read_yet() -> None:
    async with open_world() as world:
        world.put(b"1", b"2")
        world.clock.now += 2.5
        world.put(b"3")
        world.clock.now += 1
        answer = await world.records(await world.iterator(), Limit=1)
        assert answer["MillisBehindLatest"] == 3500
        answer = await world.records(answer["NextShardIterator"], Limit=1)
        assert answer["MillisBehindLatest"] == 1000
        answer = await world.records(answer["NextShardIterator"])
        assert answer["MillisBehindLatest"] == 0


async def test_reading_is_five_calls_a_second_and_a_large_answer_is_paid_off() -> None:
    async with open_world(Limits(), options=Options(max_record_kib=10_240)) as world:
        world.put(b"x")
        iterator = await world.iterator()
        for _ in range(5):
            await world.records(iterator)
        with refused("ProvisionedThroughputExceededException"):
            await world.records(iterator)
        world.clock.now += 1
        world.shard().put(bytes(10 * MIB - 1), "k", world.clock.now)
        answer = await world.records(iterator)
        assert len(answer["Records"]) == 1
        answer = await world.records(answer["NextShardIterator"])
        assert len(answer["Records"]) == 1
        for seconds, allowed in ((4.9, False), (0.2, True)):
            world.clock.now += seconds
            if allowed:
                await world.records(answer["NextShardIterator"])
            else:
                with refused("ProvisionedThroughputExceededException"):
                    await world.records(answer["NextShardIterator"])


async def test_writing_is_a_thousand_records_and_a_mebibyte_a_second_and_only_the_rest_fails() -> None:
    async with open_world(Limits(), shards=2) as world:
        small = {"Data": b"x", "PartitionKey": "k", "ExplicitHashKey": "0"}
        for _ in range(2):
            answer = await world.kinesis.put_records(StreamName="s", Records=[small] * 500)
            assert answer["FailedRecordCount"] == 0
        answer = await world.kinesis.put_records(StreamName="s", Records=[small] * 500)
        assert answer["FailedRecordCount"] == 500
        assert answer["Records"][0]["ErrorCode"] == "ProvisionedThroughputExceededException"
        assert FIRST in answer["Records"][0]["ErrorMessage"]
        other = await world.kinesis.put_records(
            StreamName="s", Records=[small, {**small, "ExplicitHashKey": str(2**128 - 1)}]
        )
        assert [record.get("ShardId") for record in other["Records"]] == [None, SECOND]
        with refused("ProvisionedThroughputExceededException"):
            await world.kinesis.put_record(StreamName="s", **small)
        world.clock.now += 1
        large = {**small, "Data": bytes(600 * 1024)}
        answer = await world.kinesis.put_records(StreamName="s", Records=[large] * 3)
        assert ["ErrorCode" in record for record in answer["Records"]] == [False, False, True]


async def test_a_stream_that_distributes_by_itself_needs_no_key() -> None:
    async with open_world(options=Options(mode="ON_DEMAND", distribution="AUTO"), shards=2) as world:
        answer = await world.kinesis.put_records(StreamName="s", Records=[{"Data": b"1"}] * 4)
        assert {record["ShardId"] for record in answer["Records"]} == {FIRST, SECOND}
        read = await world.records(await world.iterator())
        assert "PartitionKey" not in read["Records"][0]
    async with open_world() as world:
        with refused("InvalidArgumentException"):
            await world.kinesis.put_records(StreamName="s", Records=[{"Data": b"1"}])


async def test_what_is_older_than_the_retention_period_is_gone() -> None:
    async with open_world(replace(UNTHROTTLED, retention_s=60)) as world:
        world.put(b"1", b"2")
        iterator = await world.iterator()
        world.clock.now += 40
        world.put(b"3")
        world.stream.split(FIRST, str(2**127), world.clock.now)
        world.clock.now += 30
        answer = await world.records(iterator)
        assert values(answer) == [b"3"]
        world.clock.now += 31
        assert await world.listed("FROM_TRIM_HORIZON") == [1, 2]
        with refused("ResourceNotFoundException"):
            await world.records(answer["NextShardIterator"])
