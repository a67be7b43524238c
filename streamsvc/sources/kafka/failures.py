"""librdkafka's errors, by what they mean for us."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from streamsvc.errors import SourceRefused, SourceUnavailable, StreamsvcError

_OUT_OF_RANGE = {
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError._LOG_TRUNCATION,
    KafkaError.OFFSET_OUT_OF_RANGE,
}

# librdkafka goes on behind a record that it cannot read, so we must not.
_UNREADABLE = {
    KafkaError._BAD_COMPRESSION,
    KafkaError._BAD_MSG,
    KafkaError._NOT_IMPLEMENTED,
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError.MSG_SIZE_TOO_LARGE,
}

_REFUSED = {
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "give the user the permission DESCRIBE on the cluster",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "give the user the permissions READ and DESCRIBE on the consumer group",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "give the user the permissions READ and DESCRIBE on the topic",
    KafkaError.TOPIC_EXCEPTION: "a topic name is not valid",
    KafkaError.FENCED_INSTANCE_ID: "another worker runs with the same `instance_id`; each needs one of its own",
    KafkaError.INCONSISTENT_GROUP_PROTOCOL: "the consumer group has members with another assignor or protocol; "
    "stop them, or set another `group`",
    KafkaError.INVALID_SESSION_TIMEOUT: "`session.timeout.ms` is outside of what the broker allows",
    KafkaError.UNSUPPORTED_ASSIGNOR: "the broker has not the assignor that `group.remote.assignor` names",
    KafkaError.UNSUPPORTED_VERSION: "the broker is too old for this; `group_protocol: classic` works with all",
    KafkaError.GROUP_MAX_SIZE_REACHED: "the consumer group has as many members as the broker allows",
}

_NO_ENTRY = {
    KafkaError._AUTHENTICATION: "check `sasl`: mechanism, user name and password",
    KafkaError.SASL_AUTHENTICATION_FAILED: "check `sasl`: mechanism, user name and password",
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "the broker has not this `sasl.mechanism`",
    KafkaError._SSL: "check `tls`: the broker's certificate must be signed by `ca`, and its name must be in it",
}

_UNKNOWN_TOPIC = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}

_SILENCE = {KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE, KafkaError._TIMED_OUT, KafkaError._TRANSPORT}

_NO_CONNECTION = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._AUTHENTICATION,
    KafkaError._RESOLVE,
    KafkaError._SSL,
}


def is_out_of_range(error: KafkaError) -> bool:
    return error.code() in _OUT_OF_RANGE


def stops_reading(error: KafkaError) -> bool:
    """Whether reading on behind this would leave records out."""
    return error.code() in _OUT_OF_RANGE or error.code() in _UNREADABLE


def is_unknown_topic(error: KafkaError) -> bool:
    return error.code() in _UNKNOWN_TOPIC


def is_no_connection(error: KafkaError) -> bool:
    return error.code() in _NO_CONNECTION


def unveiled(error: KafkaError) -> KafkaError:
    """A fatal error arrives as ``_FATAL`` with the cause only in its text, in librdkafka's own words for it."""
    if error.code() == KafkaError._FATAL:
        for code in (KafkaError.UNRELEASED_INSTANCE_ID, *_REFUSED):
            if KafkaError(code).str() in error.str():
                return KafkaError(code, error.str(), fatal=True)
    return error


def waits_for_former_self(error: KafkaError) -> bool:
    """KIP-848: the broker keeps a static member's place until the session of its last life is over."""
    return error.code() == KafkaError.UNRELEASED_INSTANCE_ID


def refused(error: KafkaError, *, was_connected: bool) -> SourceRefused | None:
    """The failure, if waiting will not mend it. A broker that once let us in and now does not may be restarting."""
    hint = _REFUSED.get(error.code())
    if hint is None and not was_connected:
        hint = _NO_ENTRY.get(error.code())
    if hint is None and (error.fatal() or error.code() == KafkaError._FATAL):
        hint = "the Kafka client cannot go on; restart the worker"
    return None if hint is None else SourceRefused(text_of(error), hint=hint, kafka_error=error.name())


def of_request(error: KafkaError, what: str, **where: str) -> StreamsvcError:
    """What a failed request for topics or offsets means."""
    final = refused(error, was_connected=True)
    if final is not None:
        return final
    hint = "Look at the brokers; a worker asks again for ever, a command can be run again."
    return SourceUnavailable(f"{what}: {text_of(error)}", hint=hint, kafka_error=error.name(), **where)


def no_answer(error: KafkaError, brokers: str) -> StreamsvcError:
    """To the first question to the brokers. What librdkafka says to a time-out is about old brokers."""
    if error.code() not in _SILENCE:
        return of_request(error, f"the brokers {brokers} do not say what topics there are")
    return SourceUnavailable(
        f"no broker answers at {brokers}",
        hint="Is it the address, does a broker run there, can this machine reach it, and does it want `tls` or `sasl`?",
        kafka_error=error.name(),
    )


def client_failed(error: KafkaException) -> SourceRefused:
    """Most often it could not be made: a setting is not valid, a certificate cannot be read, or there is no token."""
    cause = kafka_error(error)
    return SourceRefused(
        f"the Kafka client does not work: {text_of(cause)}",
        hint="check `client`, `tls` and `sasl`",
        kafka_error=cause.name(),
    )


def kafka_error(error: KafkaException) -> KafkaError:
    cause = error.args[0] if error.args else None
    return cause if isinstance(cause, KafkaError) else KafkaError(KafkaError.UNKNOWN, str(error))


def text_of(error: KafkaError) -> str:
    return error.str()
