"""The Kinesis server's shards, through real clients: resharding, listing, what becomes of what was not read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from streamsvc.testing.kinesis_server.streams import Options
from tests.kinesis_world import FIRST, START, UNTHROTTLED, World, open_world, refused, values

SECOND, THIRD, FOURTH = (f"shardId-{number:012}" for number in (1, 2, 3))
MIDDLE = str(2**127)


async def _shards(world: World) -> dict[str, Any]:
    answer = await world.kinesis.list_shards(StreamName="s")
    return {shard["ShardId"]: shard for shard in answer["Shards"]}


@pytest.mark.parametrize("with_records", [False, True])
async def test_a_split_shard_keeps_its_records_and_ends_with_its_children(with_records: bool) -> None:
    async with open_world(replace(UNTHROTTLED, ends_with_records=with_records)) as world:
        await world.kinesis.put_record(StreamName="s", Data=b"before", PartitionKey="k")
        await world.kinesis.split_shard(StreamName="s", ShardToSplit=FIRST, NewStartingHashKey=MIDDLE)
        put = await world.kinesis.put_record(StreamName="s", Data=b"after", PartitionKey="k", ExplicitHashKey=MIDDLE)
        assert put["ShardId"] == THIRD
        answer = await world.records(await world.iterator())
        assert values(answer) == [b"before"]
        assert ("NextShardIterator" in answer) is not with_records
        if not with_records:
            answer = await world.records(answer["NextShardIterator"])
            assert values(answer) == []
        assert "NextShardIterator" not in answer
        assert [child["ShardId"] for child in answer["ChildShards"]] == [SECOND, THIRD]
        assert [child["ParentShards"] for child in answer["ChildShards"]] == [[FIRST], [FIRST]]
        last = await world.records(await world.iterator("LATEST"))
        assert "NextShardIterator" not in last
        assert len(last["ChildShards"]) == 2


async def test_lineage_hash_ranges_and_ending_numbers() -> None:
    async with open_world() as world:
        await world.kinesis.split_shard(StreamName="s", ShardToSplit=FIRST, NewStartingHashKey=MIDDLE)
        await world.kinesis.merge_shards(StreamName="s", ShardToMerge=THIRD, AdjacentShardToMerge=SECOND)
        shards = await _shards(world)
    assert [int(name[-1]) for name in shards] == [0, 1, 2, 3]
    assert "ParentShardId" not in shards[FIRST]
    assert shards[SECOND]["ParentShardId"] == shards[THIRD]["ParentShardId"] == FIRST
    assert shards[FOURTH]["ParentShardId"] == THIRD
    assert shards[FOURTH]["AdjacentParentShardId"] == SECOND
    assert shards[SECOND]["HashKeyRange"] == {"StartingHashKey": "0", "EndingHashKey": str(2**127 - 1)}
    assert shards[THIRD]["HashKeyRange"] == {"StartingHashKey": MIDDLE, "EndingHashKey": str(2**128 - 1)}
    assert shards[FOURTH]["HashKeyRange"] == {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)}
    assert ["EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in shards.values()] == [True] * 3 + [False]


async def test_what_cannot_be_resharded() -> None:
    async with open_world(shards=3) as world:
        with refused("InvalidArgumentException"):
            await world.kinesis.merge_shards(StreamName="s", ShardToMerge=FIRST, AdjacentShardToMerge=THIRD)
        with refused("InvalidArgumentException"):
            await world.kinesis.split_shard(StreamName="s", ShardToSplit=FIRST, NewStartingHashKey="1")
        with refused("ResourceNotFoundException"):
            await world.kinesis.split_shard(StreamName="s", ShardToSplit="shardId-9", NewStartingHashKey="5")
        await world.kinesis.split_shard(StreamName="s", ShardToSplit=FIRST, NewStartingHashKey="5")
        with refused("ResourceInUseException"):
            await world.kinesis.split_shard(StreamName="s", ShardToSplit=FIRST, NewStartingHashKey="5")
    async with open_world(options=Options(mode="ON_DEMAND"), shards=4) as world:
        with refused("ValidationException"):
            await world.kinesis.merge_shards(StreamName="s", ShardToMerge=FIRST, AdjacentShardToMerge=SECOND)


async def test_changes_of_a_stream_take_their_time() -> None:
    async with open_world(replace(UNTHROTTLED, transition_s=10)) as world:

        async def status() -> str:
            answer = await world.kinesis.describe_stream_summary(StreamName="s")
            return str(answer["StreamDescriptionSummary"]["StreamStatus"])

        assert await status() == "CREATING"
        with refused("ResourceInUseException"):
            await world.kinesis.list_shards(StreamName="s")
        with refused("ResourceNotFoundException"):
            await world.kinesis.put_record(StreamName="s", Data=b"1", PartitionKey="k")
        world.clock.now += 10
        assert await status() == "ACTIVE"
        await world.kinesis.split_shard(StreamName="s", ShardToSplit=FIRST, NewStartingHashKey=MIDDLE)
        assert await status() == "UPDATING"
        await world.kinesis.put_record(StreamName="s", Data=b"1", PartitionKey="k")
        with refused("ResourceInUseException"):
            await world.kinesis.split_shard(StreamName="s", ShardToSplit=SECOND, NewStartingHashKey="5")
        world.clock.now += 10
        assert await status() == "ACTIVE"


async def test_every_filter_of_list_shards() -> None:
    """0 and 1 from the start; 0 is split into 2 and 3 after 10 s; 3 and 1 are merged into 4 after 20."""
    async with open_world(replace(UNTHROTTLED, retention_s=100), shards=2) as world:
        world.clock.now = START + 10
        world.stream.split(FIRST, str(2**126), world.clock.now)
        world.clock.now = START + 20
        world.stream.merge(FOURTH, SECOND, world.clock.now)
        world.clock.now = START + 30

        def at(seconds: int) -> datetime:
            return datetime.fromtimestamp(int(START) + seconds, UTC)

        assert await world.listed("FROM_TRIM_HORIZON") == [0, 1, 2, 3, 4]
        assert await world.listed("AT_TRIM_HORIZON") == [0, 1]
        assert await world.listed("AT_LATEST") == [2, 4]
        assert await world.listed("AFTER_SHARD_ID", ShardId=THIRD) == [3, 4]
        assert await world.listed("AT_TIMESTAMP", Timestamp=at(5)) == [0, 1]
        assert await world.listed("AT_TIMESTAMP", Timestamp=at(15)) == [1, 2, 3]
        assert await world.listed("AT_TIMESTAMP", Timestamp=at(25)) == [2, 4]
        assert await world.listed("FROM_TIMESTAMP", Timestamp=at(5)) == [0, 1, 2, 3, 4]
        assert await world.listed("FROM_TIMESTAMP", Timestamp=at(15)) == [1, 2, 3, 4]
        assert await world.listed("FROM_TIMESTAMP", Timestamp=at(25)) == [2, 4]
        world.clock.now = START + 111
        assert await world.listed("FROM_TRIM_HORIZON") == [1, 2, 3, 4]
        assert await world.listed("AT_TRIM_HORIZON") == [1, 2, 3]
        for kind in ("AT_TIMESTAMP", "FROM_TIMESTAMP", "AFTER_SHARD_ID"):
            with refused("InvalidArgumentException"):
                await world.listed(kind)


async def test_pages_of_shards_keep_their_filter_and_expire() -> None:
    async with open_world(shards=7) as world:
        world.stream.split(FIRST, "1000", world.clock.now)
        asked: dict[str, Any] = {"StreamName": "s", "ShardFilter": {"Type": "AT_LATEST"}}
        found: list[int] = []
        while asked:
            answer = await world.kinesis.list_shards(**asked, MaxResults=3)
            found += [int(shard["ShardId"][-1]) for shard in answer["Shards"]]
            asked = {"NextToken": answer["NextToken"]} if "NextToken" in answer else {}
        assert found == [1, 2, 3, 4, 5, 6, 7, 8]
        token = (await world.kinesis.list_shards(StreamName="s", MaxResults=1))["NextToken"]
        with refused("InvalidArgumentException"):
            await world.kinesis.list_shards(StreamName="s", NextToken=token)
        with refused("InvalidArgumentException"):
            await world.kinesis.list_shards(NextToken="garbage")
        world.clock.now += 301
        with refused("ExpiredNextTokenException"):
            await world.kinesis.list_shards(NextToken=token)


async def test_describe_stream_pages_and_a_creation_time_that_is_of_another_stream() -> None:
    async with open_world(shards=3) as world:
        page = (await world.kinesis.describe_stream(StreamName="s", Limit=2))["StreamDescription"]
        assert [page["HasMoreShards"], len(page["Shards"])] == [True, 2]
        page = await world.kinesis.describe_stream(StreamName="s", ExclusiveStartShardId=SECOND)
        assert [shard["ShardId"] for shard in page["StreamDescription"]["Shards"]] == [THIRD]
        created = page["StreamDescription"]["StreamCreationTimestamp"]
        assert created == datetime.fromtimestamp(START, UTC)
        await world.kinesis.list_shards(StreamName="s", StreamCreationTimestamp=created)
        with refused("ResourceNotFoundException"):
            await world.kinesis.list_shards(StreamName="s", StreamCreationTimestamp=datetime.fromtimestamp(5, UTC))
