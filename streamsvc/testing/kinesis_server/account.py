"""One account in one region: its streams, their consumers, and everything that operations need besides."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from streamsvc.testing.kinesis_server.errors import KinesisError, in_use, invalid, not_found
from streamsvc.testing.kinesis_server.limits import Limits
from streamsvc.testing.kinesis_server.streams import ON_DEMAND_SHARDS, Options, Stream
from streamsvc.testing.kinesis_server.tokens import iterator_tokens, next_tokens

ACCOUNT = "000000000000"
MAX_CONSUMERS = 20


@dataclass(slots=True)
class Consumer:
    """Registered for fan-out. A new one of the same name has another ARN (API Reference, ConsumerDescription)."""

    name: str
    arn: str
    stream: Stream
    created: float
    active_at: float

    def status(self, now: float) -> str:
        return "ACTIVE" if now >= self.active_at else "CREATING"


@dataclass(slots=True, eq=False)
class Subscription:
    """What a consumer holds of a shard. ``began`` is on the clock of the account."""

    began: float
    lost: KinesisError | None = None
    """Why it is over."""
    wake: Callable[[], None] = lambda: None

    def lose(self, error: KinesisError) -> None:
        self.lost = error
        self.wake()


class Account:
    """``clock`` gives seconds since the epoch. ``seed`` decides which records of a PARTIAL fault fail."""

    def __init__(self, limits: Limits, clock: Callable[[], float], *, region: str = "us-east-1", seed: int = 0) -> None:
        self.limits = limits
        self.clock = clock
        self.iterators = iterator_tokens(limits.iterator_s)
        self.next_tokens = next_tokens(limits.token_s)
        self.dice = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self.streams: dict[str, Stream] = {}
        self.consumers: dict[str, Consumer] = {}
        self.subscriptions: dict[tuple[str, str], Subscription] = {}
        self._region = region
        self._registered = 0

    def create_stream(self, name: str, shards: int | None = 1, options: Options | None = None) -> Stream:
        """Raises ``ResourceInUseException`` for a name that exists."""
        if name in self.streams:
            raise in_use(f"Stream {name} under account {ACCOUNT} already exists.")
        options = options or Options()
        if options.mode == "ON_DEMAND":
            shards = shards or ON_DEMAND_SHARDS
        if shards is None:
            raise invalid("ShardCount must be specified for a stream in provisioned mode.")
        arn = f"arn:aws:kinesis:{self._region}:{ACCOUNT}:stream/{name}"
        self.streams[name] = Stream(name, arn, shards, options, self.limits, round(self.clock(), 3))
        return self.streams[name]

    def stream(self, name: str | None, arn: str | None = None) -> Stream:
        """By name, by ARN, or by both. Raises ``KinesisError``."""
        named = name if arn is None else arn.rpartition("stream/")[2]
        if named is None:
            raise invalid("Either StreamName or StreamARN must be specified.")
        if name is not None and name != named:
            raise invalid(f"StreamName {name} and StreamARN {arn} are of two streams.")
        stream = self.streams.get(named)
        if stream is None or arn not in (None, stream.arn):
            raise not_found(f"Stream {named} under account {ACCOUNT} not found.")
        return stream

    def live_stream(self, name: str | None, arn: str | None = None) -> Stream:
        """One that can be written and read. Raises ``KinesisError``."""
        return self.stream(name, arn).settled(self.clock())

    def delete_stream(self, stream: Stream, *, with_consumers: bool) -> None:
        """API Reference, DeleteStream: with registered consumers only if told so."""
        consumers = self.consumers_of(stream)
        if consumers and not with_consumers:
            raise in_use(f"Stream {stream.name} has registered consumers; set EnforceConsumerDeletion.")
        for consumer in consumers:
            self.deregister(consumer)
        del self.streams[stream.name]

    def consumers_of(self, stream: Stream) -> list[Consumer]:
        found = [consumer for consumer in self.consumers.values() if consumer.stream is stream]
        return sorted(found, key=lambda consumer: consumer.name)

    def register(self, stream: Stream, name: str) -> Consumer:
        """API Reference, RegisterStreamConsumer: a name once, and 20 consumers, a stream."""
        consumers = self.consumers_of(stream)
        if any(consumer.name == name for consumer in consumers):
            raise in_use(f"Consumer {name} of stream {stream.name} already exists.")
        if len(consumers) >= MAX_CONSUMERS:
            raise KinesisError("LimitExceededException", f"Stream {stream.name} has {MAX_CONSUMERS} consumers.")
        now = round(self.clock(), 3)
        self._registered = max(self._registered + 1, int(now))
        arn = f"{stream.arn}/consumer/{name}:{self._registered}"
        consumer = Consumer(name, arn, stream, now, now + self.limits.transition_s)
        self.consumers[arn] = consumer
        return consumer

    def consumer(self, arn: str | None, stream_arn: str | None = None, name: str | None = None) -> Consumer:
        """By its ARN, or by its stream and name. Raises ``KinesisError``."""
        if arn is not None:
            if arn not in self.consumers:
                raise not_found(f"Consumer {arn} not found.")
            return self.consumers[arn]
        if stream_arn is None or name is None:
            raise invalid("Either ConsumerARN, or StreamARN and ConsumerName, must be specified.")
        for consumer in self.consumers_of(self.stream(None, stream_arn)):
            if consumer.name == name:
                return consumer
        raise not_found(f"Consumer {name} of stream {stream_arn} not found.")

    def deregister(self, consumer: Consumer) -> None:
        """Its subscriptions end."""
        del self.consumers[consumer.arn]
        for (arn, _), subscription in self.subscriptions.items():
            if arn == consumer.arn:
                subscription.lose(not_found(f"Consumer {arn} not found."))
