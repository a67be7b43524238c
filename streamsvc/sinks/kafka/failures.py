"""What librdkafka's errors mean for results on their way to a topic."""

from __future__ import annotations

from confluent_kafka import KafkaError

from streamsvc.errors import SourceRefused, SourceUnavailable, StreamsvcError

_REFUSED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "give the user the permissions WRITE and DESCRIBE on the topic",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "give the user the permission IDEMPOTENT_WRITE on the cluster",
    KafkaError.TOPIC_EXCEPTION: "the topic's name is not valid, or it is one of the cluster's own",
    KafkaError.POLICY_VIOLATION: "the cluster's policy does not take such records",
    KafkaError.INVALID_RECORD: "the topic does not take such records: look at its configuration",
    KafkaError.INVALID_REQUIRED_ACKS: "the broker does not take `acks=all`",
    KafkaError.MSG_SIZE_TOO_LARGE: "raise `max.message.bytes` of the topic and `message.max.bytes` in `client`, or"
    " group by shorter texts",
    KafkaError.UNSUPPORTED_VERSION: "the broker is too old for idempotent producers",
}

_NO_ENTRY = {
    KafkaError._AUTHENTICATION: "check `sasl`: mechanism, user name and password",
    KafkaError.SASL_AUTHENTICATION_FAILED: "check `sasl`: mechanism, user name and password",
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "the broker has not this `sasl.mechanism`",
    KafkaError._SSL: "check `tls`: the broker's certificate must be signed by `ca`, and its name must be in it",
}

_UNKNOWN_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}


def explained(error: KafkaError, topic: str, brokers: str, *, was_connected: bool) -> StreamsvcError:
    """was_connected: a broker that once let us in, and now does not, may be restarting."""
    where = {"topic": topic, "brokers": brokers, "kafka_error": error.name()}
    if error.code() in _UNKNOWN_TOPIC:
        hint = "Create it, or correct `sink.kafka.topic`; results that are waiting go there when it is."
        return SourceUnavailable(f"there is no topic {topic} for results", hint=hint, **where)
    hint = _REFUSED.get(error.code(), "")
    if not hint and not was_connected:
        hint = _NO_ENTRY.get(error.code(), "")
    if hint:
        return SourceRefused(f"results cannot be written: {error.str()}", hint=hint, **where)
    hint = "Look at the brokers; it is tried again for ever."
    why = "no broker takes them" if error.code() == KafkaError._MSG_TIMED_OUT else error.str()
    return SourceUnavailable(f"results cannot be written now: {why}", hint=hint, **where)


def is_no_entry(error: KafkaError) -> bool:
    """Whether waiting mends it only if it is the broker that changes."""
    return error.code() in _NO_ENTRY
