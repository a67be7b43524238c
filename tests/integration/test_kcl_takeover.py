"""From a real KCL to the native engine and back, over one lease table: where one leaves off, the other goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from structlog.testing import capture_logs

from streamsvc.config import Aws
from streamsvc.config_sources import KinesisSource as Options
from streamsvc.contracts import Assigned
from streamsvc.core.kinesis_positions import BEGINNING, END, KclCheckpoint, kcl_checkpoint
from streamsvc.ops.metrics import Metrics
from streamsvc.records import Position, Split
from streamsvc.sources.kinesis.counts import Counts
from streamsvc.sources.kinesis.source import KinesisSource
from streamsvc.sources.kinesis.splits import parse_split
from tests.integration.test_kcl_daemon import Landing, aws, kinesis, put
from tests.kinesis_emulators import client

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

__all__ = ["aws", "kinesis"]


class Native:
    """As ``Landing``, with the native engine, from where the table says."""

    def __init__(self, aws: Aws) -> None:
        self.source = KinesisSource(
            Options(stream="access", application="app", failover=3.0, start="committed"),
            application="app",
            worker="native",
            queue_bytes=16 * 1024 * 1024,
            aws=aws,
            counts=Counts(Metrics("test"), "test"),
        )
        self.starts: dict[Split, Position] = {}
        self.places: dict[Split, Position] = {}
        self.values: list[bytes] = []

    async def follow(self) -> None:
        self.starts = dict(await self.source.first_positions())
        async for event in self.source.assignments():
            if isinstance(event, Assigned):
                self.source.start_at({split: self.starts.get(split, BEGINNING) for split in event.splits})
            else:
                self.source.release(event.splits)

    async def until(self, wanted: Iterable[bytes]) -> None:
        missing = set(wanted) - set(self.values)
        while missing:
            batch = await self.source.read()
            values = batch.values.to_pylist()
            missing.difference_update(values)
            self.values += values
            ends = {span.split: span.to for span in batch.spans}
            self.places |= ends
            self.source.acknowledge(ends)


async def owners_and_checkpoints(aws: Aws) -> tuple[set[str | None], dict[str, KclCheckpoint]]:
    async with client("dynamodb", str(aws.endpoints.dynamodb)) as dynamodb:
        rows = (await dynamodb.scan(TableName="app"))["Items"]
    return {row.get("leaseOwner", {}).get("S") for row in rows}, {
        row["leaseKey"]["S"]: KclCheckpoint(row["checkpoint"]["S"], int(row["checkpointSubSequenceNumber"]["N"]))
        for row in rows
    }


async def through_the_kcl(
    aws: Aws, places: dict[Split, Position], wanted: list[bytes]
) -> tuple[list[bytes], dict[str, str]]:
    """What comes of it until all that is wanted has come; and by shard, at which checkpoint the KCL itself began, which
    knows nothing but the table. What it brings from before our places is skipped, and a gap read from the stream."""
    landing = Landing(aws)
    landing.places = places
    with capture_logs() as logged:
        async with landing.source:
            following = asyncio.create_task(landing.follow())
            await landing.until(wanted)
            following.cancel()
    began = {
        parse_split(line["split"]).shard: line["checkpoint"]
        for line in logged
        if line["event"] == "the KCL brings a shard"
    }
    return landing.values, began


async def test_there_and_back(aws: Aws, kinesis: Any) -> None:
    before = await put(kinesis, "before", 200)
    values, began = await through_the_kcl(aws, {}, before)
    assert sorted(values) == sorted(before)
    assert set(began.values()) == {"TRIM_HORIZON"}

    await kinesis.split_shard(StreamName="access", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**126))
    between = await put(kinesis, "between", 200)
    native = Native(aws)
    async with native.source:
        following = asyncio.create_task(native.follow())
        await native.until(between)
        owners, _ = await owners_and_checkpoints(aws)
        assert owners == {"native", None}
        following.cancel()
    assert sorted(native.values) == sorted(between)
    owners, checkpoints = await owners_and_checkpoints(aws)
    assert owners == {None}
    assert checkpoints == {parse_split(split).shard: kcl_checkpoint(at) for split, at in native.places.items()}

    after = await put(kinesis, "after", 200)
    values, began = await through_the_kcl(aws, dict(native.places), after)
    assert sorted(values) == sorted(after)
    open_shards = {parse_split(split).shard for split, at in native.places.items() if at != END}
    assert len(open_shards) == 3
    assert {shard: began[shard] for shard in open_shards} == {
        shard: checkpoints[shard].sequence for shard in open_shards
    }
