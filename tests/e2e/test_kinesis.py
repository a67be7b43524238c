"""Kinesis to Parquet with the commands as a person types them: the server is in this process, workers in their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow.dataset as dataset
import pytest

from streamsvc.core.kinesis_positions import END
from streamsvc.core.kpl import encode_aggregate, hash_key
from streamsvc.testing.kinesis_server import Limits
from tests.kinesis_emulators import DynamoDb
from tests.kinesis_sources import Scene, open_scene

CONFIGURATION = """\
service: e2e
state: file://{folder}/state
memory: 256MiB
http: null
aws:
  region: us-east-1
  access_key_id: test
  secret_access_key: test
  endpoints: {{kinesis: "{kinesis}", dynamodb: "{dynamodb}"}}
pipelines:
  events:
    source: {{kinesis: {{stream: {stream}, application: {application}, failover: 2s, {options}}}}}
    decode: {{json: {{schema: {{producer: string, number: int64}}}}}}
    include: [_key, _split, _position]
    sink: {{path: "file://{folder}/lake", buffer: {{interval: 300ms}}}}
"""


class Service:
    """A configuration, the commands over it, and who puts stamped records."""

    def __init__(self, scene: Scene, dynamodb: DynamoDb, folder: Path) -> None:
        self.scene = scene
        self.folder = folder
        self.file = folder / "pipeline.yaml"
        self.sent: Counter[str] = Counter()
        self._dynamodb = dynamodb
        self._application = f"app-{uuid.uuid4().hex[:8]}"
        self.configure()

    def configure(self, options: str = "retrieval: polling", stream: str = "access") -> None:
        text = CONFIGURATION.format(
            folder=self.folder,
            kinesis=self.scene.server.endpoint_url,
            dynamodb=self._dynamodb.endpoint_url,
            application=self._application,
            options=options,
            stream=stream,
        )
        self.file.write_text(text)

    def put(self, count: int, *, packed: bool = False) -> None:
        """For each of 16 keys so many records, numbered by key; in aggregates of one key if they are packed."""
        for key in (f"key-{number}" for number in range(16)):
            first = self.sent[key]
            values = [b'{"producer":"%s","number":%d}' % (key.encode(), first + n) for n in range(count)]
            self.sent[key] += count
            if packed:
                values = [encode_aggregate((key, value) for value in values)]
            self.scene.put(*values, key=key)

    async def command(self, *arguments: str, code: int = 0) -> str:
        process = await self._start(*arguments)
        out, error = await asyncio.wait_for(process.communicate(), 90)
        assert process.returncode == code, f"{arguments} ended with {process.returncode}:\n{out!r}\n{error.decode()}"
        return (out + error).decode()

    @asynccontextmanager
    async def running(self, name: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await self._start("run", str(self.file), instance=name)
        drained = asyncio.create_task(process.communicate())
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await drained

    async def _start(self, *arguments: str, instance: str = "one") -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "streamsvc",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"STREAMSVC_INSTANCE": instance},
        )

    def landed(self) -> list[dict[str, Any]]:
        files = sorted(str(path) for path in (self.folder / "lake").rglob("*.parquet"))
        return dataset.dataset(files).to_table().to_pylist() if files else []

    async def until_landed(self) -> None:
        end = time.monotonic() + 90
        while len(self.landed()) < self.sent.total():
            assert time.monotonic() < end, f"{len(self.landed())} of {self.sent.total()} rows landed"
            await asyncio.sleep(0.3)

    def check(self) -> None:
        """Every record once, and for each key in the order of its shards, and of the positions in each."""
        rows = self.landed()
        found = Counter((row["producer"], row["number"]) for row in rows)
        assert found == Counter((key, number) for key, count in self.sent.items() for number in range(count))
        for key in self.sent:
            ours = sorted((row["_split"], row["_position"], row["number"]) for row in rows if row["producer"] == key)
            assert [number for _, _, number in ours] == sorted(number for _, _, number in ours)

    async def splits(self) -> dict[str, Any]:
        answer = json.loads(await self.command("status", str(self.file), "--json"))
        return {row["split"]: row for row in answer["events"]["splits"]}


@pytest.fixture
async def service(dynamodb: DynamoDb, tmp_path: Path) -> AsyncIterator[Service]:
    async with open_scene(Limits(write_records_per_s=None, write_bytes_per_s=None), shards=4) as scene:
        yield Service(scene, dynamodb, tmp_path)


@pytest.mark.parametrize("options", ["leases: none", "retrieval: fanout"])
async def test_until_end_then_on_from_there(service: Service, options: str) -> None:
    service.configure(options)
    service.put(20)
    service.put(20, packed=True)
    await service.command("run", str(service.file), "--until-end")
    service.check()
    service.scene.stream.split("shardId-000000000001", _middle(service, 1), time.time())
    service.put(20)
    await service.command("run", str(service.file), "--until-end")
    service.check()
    splits = await service.splits()
    assert len(splits) == 6
    assert [row["committed"] == row["end"] for row in splits.values()] == [True] * 6
    parent = sorted(splits)[1]
    assert splits[parent]["end"] == END
    assert [row["parents"] for row in splits.values()].count([parent]) == 2
    assert sum(row["lag_milliseconds"] for row in splits.values()) == 0


async def test_latest_lands_what_comes_later_and_ends(service: Service) -> None:
    service.put(10)
    service.configure("start: latest")
    await service.command("run", str(service.file), "--until-end")
    assert service.landed() == []
    service.put(10)
    await service.command("run", str(service.file), "--until-end")
    assert sorted({row["number"] for row in service.landed()}) == list(range(10, 20))


async def test_a_killed_worker_is_replaced_while_shards_are_split_and_merged(service: Service) -> None:
    async with service.running("one") as one, service.running("two") as two:
        service.put(20)
        await service.until_landed()
        for round_ in range(3):
            service.put(20, packed=round_ % 2 == 0)
            await asyncio.sleep(0.3)
        service.scene.stream.split("shardId-000000000000", _middle(service, 0), time.time())
        service.put(20)
        one.send_signal(signal.SIGKILL)
        service.scene.stream.merge("shardId-000000000002", "shardId-000000000003", time.time())
        service.put(20)
        await service.until_landed()
        service.check()
        async with service.running("one"):
            service.put(20)
            await service.until_landed()
            owners = {row["owner"] for row in (await service.splits()).values() if row["end"] != END}
            assert owners <= {"one-0", "two-0"}
            two.send_signal(signal.SIGTERM)
            assert await two.wait() == 0
            service.put(20)
            await service.until_landed()
            service.check()


def _expire(service: Service, shard: int) -> str:
    """Split it, long ago: by the next request, retention has taken it. Answers its id."""
    parent = service.scene.stream.shards[f"shardId-{shard:012}"]
    service.scene.stream.split(parent.id, str((parent.first_hash_key + parent.last_hash_key) // 2), time.time())
    assert parent.closed is not None
    parent.closed -= 25 * 3600
    return parent.id


@pytest.mark.parametrize("options", ["leases: none", "retrieval: polling"])
async def test_a_shard_that_expires_unread_stops_the_pipeline_until_somebody_decides(
    service: Service, options: str
) -> None:
    file = str(service.file)
    service.configure(options)
    service.put(10)
    await service.command("run", file, "--until-end")
    (gone,) = [split for split in await service.splits() if "shardId-000000000001" in split]
    keys = [f"key-{number}" for number in range(16)]
    shard = service.scene.stream.shards["shardId-000000000001"]
    missed = {key for key in keys if shard.first_hash_key <= hash_key(key) <= shard.last_hash_key}
    assert missed
    service.put(5)
    _expire(service, 1)
    service.put(5)
    told = await service.command("run", file, "--until-end", code=1)
    assert "gone from the source" in told
    assert f"streamsvc seek --to end --split {gone}" in told
    move = ["seek", file, "-p", "events", "--split", gone]
    assert "write end" in await service.command(*move, "--to", "latest", code=2)
    unborn = gone.replace("shardId-000000000001", "shardId-000000000099")
    assert "no such split" in await service.command(
        "seek", file, "-p", "events", "--to", "end", "--split", unborn, code=2
    )
    moved = await service.command(*move, "--to", "end", "--reason", "retention was too short")
    assert f"{gone} goes on at END, epoch 1" in moved
    await service.command("run", file, "--until-end")
    found = Counter((row["producer"], row["number"]) for row in service.landed())
    lost = {(key, number) for key in missed for number in range(10, 15)}
    assert found == Counter({(key, number) for key in keys for number in range(20)} - lost)
    async with service.running("one"):
        sent = service.sent.total() - len(lost)
        service.put(5)
        while len(service.landed()) < sent + 80:
            await asyncio.sleep(0.2)


async def test_a_shard_that_came_and_went_while_no_worker_ran_is_missed(service: Service) -> None:
    file = str(service.file)
    service.put(10)
    await service.command("run", file, "--until-end")
    parent = min(await service.splits())
    service.scene.stream.split("shardId-000000000000", _middle(service, 0), time.time())
    await service.command("seek", file, "-p", "events", "--to", "end", "--split", parent)
    child = parent.replace("shardId-000000000000", _expire(service, 4))
    told = await service.command("run", file, "--until-end", code=1)
    assert f"--split {child}" in told
    await service.command("seek", file, "-p", "events", "--to", "END", "--split", child)
    service.put(5)
    await service.command("run", file, "--until-end")
    service.check()


async def test_looks_and_moves(service: Service) -> None:
    service.put(10)
    assert "4 splits" in await service.command("validate", "--online", str(service.file))
    shown = await service.command("preview", str(service.file), "--rows", "400")
    assert "160 records: 160 rows; rejected: none" in shown
    await service.command("run", str(service.file), "--until-end")
    split = min(await service.splits())
    first = min(row["_position"] for row in service.landed() if row["_split"] == split)
    refused = await service.command("seek", str(service.file), "-p", "events", "--to", first, code=2)
    assert "name it with --split" in refused
    refused = await service.command("seek", str(service.file), "-p", "events", "--to", "oldest", code=2)
    assert "trim_horizon" in refused
    moved = await service.command("seek", str(service.file), "-p", "events", "--to", first, "--split", split)
    assert f"{split} goes on at {first}, epoch 1" in moved
    await service.command("run", str(service.file), "--until-end")
    twice = sum(row["_split"] == split for row in service.landed())
    assert len(service.landed()) == 160 + twice / 2
    service.configure(stream="acess")
    told = await service.command("validate", "--online", str(service.file), code=1)
    assert "there is no such resource: Stream acess under account" in told
    assert "aws.region" in told


def _middle(service: Service, shard: int) -> str:
    """Between two of the keys, so that both halves get records."""
    taker = service.scene.shards[shard]
    keys = sorted(hash_key(f"key-{number}") for number in range(16))
    inside = [key for key in keys if taker.first_hash_key <= key <= taker.last_hash_key]
    return str(inside[len(inside) // 2])
