"""A stream on the server of this process, sources that read it, and who checks what they hand out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from streamsvc.config import Aws
from streamsvc.config_sources import KinesisSource as KinesisOptions
from streamsvc.contracts import Assigned, Revoked, SplitEvent
from streamsvc.core.kinesis_positions import BEGINNING, END
from streamsvc.core.kpl import hash_key
from streamsvc.ops.metrics import Metrics
from streamsvc.records import Batch, Position, Split, row_bounds
from streamsvc.sources.kinesis.counts import Counts
from streamsvc.sources.kinesis.source import KinesisSource
from streamsvc.testing.kinesis_server import Fault, KinesisServer, Limits
from streamsvc.testing.kinesis_server.shards import Shard
from streamsvc.testing.kinesis_server.streams import Options, Stream

UNTHROTTLED = Limits().unthrottled()
MIB = 1024 * 1024


def aws(kinesis: str | None = None, dynamodb: str | None = None) -> Aws:
    secret = SecretStr("test")
    return Aws.model_validate(
        {
            "region": "us-east-1",
            "endpoints": {"kinesis": kinesis, "dynamodb": dynamodb},
            "access_key_id": secret,
            "secret_access_key": secret,
        }
    )


@dataclass
class Scene:
    """``stream`` is called ``access``; ``metrics`` are of all its sources."""

    server: KinesisServer
    stream: Stream
    dynamodb: str | None = None
    metrics: Metrics = field(default_factory=lambda: Metrics("test"))

    def source(
        self,
        *,
        worker: str = "w",
        queue_bytes: int = 32 * MIB,
        joins: bool = True,
        **options: Any,
    ) -> KinesisSource:
        options = {"stream": "access", "leases": "none"} | options
        return KinesisSource(
            KinesisOptions(**options),
            application="test.p",
            worker=worker,
            queue_bytes=queue_bytes,
            aws=aws(self.server.endpoint_url, self.dynamodb),
            counts=Counts(self.metrics, "p"),
            joins=joins,
        )

    def trim(self, shard: int, before: int) -> None:
        """Retention takes the records before this one, counted from 0."""
        taker = self.shards[shard]
        taker.trim(taker._arrivals[before])

    @property
    def shards(self) -> list[Shard]:
        return list(self.stream.shards.values())

    def put(self, *values: bytes, key: str = "k", shard: int | None = None, at: float | None = None) -> list[str]:
        """Without a request; to the key's shard, or to this one. Answers sequence numbers."""
        now = time.time() if at is None else at
        taker = self._taker(key) if shard is None else self.shards[shard]
        return [str(taker.put(value, key, now)) for value in values]

    def _taker(self, key: str) -> Shard:
        return next(shard for shard in self.stream.open_shards() if hash_key(key) <= shard.last_hash_key)

    def counted(self, name: str, *labels: str) -> float:
        counter = getattr(self.metrics, name)
        return float(counter.labels("p", *labels)._value.get())


@asynccontextmanager
async def open_scene(
    limits: Limits = UNTHROTTLED,
    *,
    shards: int = 1,
    options: Options | None = None,
    faults: Mapping[str, Iterable[Fault | None]] | None = None,
    dynamodb: str | None = None,
) -> AsyncIterator[Scene]:
    async with KinesisServer(limits=limits, faults=faults, slow_s=0.2) as server:
        yield Scene(server, server.account.create_stream("access", shards, options), dynamodb)


class Follower:
    """Reads as the runtime does: starts what is assigned, and checks that every span goes on where the last one ended.

    ``at`` says where each split has got to, ``values`` what came of it, ``order`` which splits ended, in order."""

    def __init__(self, source: KinesisSource, starts: Mapping[Split, Position] | None = None) -> None:
        self.source = source
        self.events = source.assignments()
        self.starts = dict(starts or {})
        self.at: dict[Split, Position] = {}
        self.values: dict[Split, list[bytes]] = {}
        self.keys: list[tuple[bytes | None, bytes]] = []
        self.ended: list[Split] = []

    async def next_event(self) -> SplitEvent:
        return await anext(self.events)

    async def assigned(self, count: int = 1) -> set[Split]:
        """Wait for so many, and start them."""
        found: set[Split] = set()
        while len(found) < count:
            event = await self.next_event()
            if isinstance(event, Assigned):
                found.update(event.splits)
                self.begin(event.splits)
        return found

    def begin(self, splits: Iterable[Split]) -> None:
        places = {split: self.starts.get(split, BEGINNING) for split in splits}
        self.at.update(places)
        for split in places:
            self.values.setdefault(split, [])
        self.source.start_at(places)

    def take(self, batch: Batch) -> None:
        values, keys = batch.values.to_pylist(), batch.keys().to_pylist()
        places = batch.position_text(batch.offsets).to_pylist()
        for span, start, end in row_bounds(batch.spans):
            assert span.first == self.at[span.split]
            assert span.to > span.first
            assert all(span.first <= str(place) < span.to for place in places[start:end])
            self.at[span.split] = span.to
            self.values[span.split] += [bytes(value or b"") for value in values[start:end]]
            if span.to == END:
                self.ended.append(span.split)
        self.keys += zip(keys, (bytes(value or b"") for value in values), strict=True)

    async def read(self) -> None:
        self.take(await self.source.read())

    async def read_until(self, count: int) -> None:
        """So many records in all."""
        while self.count < count:
            await self.read()

    async def to_end(self, *splits: Split) -> None:
        while any(self.at[split] != END for split in splits):
            await self.read()

    @property
    def count(self) -> int:
        return sum(map(len, self.values.values()))

    def everything(self) -> list[bytes]:
        return [value for values in self.values.values() for value in values]


async def revoked(follower: Follower) -> Revoked:
    while True:
        event = await follower.next_event()
        if isinstance(event, Revoked):
            return event
