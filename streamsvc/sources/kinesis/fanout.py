"""Reading by SubscribeToShard: records are pushed, with a throughput of our own.

A subscription ends by itself after five minutes; the next one goes on behind the continuation sequence number of the
last event, so nothing is read twice and nothing is left out (AWS API reference, SubscribeToShard).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from botocore.eventstream import ParserError

from streamsvc.core.shards import ShardId
from streamsvc.errors import SourceRefused, SourceUnavailable
from streamsvc.sources.kinesis import failures
from streamsvc.sources.kinesis.answers import PRELUDE_BYTES, Answer, message_bytes, parse, raw, read_message
from streamsvc.sources.kinesis.consumer import Consumer
from streamsvc.sources.kinesis.counts import Counts
from streamsvc.sources.kinesis.health import Health
from streamsvc.sources.kinesis.pacing import Backoff
from streamsvc.sources.kinesis.polling import TEXT_AND_RECORDS, Polling
from streamsvc.sources.kinesis.retrieval import Answered, Reading
from streamsvc.sources.kinesis.splits import parse_split
from streamsvc.sources.kinesis.stream import Stream, start_of

RESUBSCRIBE_S = 5.0
"""A second subscription to a shard within this time is refused, whatever has become of the first."""

_LOG = logging.getLogger("streamsvc.kinesis")


class FanOut:
    """Implements ``Retrieval``. Where it may not, it polls, and says so."""

    def __init__(self, stream: Stream, consumer: Consumer, polling: Polling, health: Health, counts: Counts) -> None:
        self._stream = stream
        self._consumer = consumer
        self._polling = polling
        self._health = health
        self._counts = counts
        self.refused: SourceRefused | None = None

    async def answers(self, reading: Reading) -> AsyncGenerator[Answered, None]:
        shard, backoff, subscribed = parse_split(reading.split).shard, Backoff(reading.split), _Subscribed()
        while self.refused is None:
            try:
                async with aclosing(self._subscription(reading, subscribed)) as events:
                    async for answer in events:
                        backoff.reset()
                        self._health.well(shard)
                        yield Answered(answer, subscribed.fresh)
                        if answer.ended:
                            return
                        subscribed.behind(answer)
            except SourceUnavailable as error:
                await self._wait_out(shard, error, subscribed, backoff)
            except SourceRefused as error:
                try:
                    await self._judge(error, reading)
                except SourceUnavailable as unavailable:
                    await self._wait_out(shard, unavailable, subscribed, backoff)
            finally:
                reading.reservation.give_back()
        async with aclosing(self._polling.answers(reading)) as polled:
            async for answered in polled:
                yield answered

    async def _wait_out(
        self, shard: ShardId, error: SourceUnavailable, subscribed: _Subscribed, backoff: Backoff
    ) -> None:
        """That the last subscription still stands is as good as a throttle."""
        throttled = failures.is_throttle(error) or error.where.get("cause") == failures.IN_USE
        wait_s = backoff.failed(throttled=throttled)
        if not throttled or backoff.is_long:
            self._health.failed(shard, error)
        await asyncio.sleep(max(wait_s, subscribed.at + RESUBSCRIBE_S - time.monotonic()))

    async def _subscription(self, reading: Reading, subscribed: _Subscribed) -> AsyncGenerator[Answer, None]:
        """The events of one subscription, until it ends. A cut is ``SourceUnavailable``, and so is an end before the
        first event: waited out, and told."""
        where = {"stream": self._stream.name, "shard": parse_split(reading.split).shard}
        start = subscribed.start(reading)
        response = await self._subscribe(where["shard"], start)
        subscribed.at = time.monotonic()
        is_empty = True
        try:
            if "SequenceNumber" not in start:
                await self._stream.check_same(reading.split, reading.place())
            while (message := await _next_message(response.content, reading)) is not None:
                headers, payload = read_message(message)
                kind = headers.get(":message-type")
                if kind == "event" and headers.get(":event-type") == "SubscribeToShardEvent":
                    answer, is_empty = await parse(payload), False
                    self._counts.pushed(len(answer.records), answer.record_bytes())
                    yield answer
                elif kind != "event":
                    code = headers.get(":exception-type") or headers.get(":error-code") or "Unknown"
                    raise failures.of_event(code, payload.decode(errors="replace")[:500], **where)
            if is_empty:
                raise SourceUnavailable("the subscription ended before its first event", **where)
        except (*failures.FOREIGN, asyncio.IncompleteReadError, ParserError) as error:
            raise SourceUnavailable(
                "the subscription was cut", cause=failures.code_of(error), action="kinesis:SubscribeToShard", **where
            ) from None
        finally:
            response.close()

    async def _subscribe(self, shard: ShardId, start: dict[str, Any]) -> Any:
        consumer = await self._consumer.arn()
        try:
            answer = await self._stream.call(
                "SubscribeToShard", ConsumerARN=consumer, ShardId=shard, StartingPosition=start
            )
        except (SourceUnavailable, SourceRefused):
            self._counts.subscribed(succeeds=False)
            raise
        self._counts.subscribed(succeeds=True)
        return raw(answer)

    async def _judge(self, error: SourceRefused, reading: Reading) -> None:
        """Poll from now on where fan-out is not allowed; what else is refused is raised."""
        cause = error.where.get("cause")
        if failures.is_denial(error) or cause == failures.LIMIT:
            if self.refused is None:
                _LOG.warning("fan-out is not allowed: the stream is polled, and shares its throughput: %s", error)
            self.refused = error
            return
        if cause == failures.NOT_FOUND and await self._consumer_is_gone():
            return
        await self._stream.raise_lost(error, reading.split, reading.place())
        raise error

    async def _consumer_is_gone(self) -> bool:
        """Whether it was deregistered; then it is registered again."""
        before = await self._consumer.arn()
        self._consumer.forget()
        return await self._consumer.arn() != before


class _Subscribed:
    """Where the next subscription begins.

    at:    when the last one was accepted, by the monotonic clock
    fresh: the next answer is the first with records since the place was asked for
    """

    def __init__(self) -> None:
        self.at = float("-inf")
        self.fresh = True
        self._continuation: str | None = None

    def behind(self, answer: Answer) -> None:
        self.fresh = self.fresh and not answer.records
        if not self.fresh:
            self._continuation = answer.continuation_sequence_number

    def start(self, reading: Reading) -> dict[str, Any]:
        if self._continuation is not None:
            return {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": self._continuation}
        self.fresh = True
        kind, sequence, moment = start_of(reading.place())
        more = {"SequenceNumber": sequence} if sequence else {"Timestamp": moment} if moment else {}
        return {"Type": kind, **more}


async def _next_message(content: Any, reading: Reading) -> bytes | None:
    """A whole message of the event stream; ``None`` at its end. Room is taken when its length is known."""
    try:
        prelude: bytes = await content.readexactly(PRELUDE_BYTES)
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise
        return None
    nbytes = message_bytes(prelude)
    await reading.reservation.take(TEXT_AND_RECORDS * nbytes)
    rest: bytes = await content.readexactly(nbytes - PRELUDE_BYTES)
    return prelude + rest
