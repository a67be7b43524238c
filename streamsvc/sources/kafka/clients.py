"""From our configuration to librdkafka's clients: one set of settings for each kind.

Names and meanings are librdkafka's, from its CONFIGURATION.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from streamsvc.config import Aws
from streamsvc.config_sources import KafkaSource, Sasl, Tls
from streamsvc.sources.kafka import failures, msk_iam
from streamsvc.sources.kafka.client_log import ClientLog, Logger, Repeats

Settings: TypeAlias = dict[str, str | int | float | bool]

MIN_QUEUE_BYTES = 8 * 1024 * 1024
"""Less would make fetches so small that reading is slow."""


QUEUED_RECORDS = 20_000
"""As many as fill the queue of 6 MiB at 300 bytes each: fewer would stall reading, more would hold more headers."""


class Connection(Protocol):
    """What a configuration says of how to reach brokers, of whatever it is for."""

    @property
    def brokers(self) -> str: ...
    @property
    def tls(self) -> Tls | bool | None: ...
    @property
    def sasl(self) -> Sasl | None: ...
    @property
    def client(self) -> Mapping[str, str | int | float | bool]: ...


@dataclass(frozen=True, slots=True)
class ConsumerRecipe:
    """Makes one consumer, or several with the same settings. Its repr shows no secret."""

    settings: Settings
    log: ClientLog
    token: msk_iam.TokenMaker | None

    @property
    def is_static(self) -> bool:
        """A member whose place in the group outlives its client (KIP-345)."""
        return "group.instance.id" in self.settings

    @property
    def is_classic(self) -> bool:
        return self.settings.get("group.protocol") == "classic"

    @contextmanager
    def consumer(self, on_error: Callable[[KafkaError], None]) -> Iterator[Consumer]:
        """To be entered in the thread that uses the consumer. Waits up to ten seconds for a first token.

        Raises ``SourceRefused`` if the client cannot be made, or fails."""
        callbacks = {"error_cb": on_error, **_token_callback(self.token)}
        try:
            consumer = Consumer(self.settings, logger=self.log, **callbacks)
            try:
                yield consumer
            finally:
                consumer.close()
        except KafkaException as error:
            raise failures.client_failed(error) from None

    def __repr__(self) -> str:
        return f"ConsumerRecipe({', '.join(self.settings)})"


class Clients:
    """Makes the clients of one source. Raises ``SourceRefused`` if that is not possible."""

    def __init__(self, options: KafkaSource, group: str, instance: str | None, aws: Aws | None, logger: Logger) -> None:
        self.group = group
        self._options = options
        self._instance = instance
        self._logger = logger
        self._repeats = Repeats()
        self._token = _token_maker(options, aws, logger)

    @property
    def max_poll_interval_s(self) -> float:
        return float(self._options.client.get("max.poll.interval.ms", 300_000)) / 1000

    def admin(self) -> AdminClient:
        """Asks for topics and offsets. Its errors are exceptions, so it logs nothing. Waits as a consumer does."""
        settings = {**connection(self._options), **self._options.client, "log_level": 0}
        try:
            return AdminClient(settings, **_token_callback(self._token))
        except KafkaException as error:
            raise failures.client_failed(error) from None

    def member(self) -> ConsumerRecipe:
        """Owns the group membership and commits; every partition stays paused, so it never fetches."""
        settings: Settings = {
            **connection(self._options),
            "group.id": self.group,
            "group.protocol": self._options.group_protocol,
            "enable.auto.commit": False,
            # Assigned at the end and paused: there is no record that this client could skip.
            "auto.offset.reset": "latest",
            "queued.min.messages": 1,
            "topic.metadata.refresh.interval.ms": 10_000,
        }
        if self._options.group_protocol == "classic":
            settings["partition.assignment.strategy"] = "cooperative-sticky"
        if self._instance is not None:
            settings["group.instance.id"] = self._instance
        return self._recipe({**settings, **self._options.client})

    def reader(self, queue_bytes: int) -> ConsumerRecipe:
        """Reads what it is told to. No member of the group, whose name it gives only for the sake of permissions.

        queue_bytes: what librdkafka may hold of records, about"""
        client = dict(self._options.client)
        debug = [context for context in str(client.pop("debug", "")).split(",") if context]
        settings: Settings = {
            **connection(self._options),
            "group.id": self.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "check.crcs": True,
            # Looks again soon when its queue was full; the default of one second leaves the client idle.
            "fetch.queue.backoff.ms": 1,
            # The queue is one for all partitions; a response from each broker can come on top.
            "queued.max.messages.kbytes": queue_bytes * 3 // 4 // 1024,
            # It counts keys and values there, not headers: of these nothing but the number of records is a bound.
            "queued.min.messages": QUEUED_RECORDS,
            "fetch.max.bytes": queue_bytes // 4,
            # Compressed, that is: what a response holds grows when it arrives.
            "fetch.message.max.bytes": 256 * 1024,
            **client,
            # Tells when a topic's id changes: see ClientLog.
            "debug": ",".join(dict.fromkeys([*debug, "topic"])),
        }
        return self._recipe(settings)

    def _recipe(self, settings: Settings) -> ConsumerRecipe:
        forward_debug = "debug" in self._options.client
        log = ClientLog(self._logger, _secrets(self._options), forward_debug=forward_debug, repeats=self._repeats)
        return ConsumerRecipe(settings, log, self._token)


def producer(options: Connection, aws: Aws | None, logger: Logger, on_error: Callable[[KafkaError], None]) -> Producer:
    """A record counts as written when all replicas have it; one that cannot be written is given back after
    ``message.timeout.ms``, here ten seconds, by which time its sender wants to know. No topic is made.

    Waits up to ten seconds for a first token. Raises ``SourceRefused`` if the client cannot be made."""
    settings: Settings = {
        **connection(options),
        "acks": "all",
        "enable.idempotence": True,
        "allow.auto.create.topics": False,
        # As the Java clients do: the same key is in the same partition, whoever writes.
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "message.timeout.ms": 10_000,
        "topic.metadata.propagation.max.ms": 5_000,
        **options.client,
    }
    log = ClientLog(logger, _secrets(options), forward_debug="debug" in options.client)
    callbacks = {"error_cb": on_error, **_token_callback(_token_maker(options, aws, logger))}
    try:
        return Producer(settings, logger=log, **callbacks)
    except KafkaException as error:
        raise failures.client_failed(error) from None


def _token_maker(options: Connection, aws: Aws | None, logger: Logger) -> msk_iam.TokenMaker | None:
    if options.sasl is None or options.sasl.mechanism != "AWS_MSK_IAM":
        return None
    return msk_iam.token_maker(options.sasl, options.brokers, aws, logger)


def _token_callback(token: msk_iam.TokenMaker | None) -> dict[str, Callable[..., object]]:
    return {} if token is None else {"oauth_cb": token}


def connection(options: Connection) -> Settings:
    """What every client needs to reach the brokers."""
    settings: Settings = {
        "bootstrap.servers": options.brokers,
        "client.id": "streamsvc",
        "socket.keepalive.enable": True,
        "reconnect.backoff.max.ms": 3000,
        "security.protocol": _protocol(options),
    }
    if isinstance(options.tls, Tls):
        settings |= _tls(options.tls)
    if options.sasl is not None:
        settings |= _sasl(options.sasl)
    return settings


def _protocol(options: Connection) -> str:
    """Credentials go over TLS unless ``tls: false`` says that they need not."""
    encrypted = options.sasl is not None if options.tls is None else options.tls is not False
    if options.sasl is None:
        return "SSL" if encrypted else "PLAINTEXT"
    return "SASL_SSL" if encrypted else "SASL_PLAINTEXT"


def _tls(tls: Tls) -> Settings:
    settings: Settings = {}
    places: tuple[tuple[SecretStr | str | None, str, str], ...] = (
        (tls.ca, "ssl.ca.location", "ssl.ca.pem"),
        (tls.certificate, "ssl.certificate.location", "ssl.certificate.pem"),
        (tls.key, "ssl.key.location", "ssl.key.pem"),
    )
    for given, as_path, as_text in places:
        if given is not None:
            text = given.get_secret_value() if isinstance(given, SecretStr) else given
            settings[as_text if text.lstrip().startswith("-----BEGIN") else as_path] = text
    if tls.key_password is not None:
        settings["ssl.key.password"] = tls.key_password.get_secret_value()
    return settings


def _sasl(sasl: Sasl) -> Settings:
    if sasl.mechanism == "AWS_MSK_IAM":
        return {"sasl.mechanism": "OAUTHBEARER"}
    settings: Settings = {"sasl.mechanism": sasl.mechanism}
    if sasl.username is not None:
        settings["sasl.username"] = sasl.username
    if sasl.password is not None:
        settings["sasl.password"] = sasl.password.get_secret_value()
    return settings


def _secrets(options: Connection) -> list[str]:
    held: list[SecretStr | None] = []
    if options.sasl is not None:
        held.append(options.sasl.password)
    if isinstance(options.tls, Tls):
        held += [options.tls.key, options.tls.key_password]
    return [secret.get_secret_value() for secret in held if secret is not None]
