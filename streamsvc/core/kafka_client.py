"""Which settings of the Kafka client (librdkafka) a configuration may give, why the others are ours, and what the names
of brokers say."""

from __future__ import annotations

import re

_POSITIONS = "positions are kept in the segment log; they are never reset, stored or committed by the client"
_TLS = "set it under `tls`"
_SASL = "set it under `sasl`"

_OURS = {
    "bootstrap.servers": "set `brokers`",
    "metadata.broker.list": "set `brokers`",
    "group.id": "set `group`",
    "group.instance.id": "set `instance_id`",
    "group.protocol": "set `group_protocol`",
    "partition.assignment.strategy": "partitions move one by one, so the assignor is cooperative-sticky",
    "auto.offset.reset": f"set `start`; {_POSITIONS}",
    "enable.auto.commit": _POSITIONS,
    "auto.commit.interval.ms": _POSITIONS,
    "enable.auto.offset.store": _POSITIONS,
    "enable.partition.eof": "positions move over records that do not exist only with it",
    "isolation.level": "records of aborted transactions must not land",
    "queued.max.messages.kbytes": "set `memory`; what the client may hold is a share of it",
    "fetch.max.bytes": "set `memory`; what the client may hold is a share of it",
    "security.protocol": "it follows from `tls` and `sasl`",
    "sasl.mechanism": _SASL,
    "sasl.mechanisms": _SASL,
    "sasl.username": _SASL,
    "sasl.password": _SASL,
    "ssl.ca.location": _TLS,
    "ssl.ca.pem": _TLS,
    "ssl.certificate.location": _TLS,
    "ssl.certificate.pem": _TLS,
    "ssl.key.location": _TLS,
    "ssl.key.pem": _TLS,
    "ssl.key.password": _TLS,
    "test.mock.num.brokers": "every client would have brokers of its own",
}

_CONNECTION = ("bootstrap.", "metadata.", "security.", "sasl.", "ssl.", "test.")

_OURS_OF_PRODUCERS = {
    **{name: reason for name, reason in _OURS.items() if name.startswith(_CONNECTION)},
    "acks": "a result counts as there when all replicas have it",
    "request.required.acks": "a result counts as there when all replicas have it",
    "enable.idempotence": "results are written once for each try",
    "allow.auto.create.topics": "a topic that is made by the way has partitions and retention that nobody chose",
    "transactional.id": "a result that comes again is the same, so there is nothing to undo",
}

_BROKERS_IN_KIP_848 = (
    "with `group_protocol: consumer` the broker decides: group.consumer.session.timeout.ms, "
    "group.consumer.heartbeat.interval.ms and its assignors"
)
_NOT_IN_KIP_848 = ("session.timeout.ms", "heartbeat.interval.ms", "group.protocol.type")


def reason_to_refuse(setting: str, group_protocol: str) -> str | None:
    """Why this setting of librdkafka may not be given, or ``None``."""
    if group_protocol == "consumer" and setting in _NOT_IN_KIP_848:
        return _BROKERS_IN_KIP_848
    return _OURS.get(setting)


def reason_to_refuse_of_producer(setting: str) -> str | None:
    """The same of a client that writes."""
    return _OURS_OF_PRODUCERS.get(setting)


def msk_region(brokers: str) -> str | None:
    """MSK's broker names hold it: ``b-1.name.id.c2.kafka.eu-west-1.amazonaws.com:9098``."""
    found = re.search(r"\.kafka(?:-serverless)?\.([a-z0-9-]+)\.amazonaws\.com", brokers)
    return found[1] if found else None
