"""The Kinesis source against kinesis-local: not our own idea of Kinesis."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamsvc.config_sources import KinesisSource as KinesisOptions
from streamsvc.core.kinesis_positions import END
from streamsvc.core.kpl import encode_aggregate
from streamsvc.ops.metrics import Metrics
from streamsvc.sources.kinesis.counts import Counts
from streamsvc.sources.kinesis.source import KinesisSource
from tests.kinesis_emulators import KinesisLocal, client
from tests.kinesis_sources import MIB, Follower, aws


class Stream:
    """Of one shard, and numbered records in it, a fifth of them packed."""

    def __init__(self, emulator: KinesisLocal, kinesis: Any) -> None:
        self.name = f"s-{uuid.uuid4().hex[:8]}"
        self.sent = 0
        self.kinesis = kinesis
        self._emulator = emulator

    async def put(self) -> None:
        records = [{"Data": b"%d" % (self.sent + number), "PartitionKey": "k"} for number in range(20)]
        packed = encode_aggregate(("k", b"%d" % (self.sent + 20 + number)) for number in range(5))
        await self.kinesis.put_records(StreamName=self.name, Records=[*records, {"Data": packed, "PartitionKey": "k"}])
        self.sent += 25

    async def until_active(self) -> None:
        await self.kinesis.get_waiter("stream_exists").wait(StreamName=self.name, WaiterConfig={"Delay": 1})

    def source(self, **options: Any) -> KinesisSource:
        return KinesisSource(
            KinesisOptions(stream=self.name, leases="none", **options),
            application="test.p",
            worker="w",
            queue_bytes=16 * MIB,
            aws=aws(self._emulator.endpoint_url),
            counts=Counts(Metrics("test"), "p"),
        )


@pytest.fixture
async def stream(kinesis_local: KinesisLocal) -> AsyncIterator[Stream]:
    async with client("kinesis", kinesis_local.endpoint_url) as kinesis:
        made = Stream(kinesis_local, kinesis)
        await kinesis.create_stream(StreamName=made.name, ShardCount=1)
        await made.until_active()
        yield made


async def test_polling_through_a_split(stream: Stream) -> None:
    await stream.put()
    async with stream.source() as source:
        follower = Follower(source, await source.first_positions())
        (parent,) = await follower.assigned()
        await follower.read_until(stream.sent)
        assert follower.at == await source.ends()
        await stream.kinesis.split_shard(
            StreamName=stream.name, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127)
        )
        await stream.until_active()
        await stream.put()
        await follower.to_end(parent)
        source.acknowledge({parent: END})
        children = await follower.assigned(2)
        assert source.parents() == {child: frozenset({parent}) for child in children}
        await follower.read_until(stream.sent)
        assert sorted(map(int, follower.everything())) == list(range(stream.sent))
        values: list[object] = []
        async for batch in source.read_range({parent: (source.first_position, END)}):
            values += batch.values.to_pylist()
        assert values == follower.values[parent]


async def test_fan_out(stream: Stream) -> None:
    """Without a split: a subscription of kinesis-local to a closed shard never ends. It has no initial response, which
    botocore alone would stumble over."""
    await stream.put()
    async with stream.source(retrieval="fanout") as source:
        follower = Follower(source)
        await follower.assigned()
        await follower.read_until(stream.sent)
        await stream.put()
        await follower.read_until(stream.sent)
        assert list(map(int, follower.everything())) == list(range(stream.sent))
        assert follower.at == await source.ends()
