"""SubscribeToShard: one consumer's stream of events from one shard (API Reference, SubscribeToShard)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import orjson

from streamsvc.testing.kinesis_server import event_stream, requests
from streamsvc.testing.kinesis_server.account import Account, Subscription
from streamsvc.testing.kinesis_server.errors import in_use
from streamsvc.testing.kinesis_server.places import place_of
from streamsvc.testing.kinesis_server.shards import Answer

EVENT_BYTES = 1024 * 1024
"""Of one event; a single larger record makes a larger event."""


class OpenSubscription:
    """Accepted; ``events`` has not been asked for yet. Raises ``KinesisError`` when it is not accepted.

    Within ``resubscribe_s`` of a successful call a second one is refused, whether or not the first is still
    connected; after that the second takes over, and the first ends with ResourceInUseException.
    """

    def __init__(self, account: Account, request: requests.SubscribeToShard) -> None:
        now = account.clock()
        consumer = account.consumer(request.consumer_arn)
        if consumer.status(now) != "ACTIVE":
            raise in_use(f"Consumer {consumer.arn} is {consumer.status(now)}.")
        self._account = account
        self._stream = consumer.stream
        self._shard = consumer.stream.settled(now).shard(request.shard_id, now)
        start = request.starting_position
        self._place = place_of(self._shard, start.type, start.sequence_number, start.timestamp, now)
        key = (consumer.arn, request.shard_id)
        holder = account.subscriptions.get(key)
        if holder is not None:
            if now - holder.began < account.limits.resubscribe_s:
                raise in_use(f"Another active subscription exists for {consumer.arn} and {request.shard_id}.")
            holder.lose(in_use(f"Another subscription took over {request.shard_id}."))
        self._changed = asyncio.Event()
        self._subscription = Subscription(now, wake=self._changed.set)
        account.subscriptions[key] = self._subscription

    async def events(self) -> AsyncGenerator[bytes]:
        """Whole messages: the initial response, then events as records come and every ``idle_event_s``, until the
        shard's end, ``subscription_s``, or another takes over."""
        limits = self._account.limits
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.subscription_s
        quiet_until = loop.time()
        yield event_stream.initial_response()
        try:
            while loop.time() < deadline:
                self._listen()
                if self._subscription.lost is not None:
                    yield event_stream.exception(self._subscription.lost)
                    return
                answer, ended = self._next()
                if answer.pieces or ended or loop.time() >= quiet_until:
                    yield event_stream.event("SubscribeToShardEvent", self._payload(answer, ended=ended))
                    quiet_until = loop.time() + limits.idle_event_s
                if ended:
                    return
                if answer.pieces:
                    await asyncio.sleep(answer.nbytes / limits.fanout_bytes_per_s if limits.fanout_bytes_per_s else 0)
                else:
                    await self._wait(min(quiet_until, deadline) - loop.time())
        finally:
            self._shard.wake.discard(self._changed.set)

    def _listen(self) -> None:
        """From here on nothing is missed: what comes while an event is made or sent sets the flag."""
        self._changed.clear()
        self._shard.wake.add(self._changed.set)
        if self._subscription.lost is not None:
            self._changed.set()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), max(seconds, 0))

    def _next(self) -> tuple[Answer, bool]:
        shard, limits = self._shard, self._account.limits
        self._stream.trim(self._account.clock())
        answer = shard.read(self._place, limits.answer_records, EVENT_BYTES)
        self._place = answer.next
        ended = shard.closed is not None and answer.next >= shard.end
        return answer, ended and (limits.ends_with_records or not answer.pieces)

    def _payload(self, answer: Answer, *, ended: bool) -> bytes:
        """Shape ``SubscribeToShardEvent``. The last of a shard has child shards and, though the model requires it, no
        continuation (KCL, ``FanOutRecordsPublisher``: null is the end of the shard)."""
        shard, now = self._shard, self._account.clock()
        rest: dict[str, object] = {"MillisBehindLatest": shard.millis_behind(answer.next, now)}
        if ended:
            rest |= {"ContinuationSequenceNumber": None, "ChildShards": [child.as_child() for child in shard.children]}
        else:
            number = shard.number_before(answer.next, now, idle=not answer.pieces)
            rest["ContinuationSequenceNumber"] = str(number)
        return b'{"Records":[%s],%s' % (b",".join(answer.pieces), orjson.dumps(rest)[1:])
