"""Records into a stream, in as few requests as AWS allows, until every one of them is stored."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from types import TracebackType
from typing import Any, Self, TypeAlias

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError

from streamsvc.core.backoff import Backoff
from streamsvc.core.kpl import Put
from streamsvc.errors import Retryable, SourceUnavailable, StreamsvcError

MAX_RECORDS = 500
MAX_REQUEST_BYTES = 10 * 1024 * 1024
"""Of one request, partition keys included (API Reference, PutRecords)."""

DEFAULT_MAX_RECORD_KIB = 1024
BACKOFF = Backoff(longest_s=5.0)

_FOREIGN = (ClientError, BotoCoreError, aiohttp.ClientError, OSError, TimeoutError)

Explain: TypeAlias = Callable[[BaseException, str], StreamsvcError]
"""What a foreign exception means for us, and the action (``kinesis:PutRecords``) in which it came."""


@dataclass(slots=True)
class Counts:
    """Since the writer was opened. ``records`` are those given that are stored, ``puts`` the records of the stream
    that hold them, ``nbytes`` what these count for. ``retries`` were sent again."""

    records: int = 0
    puts: int = 0
    nbytes: int = 0
    requests: int = 0
    retries: int = 0


def nbytes_of(record: Put) -> int:
    """What a record counts for: its data and its partition key (API Reference, PutRecordsRequestEntry)."""
    return len(record.data) + len(record.partition_key.encode())


class KinesisWriter:
    """An async context manager over an open client. Entering looks at the stream.

    Every record is stored at least once: a request whose answer is lost is made again. Records of one request that fail
    are sent again after those that did not, so within it there is no order (API Reference, PutRecords); a request is
    made when all of the one before is stored.

    Raises what ``explain`` makes of foreign exceptions: whatever is ``Retryable`` only after ``give_up_after_s`` in
    which no record was stored. Cancelling leaves the effect of the last request unknown.
    """

    def __init__(
        self,
        client: Any,
        stream: str,
        explain: Explain,
        *,
        give_up_after_s: float = 60.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._stream = stream
        self._explain = explain
        self._new_patience: Callable[[], _Patience] = partial(_Patience, give_up_after_s, sleep, clock, jitter)
        self.counts = Counts()
        self.max_record_bytes = DEFAULT_MAX_RECORD_KIB * 1024
        """Of one record, partition key included; as the stream has it."""

    async def __aenter__(self) -> Self:
        self._client.meta.events.register("before-call.kinesis.PutRecords", _send_in_pieces)
        describe = self._client.describe_stream_summary
        answer = await self._answer("DescribeStreamSummary", describe, StreamName=self._stream)
        summary = answer["StreamDescriptionSummary"]
        self.max_record_bytes = summary.get("MaxRecordSizeInKiB", DEFAULT_MAX_RECORD_KIB) * 1024
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.meta.events.unregister("before-call.kinesis.PutRecords", _send_in_pieces)

    async def put(self, records: Sequence[Put]) -> list[str]:
        """Store all of them; the ids of the shards that took them, in the same order."""
        shards: list[str] = []
        for batch in batches(records):
            shards += await self._put_batch(batch)
            self.counts.records += len(batch)
            self.counts.puts += len(batch)
            self.counts.nbytes += sum(map(nbytes_of, batch))
        return shards

    async def flush(self) -> None:
        """Nothing is held back."""

    async def list_shards(self) -> list[dict[str, Any]]:
        """Every shard, as shape ``Shard`` of the service model; closed ones have an ``EndingSequenceNumber``."""
        page = await self._answer("ListShards", self._client.list_shards, StreamName=self._stream)
        shards = list(page["Shards"])
        while "NextToken" in page:
            page = await self._answer("ListShards", self._client.list_shards, NextToken=page["NextToken"])
            shards += page["Shards"]
        return shards

    async def _answer(self, operation: str, call: Callable[..., Awaitable[Any]], **asked: str) -> Any:
        patience = self._new_patience()
        while True:
            try:
                return await call(**asked)
            except _FOREIGN as error:
                await patience.wait(self._explain(error, f"kinesis:{operation}"))

    async def _put_batch(self, batch: Sequence[Put]) -> list[str]:
        shards = [""] * len(batch)
        waiting = list(range(len(batch)))
        patience = self._new_patience()
        while True:
            answers, error = await self._request([batch[number] for number in waiting])
            for number, shard in zip(waiting, answers, strict=True):
                shards[number] = shard
            left = [number for number in waiting if not shards[number]]
            if error is None:
                return shards
            if len(left) < len(waiting):
                patience = self._new_patience()
            self.counts.retries += len(left)
            waiting = left
            await patience.wait(error)

    async def _request(self, records: Sequence[Put]) -> tuple[list[str], StreamsvcError | None]:
        """The shard of each record, empty where it failed, and why."""
        self.counts.requests += 1
        try:
            answer = await self._client.put_records(StreamName=self._stream, Records=[_entry(r) for r in records])
        except _FOREIGN as error:
            return [""] * len(records), self._explain(error, "kinesis:PutRecords")
        shards = [str(record.get("ShardId") or "") for record in answer["Records"]]
        failed = next((record for record in answer["Records"] if not record.get("ShardId")), None)
        return shards, failed and self._partial_failure(failed, shards.count(""))

    def _partial_failure(self, failed: dict[str, Any], count: int) -> SourceUnavailable:
        code, message = failed.get("ErrorCode", "unknown"), failed.get("ErrorMessage", "")
        return SourceUnavailable(f"{count} records were not taken: {message or code}", stream=self._stream, cause=code)


class _Patience:
    """Waits ever longer between tries, with jitter; gives up some time after it was made."""

    def __init__(
        self,
        give_up_after_s: float,
        sleep: Callable[[float], Awaitable[None]],
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._give_up_after_s = give_up_after_s
        self._give_up_at = clock() + give_up_after_s
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter
        self._tries = 0

    async def wait(self, error: StreamsvcError) -> None:
        """Raises ``error`` if waiting does not mend it, or has not for long."""
        if not isinstance(error, Retryable):
            raise error
        if self._clock() >= self._give_up_at:
            hint = f"Given up after {self._give_up_after_s:.0f} seconds in which nothing was stored."
            raise SourceUnavailable(error.what, hint=hint, **error.where)
        await self._sleep(BACKOFF.wait_s(self._tries, self._jitter()))
        self._tries += 1


def batches(records: Sequence[Put]) -> Iterator[Sequence[Put]]:
    """Runs of records that fit into one request."""
    start, size = 0, 0
    for number, record in enumerate(records):
        nbytes = nbytes_of(record)
        if number - start == MAX_RECORDS or (number > start and size + nbytes > MAX_REQUEST_BYTES):
            yield records[start:number]
            start, size = number, 0
        size += nbytes
    if start < len(records):
        yield records[start:]


def _entry(record: Put) -> dict[str, Any]:
    """Shape ``PutRecordsRequestEntry``."""
    entry: dict[str, Any] = {"Data": record.data, "PartitionKey": record.partition_key}
    if record.explicit_hash_key is not None:
        entry["ExplicitHashKey"] = record.explicit_hash_key
    return entry


def _send_in_pieces(params: dict[str, Any], **_: Any) -> None:
    """A body of some MiB given as bytes is written in one piece, which holds up the event loop (aiohttp warns)."""
    if isinstance(params["body"], bytes):
        params["body"] = BytesIO(params["body"])
