"""The KCL bridge with the real MultiLangDaemon: a JVM, kinesis-local, and moto's DynamoDB."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from streamsvc.config import Aws
from streamsvc.config_sources import Kcl
from streamsvc.config_sources import KinesisSource as Options
from streamsvc.contracts import Assigned, Source
from streamsvc.core.kinesis_positions import BEGINNING, END, KclCheckpoint, kcl_checkpoint
from streamsvc.core.kpl import encode_aggregate
from streamsvc.errors import ConfigError
from streamsvc.ops.metrics import Metrics
from streamsvc.records import Batch, Position, Split
from streamsvc.sources.kinesis.counts import Counts
from streamsvc.sources.kinesis.kcl.settings import command_line, find_runtime, settings_for
from streamsvc.sources.kinesis.kcl.source import KclSource
from streamsvc.sources.kinesis.source import KinesisSource
from streamsvc.sources.kinesis.splits import parse_split
from tests.kinesis_emulators import DynamoDb, EmulatorMissing, KinesisLocal, client

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

QUICK = {
    "shardSyncIntervalMillis": "500",
    "leaseAssignmentIntervalMillis": "2000",
    "workerMetricsReporterFreqInMillis": "1000",
    "parentShardPollIntervalMillis": "500",
    "idleTimeBetweenReadsInMillis": "250",
}
"""The KCL's own pauses are made for fleets; each start would take two minutes."""


@pytest.fixture
def aws() -> Iterator[Aws]:
    try:
        find_runtime()
        with KinesisLocal() as kinesis, DynamoDb() as dynamodb:
            yield Aws.model_validate(
                {
                    "region": "us-east-1",
                    "access_key_id": "test",
                    "secret_access_key": "test",
                    "endpoints": {"kinesis": kinesis.endpoint_url, "dynamodb": dynamodb.endpoint_url},
                }
            )
    except (EmulatorMissing, ConfigError) as missing:
        pytest.skip(f"no real KCL: {missing}")


@pytest.fixture
async def kinesis(aws: Aws) -> AsyncIterator[Any]:
    async with client("kinesis", str(aws.endpoints.kinesis)) as kinesis:
        await kinesis.create_stream(StreamName="access", ShardCount=2)
        while (await kinesis.describe_stream_summary(StreamName="access"))["StreamDescriptionSummary"][
            "StreamStatus"
        ] != "ACTIVE":
            await asyncio.sleep(0.05)
        yield kinesis


Row: TypeAlias = tuple[object, ...]


def rows_of(batch: Batch) -> list[Row]:
    """Position, value, key and arrival of each record."""
    columns = batch.position_text(batch.offsets), batch.values, batch.keys(), batch.arrivals()
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


class Landing:
    """A pipeline and a segment log in small: what is read lands at once, and a split goes on where it landed."""

    def __init__(self, aws: Aws) -> None:
        options = Options(stream="access", engine="kcl", application="app", failover=3.0, kcl=Kcl(properties=QUICK))
        view = KinesisSource(
            options,
            application="app",
            worker="w",
            queue_bytes=16 * 1024 * 1024,
            aws=aws,
            counts=Counts(Metrics("test"), "test"),
            joins=False,
        )
        settings = settings_for(options, aws, "app", "app", "w")
        command = command_line(find_runtime(), settings)
        self.source = KclSource(view, settings, command, queue_bytes=16 * 1024 * 1024)
        self.places: dict[Split, Position] = {}
        self.values: list[bytes] = []
        self.rows: dict[Split, list[Row]] = {}

    async def follow(self) -> None:
        async for event in self.source.assignments():
            if isinstance(event, Assigned):
                self.source.start_at({split: self.places.get(split, BEGINNING) for split in event.splits})
            else:
                self.source.stop_reading(event.splits)
                self.source.release(event.splits)

    async def until(self, wanted: Iterable[bytes]) -> None:
        missing = set(wanted) - set(self.values)
        while missing:
            batch = await self.source.read()
            (span,) = batch.spans
            if self.places.get(span.split, BEGINNING) != span.first:
                continue
            values = batch.values.to_pylist()
            missing.difference_update(values)
            self.values += values
            self.rows.setdefault(span.split, []).extend(rows_of(batch))
            self.places[span.split] = span.to
            self.source.acknowledge({span.split: span.to})


async def put(kinesis: Any, name: str, count: int) -> list[bytes]:
    """Half of them plain, half of them packed as the KPL does."""
    plain = [b"%s plain %d" % (name.encode(), number) for number in range(count // 2)]
    packed = [b"%s packed %d" % (name.encode(), number) for number in range(count - count // 2)]
    records = [{"Data": value, "PartitionKey": f"ü{number}"} for number, value in enumerate(plain)]
    for first in range(0, len(packed), 10):
        # One key an aggregate: all of it belongs to the shard that it goes to.
        users = [(f"key-{first}", value) for value in packed[first : first + 10]]
        records.append({"Data": encode_aggregate(users), "PartitionKey": f"key-{first}"})
    answer = await kinesis.put_records(StreamName="access", Records=records)
    assert answer["FailedRecordCount"] == 0
    return plain + packed


async def put_misplaced(kinesis: Any) -> None:
    """An aggregate with records of both shards: the KPL would send all of it again, so nobody wants it."""
    users = [(f"key-{number}", b"misplaced") for number in range(20)]
    await kinesis.put_record(StreamName="access", Data=encode_aggregate(users), PartitionKey="key-0")


async def read_natively(source: Source, places: Mapping[Split, Position]) -> dict[Split, list[Row]]:
    """The same ranges as whoever finishes a segment reads them."""
    rows: dict[Split, list[Row]] = {split: [] for split in places}
    for split, place in places.items():
        async for batch in source.read_range({split: (BEGINNING, place)}):
            rows[split] += rows_of(batch)
    return rows


def children_of(pid: int) -> list[int]:
    """The JVM starts children from any of its threads."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


async def test_a_stream_through_the_real_kcl(aws: Aws, kinesis: Any) -> None:
    landing = Landing(aws)
    wanted = await put(kinesis, "before", 200)
    await put_misplaced(kinesis)
    async with landing.source:
        following = asyncio.create_task(landing.follow())
        await landing.until(wanted)

        await kinesis.split_shard(
            StreamName="access", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**126)
        )
        wanted += await put(kinesis, "split", 200)
        await landing.until(wanted)

        daemon = landing.source.daemon_pid
        assert daemon is not None
        os.kill(children_of(daemon)[0], signal.SIGKILL)
        wanted += await put(kinesis, "child killed", 200)
        await landing.until(wanted)

        again = landing.source.daemon_pid
        assert again is not None
        assert again != daemon
        os.kill(again, signal.SIGKILL)
        wanted += await put(kinesis, "daemon killed", 200)
        await landing.until(wanted)
        following.cancel()
        assert await read_natively(landing.source, landing.places) == landing.rows
    assert sorted(landing.values) == sorted(wanted)
    shards = {parse_split(split).shard: position for split, position in landing.places.items()}
    assert len(shards) == 4
    assert [shard for shard, position in shards.items() if position == END] == ["shardId-000000000000"]
    async with client("dynamodb", str(aws.endpoints.dynamodb)) as dynamodb:
        rows = (await dynamodb.scan(TableName="app"))["Items"]
    checkpoints = {
        row["leaseKey"]["S"]: KclCheckpoint(row["checkpoint"]["S"], int(row["checkpointSubSequenceNumber"]["N"]))
        for row in rows
    }
    assert checkpoints == {shard: kcl_checkpoint(position) for shard, position in shards.items()}
