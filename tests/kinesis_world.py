"""A Kinesis server whose clock stands still, a client of it, and one stream in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from streamsvc.testing.kinesis_server import Fault, KinesisServer, Limits
from streamsvc.testing.kinesis_server.shards import Shard
from streamsvc.testing.kinesis_server.streams import Options, Stream
from tests.kinesis_emulators import client

FIRST = "shardId-000000000000"
START = 1_760_000_000.25
UNTHROTTLED = Limits().unthrottled()


@dataclass
class Clock:
    """Seconds since the epoch; they pass when a test says so."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """``stream`` is called ``s``."""

    server: KinesisServer
    kinesis: Any
    stream: Stream
    clock: Clock

    def put(self, *records: bytes, shard: str = FIRST) -> list[int]:
        """Without a request; the sequence numbers."""
        return [self.shard(shard).put(record, "k", self.clock.now) for record in records]

    def shard(self, shard_id: str = FIRST) -> Shard:
        return self.stream.shards[shard_id]

    async def iterator(self, kind: str = "TRIM_HORIZON", shard: str = FIRST, **place: Any) -> str:
        asked = {"StreamName": "s", "ShardId": shard, "ShardIteratorType": kind, **place}
        return str((await self.kinesis.get_shard_iterator(**asked))["ShardIterator"])

    async def read(self, kind: str = "TRIM_HORIZON", shard: str = FIRST, **place: Any) -> list[bytes]:
        """What one call from this place answers."""
        return values(await self.records(await self.iterator(kind, shard, **place)))

    async def records(self, iterator: str, **options: Any) -> Any:
        return await self.kinesis.get_records(ShardIterator=iterator, **options)

    async def listed(self, kind: str, **place: Any) -> list[int]:
        """The indices of the shards that a filter lets through."""
        answer = await self.kinesis.list_shards(StreamName="s", ShardFilter={"Type": kind, **place})
        return [int(shard["ShardId"][-12:]) for shard in answer["Shards"]]


@asynccontextmanager
async def open_world(
    limits: Limits = UNTHROTTLED,
    *,
    shards: int = 1,
    options: Options | None = None,
    faults: Mapping[str, Iterable[Fault | None]] | None = None,
) -> AsyncIterator[World]:
    clock = Clock()
    async with KinesisServer(limits=limits, faults=faults, clock=clock, slow_s=0.0) as server:
        stream = server.account.create_stream("s", shards, options)
        async with client("kinesis", server.endpoint_url) as kinesis:
            yield World(server, kinesis, stream, clock)


def values(answer: Any) -> list[bytes]:
    return [record["Data"] for record in answer["Records"]]


class refused:  # noqa: N801 - reads as pytest.raises does
    """``with refused("ResourceInUseException"):`` the client is told so."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._raises = pytest.raises(ClientError)

    def __enter__(self) -> None:
        self._caught = self._raises.__enter__()

    def __exit__(self, *error: Any) -> bool:
        swallowed = bool(self._raises.__exit__(*error))
        if swallowed:
            assert self._caught.value.response["Error"]["Code"] == self._kind
        return swallowed
