"""Windowed pipelines as people run them, killed in the middle of writing: each window and group has one value."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow.dataset as dataset
import pytest
from confluent_kafka import Producer

from loadtest.kafka_broker import KafkaBroker
from streamsvc.testing.kinesis_server import Fault, KinesisServer, Limits
from streamsvc.testing.kinesis_server.shards import Shard
from tests.windows_results import read_topic

WINDOWS, GROUPS, ROWS = 16, 25, 4_000
FIRST_S = 1_790_000_000
KILLS = 2

CONFIGURATION = """\
service: e2e
state: file://{folder}/state
memory: 256MiB
http: null
aws: {{region: us-east-1, access_key_id: test, secret_access_key: test, endpoints: {{kinesis: "{kinesis}"}}}}
pipelines:
  per_second:
    source: {source}
    decode: {{json: {{schema: {{at: int64, page: string, bytes: int64}}}}}}
    window:
      tumble: 1s
      time: {{column: at, unit: ms}}
      disorder: 0s
      lateness: 0s
      interval: 500ms
      group_by: [page]
      aggregate: {{requests: count(*), bytes: sum(bytes)}}
    sink: {sink}
"""

Results: TypeAlias = dict[tuple[str, str], tuple[int, int]]
"""Requests and bytes, by start of the window and page."""
Records: TypeAlias = list[tuple[str, str]]
"""Keys and values."""


def rows() -> list[dict[str, Any]]:
    """In the order of their times."""
    return [
        {
            "at": FIRST_S * 1_000 + number * WINDOWS * 1_000 // ROWS,
            "page": f"/{number * 7 % GROUPS}",
            "bytes": number % 1_000,
        }
        for number in range(ROWS)
    ]


def reference() -> Results:
    requests: Counter[tuple[str, str]] = Counter()
    nbytes: Counter[tuple[str, str]] = Counter()
    for row in rows():
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row["at"] // 1_000))
        requests[moment, row["page"]] += 1
        nbytes[moment, row["page"]] += row["bytes"]
    return {key: (count, nbytes[key]) for key, count in requests.items()}


def one_value_each(records: Iterable[tuple[str, str]]) -> Results:
    """What a compacted topic, or a table by key, would hold. Whatever was written again must be the same."""
    values: dict[str, set[str]] = defaultdict(set)
    for key, value in records:
        values[key].add(value)
    assert [len(found) for found in values.values()] == [1] * len(values)
    results: Results = {}
    for key, [value] in values.items():
        row, names = json.loads(value), json.loads(key)
        assert names == {name: row[name] for name in ("window_start", "window_end", "page")}
        results[row["window_start"], row["page"]] = (row["requests"], row["bytes"])
    return results


class Service:
    """A configuration and the command over it."""

    def __init__(self, folder: Path, source: str, sink: str, kinesis: str = "http://127.0.0.1:1") -> None:
        self._file = folder / "pipeline.yaml"
        self._file.write_text(CONFIGURATION.format(folder=folder, source=source, sink=sink, kinesis=kinesis))

    async def finish(self, *flags: str) -> None:
        process = await self._start("--until-end", "--close-windows", *flags)
        said, _ = await asyncio.wait_for(process.communicate(), 90)
        assert process.returncode == 0, said.decode()

    async def kill_once(self, reached: Callable[[], bool]) -> None:
        async with self._running() as process:
            end = time.monotonic() + 60
            while not reached():
                assert process.returncode is None
                assert time.monotonic() < end, "no results came"
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await self._start()
        drained = asyncio.create_task(process.communicate())
        try:
            yield process
        finally:
            process.kill()
            await drained

    async def _start(self, *flags: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "streamsvc",
            "run",
            str(self._file),
            *flags,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ | {"STREAMSVC_INSTANCE": "one"},
        )


async def write_under_kills(service: Service, read: Callable[[], Collection[object]]) -> None:
    """Each life of the worker ends when it has written some windows more."""
    for _ in range(KILLS):
        enough = len(read()) + 3 * GROUPS
        await service.kill_once(lambda enough=enough: len(read()) >= enough)  # type: ignore[misc]
    await service.finish()


def fill(brokers: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": brokers, "log_level": 0})
    for number, row in enumerate(rows()):
        producer.produce(topic, json.dumps(row).encode(), partition=number % 2)
    assert producer.flush(30) == 0


def kafka(brokers: str, topic: str) -> str:
    client = "{session.timeout.ms: 6000, fetch.queue.backoff.ms: 1}"
    return f'{{kafka: {{brokers: "{brokers}", topics: [{topic}], client: {client}}}}}'


def stored(shard: Shard) -> Records:
    records = [json.loads(piece) for piece in shard.read(0, 1_000_000, 1 << 30).pieces]
    return [(record["PartitionKey"], b64decode(record["Data"]).decode()) for record in records]


@pytest.mark.broker
async def test_a_topic_has_one_value_for_each_window_and_group(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic, results = new_topic(partitions=2), new_topic(partitions=2, cleanup_policy="compact")
    fill(broker.bootstrap, topic)
    # Slow enough to be killed between a window and the next, or in one.
    sink = f'{{kafka: {{brokers: "{broker.bootstrap}", topic: {results}, client: {{linger.ms: 200}}}}}}'
    service = Service(tmp_path, kafka(broker.bootstrap, topic), sink)

    def read() -> Records:
        return read_topic(broker.bootstrap, results, 2)

    await write_under_kills(service, read)
    assert one_value_each(read()) == reference()


async def test_a_stream_has_one_value_for_each_window_and_group(tmp_path: Path) -> None:
    slow = [Fault.SLOW, Fault.PARTIAL, Fault.SLOW, Fault.ERROR_AFTER] * 100
    limits = Limits().unthrottled()
    async with KinesisServer(limits=limits, faults={"PutRecords": slow}, slow_s=0.15) as server:
        shards = list(server.account.create_stream("access", 2).shards.values())
        for number, row in enumerate(rows()):
            shards[number % 2].put(json.dumps(row).encode(), "k", time.time())
        stream = server.account.create_stream("results", 2)
        service = Service(
            tmp_path, "{kinesis: {stream: access, leases: none}}", "{kinesis: {stream: results}}", server.endpoint_url
        )

        def read() -> Records:
            return [record for shard in stream.shards.values() for record in stored(shard)]

        await write_under_kills(service, read)
        assert one_value_each(read()) == reference()


@pytest.mark.broker
async def test_objects_have_each_result_once(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic(partitions=2)
    fill(broker.bootstrap, topic)
    lake = tmp_path / "lake"
    service = Service(tmp_path, kafka(broker.bootstrap, topic), f"{{path: 'file://{lake}'}}")
    for windows in (1, 6):
        await service.kill_once(lambda windows=windows: len(list(lake.rglob("*.parquet"))) >= windows)  # type: ignore[misc]
    await service.finish()
    files = [str(path) for path in lake.rglob("*.parquet")]
    found = dataset.dataset(files).to_table().to_pylist()
    assert len(files) == WINDOWS
    assert len(found) == len(reference())
    assert {
        (f"{row['window_start']:%Y-%m-%dT%H:%M:%SZ}", row["page"]): (row["requests"], row["bytes"]) for row in found
    } == reference()
