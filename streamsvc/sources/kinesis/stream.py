"""One Kinesis stream: its operations, with its name filled in and their failures as ours."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from streamsvc.config_sources import KinesisSource as Options
from streamsvc.core.kinesis_positions import AtEnd, FromBeginning, FromRecord, FromTime, parse_position
from streamsvc.core.shards import ShardId, ShardInfo, shard_from_listing
from streamsvc.errors import PositionLost, SourceRefused
from streamsvc.records import Position, Split
from streamsvc.sources.kinesis import failures
from streamsvc.sources.kinesis.answers import Answer, parse, raw, take_bodies
from streamsvc.sources.kinesis.splits import SplitName, parse_split

LOOK_AGAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What tells a stream from another one of the same name."""

    arn: str
    created_s: int


class Stream:
    """Raises ``SourceUnavailable`` and ``SourceRefused``; their ``where`` has AWS's code as ``cause``.

    client: aiobotocore's, for Kinesis; it is told here to leave records to us
    """

    def __init__(self, options: Options, client: Any) -> None:
        self.name = options.name
        self._client = client
        self._by_arn = {} if options.stream_arn is None else {"StreamARN": options.stream_arn}
        self._named = self._by_arn or {"StreamName": options.name}
        self._summary: Summary | None = None
        self._looked_at = 0.0
        self._looking = asyncio.Lock()
        take_bodies(client)

    @property
    def region(self) -> str:
        return str(self._client.meta.region_name)

    async def call(self, operation: str, **parameters: Any) -> Any:
        """operation: as AWS spells it. ``botocore`` knows its parameters."""
        method: Callable[..., Any] = getattr(self._client, re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower())
        try:
            return await method(**parameters)
        except failures.FOREIGN as error:
            raise failures.mapped(
                error, f"kinesis:{operation}", stream=self.name, region=self.region, shard=parameters.get("ShardId")
            ) from None

    async def summary(self, since: float | None = None) -> Summary:
        """As it was a moment ago; since: or not before this, by the monotonic clock."""
        async with self._looking:
            now = time.monotonic()
            if self._summary is None or self._looked_at < (now - LOOK_AGAIN_S if since is None else since):
                answer = (await self.call("DescribeStreamSummary", **self._named))["StreamDescriptionSummary"]
                self._summary = Summary(answer["StreamARN"], int(answer["StreamCreationTimestamp"].timestamp()))
                self._looked_at = now
            return self._summary

    def name_of(self, shard: ShardId, created_s: int) -> Split:
        return SplitName(self.name, shard, created_s).text

    async def check_same(self, split: Split, position: Position) -> None:
        """Raises ``PositionLost`` if the split is of an older stream of this name. A record is of one stream, and any
        other place is in all of that name: so this is asked once one was asked for that is no record's."""
        if (await self.summary(time.monotonic())).created_s != parse_split(split).created_s:
            raise PositionLost(
                "the stream of this split was deleted and created anew",
                hint=failures.SEEK_HINT,
                split=split,
                position=position,
            )

    async def shards(self) -> list[ShardInfo]:
        """All that the stream has, closed ones within retention too (AWS API reference, ListShards)."""
        rows: list[Any] = []
        answer = await self.call("ListShards", **self._named)
        rows += answer["Shards"]
        while answer.get("NextToken"):
            answer = await self.call("ListShards", NextToken=answer["NextToken"])
            rows += answer["Shards"]
        return [shard_from_listing(row) for row in rows]

    async def iterator(self, split: Split, position: Position) -> str:
        """Raises ``PositionLost``: the shard is gone, or is none of this stream, or never had this record."""
        kind, sequence, moment = start_of(position)
        more = {"StartingSequenceNumber": sequence} if sequence else {"Timestamp": moment} if moment else {}
        shard = parse_split(split).shard
        try:
            answer = await self.call("GetShardIterator", **self._named, ShardId=shard, ShardIteratorType=kind, **more)
        except SourceRefused as error:
            await self.raise_lost(error, split, position)
            raise
        if sequence is None:
            await self.check_same(split, position)
        return str(answer["ShardIterator"])

    async def raise_lost(self, error: SourceRefused, split: Split, position: Position) -> None:
        """A refusal because the shard, or its record, is not there: raises ``PositionLost``."""
        if error.where.get("cause") not in {failures.NOT_FOUND, failures.INVALID}:
            return
        await self.check_same(split, position)
        if error.where["cause"] == failures.NOT_FOUND:
            what = "the shard is gone from the stream: retention has passed before it was wholly read"
        else:
            what = "the shard does not know the record to read next"
        raise PositionLost(what, hint=failures.SEEK_HINT, split=split, position=position, told=error.what)

    async def records(self, iterator: str, limit: int | None = None) -> tuple[Answer, int]:
        """The answer, and how many bytes it was on its way."""
        more = {"Limit": limit} if limit else {}
        body: bytes = raw(await self.call("GetRecords", **self._by_arn, ShardIterator=iterator, **more))
        return await parse(body), len(body)


def start_of(position: Position) -> tuple[str, str | None, datetime | None]:
    """Type, sequence number and time of a shard iterator.

    Whole seconds are asked for, and what came earlier in the second is left out by who reads: how botocore sends
    fractions has changed with its versions (``serialize.py``: the precisions "default" and "legacy")."""
    match parse_position(position):
        case FromBeginning():
            return "TRIM_HORIZON", None, None
        case FromTime(ms):
            return "AT_TIMESTAMP", None, datetime.fromtimestamp(ms // 1000, UTC)
        case FromRecord(sequence, _):
            return "AT_SEQUENCE_NUMBER", sequence, None
        case AtEnd():
            raise ValueError("there is nothing to read behind the end of a shard")
