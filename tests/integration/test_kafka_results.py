"""Results of windows in a topic of a real broker: keyed, all of them, and waited for."""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from loadtest.kafka_broker import BrokerMissing, KafkaBroker
from streamsvc.app_sinks import keyed_results
from streamsvc.config import Aws
from streamsvc.config_sinks import KeyedSink
from streamsvc.errors import Retryable, SourceRefused, SourceUnavailable
from streamsvc.sinks.kafka.results import KafkaResults
from streamsvc.sinks.retrying import RetryingResults
from tests.windows_results import WINDOW, finished, key, read_topic, value

NewTopic = Callable[..., str]

pytestmark = pytest.mark.broker

QUICK = {"message.timeout.ms": 60_000, "topic.metadata.propagation.max.ms": 500, "linger.ms": 0}


def results_in(brokers: str, topic: str, **options: Any) -> KafkaResults:
    options["client"] = {**QUICK, **options.get("client", {})}
    sink = KeyedSink.model_validate({"kafka": {"brokers": brokers, "topic": topic, **options}})
    made = keyed_results(sink, Aws())
    assert isinstance(made, KafkaResults)
    return made


def unused_address() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(scope="module")
def guarded() -> Iterator[KafkaBroker]:
    """A broker of its own, that asks who may do what, and may be ended."""
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
        "super.users": "User:ANONYMOUS",
    }
    try:
        with KafkaBroker(settings, users={"reader": "not-a-secret"}) as broker:
            yield broker
    except BrokerMissing as missing:
        pytest.skip(f"NOT TESTED AGAINST KAFKA: {missing}")


async def test_a_result_is_a_record_and_its_key_is_window_and_group(broker: KafkaBroker, new_topic: NewTopic) -> None:
    topic = new_topic()
    async with results_in(broker.bootstrap, topic) as results:
        assert await results.publish(WINDOW, finished(200, 404)) == []
        assert await results.publish(WINDOW, finished()) == []
    assert read_topic(broker.bootstrap, topic) == [(key(200), value(200)), (key(404), value(404))]


async def test_who_repeats_says_the_same_of_the_same_key_in_the_same_partition(
    broker: KafkaBroker, new_topic: NewTopic
) -> None:
    topic = new_topic(partitions=3)
    for _ in range(2):
        async with results_in(broker.bootstrap, topic) as results:
            await results.publish(WINDOW, finished(*range(100, 160)))
    found = read_topic(broker.bootstrap, topic, 3)
    assert len(found) == 120
    assert sorted(found)[::2] == sorted(found)[1::2]
    by_partition = [set(read_topic(broker.bootstrap, topic, count)) for count in (1, 2, 3)]
    assert len(by_partition[0]) < len(by_partition[1]) < len(by_partition[2]) == 60


async def test_more_results_than_the_client_holds(broker: KafkaBroker, new_topic: NewTopic) -> None:
    topic = new_topic()
    async with results_in(broker.bootstrap, topic, client={"queue.buffering.max.messages": 100}) as results:
        await results.publish(WINDOW, finished(*range(2_000)))
    assert {k for k, _ in read_topic(broker.bootstrap, topic)} == {key(group) for group in range(2_000)}


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
async def test_over_tls_with_a_password(broker: KafkaBroker, new_topic: NewTopic, mechanism: str) -> None:
    topic = new_topic()
    sasl = {"mechanism": mechanism, "username": "reader", "password": "not-a-secret"}
    async with results_in(
        broker.secure_bootstrap, topic, sasl=sasl, tls={"ca": broker.certificate.read_text()}
    ) as results:
        await results.publish(WINDOW, finished(200))
    assert read_topic(broker.bootstrap, topic) == [(key(200), value(200))]


async def test_wrong_credentials_are_refused_and_not_logged(
    broker: KafkaBroker, new_topic: NewTopic, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sasl = {"mechanism": "SCRAM-SHA-512", "username": "reader", "password": "guessed-wrongly"}
    options: dict[str, Any] = {"sasl": sasl, "tls": {"ca": broker.certificate.read_text()}}
    async with results_in(
        broker.secure_bootstrap, new_topic(), client={"debug": "security,conf"}, **options
    ) as results:
        with pytest.raises(SourceRefused, match="check `sasl`") as refused:
            await results.publish(WINDOW, finished(200))
    assert len(caplog.records) > 10
    assert "guessed-wrongly" not in f"{caplog.text}{refused.value}{results.__dict__}"


async def test_an_unknown_certificate_is_refused(broker: KafkaBroker, new_topic: NewTopic) -> None:
    sasl = {"mechanism": "PLAIN", "username": "reader", "password": "not-a-secret"}
    async with results_in(broker.secure_bootstrap, new_topic(), sasl=sasl) as results:
        with pytest.raises(SourceRefused, match="check `tls`"):
            await results.publish(WINDOW, finished(200))


async def test_a_topic_that_is_not_there_is_not_made_but_waited_for(broker: KafkaBroker) -> None:
    topic = f"topic-{uuid.uuid4().hex[:12]}"
    told: list[str | None] = []
    failed = asyncio.Event()

    def tell(error: Retryable | None) -> None:
        told.append(str(error) if error else None)
        failed.set()

    async with results_in(broker.bootstrap, topic) as results:
        publishing = asyncio.create_task(RetryingResults(results, tell).publish(WINDOW, finished(200)))
        await failed.wait()
        await asyncio.to_thread(broker.create_topic, topic)
        await publishing
    assert f"there is no topic {topic}" in (told[0] or "")
    assert "sink.kafka.topic" in (told[0] or "")
    assert told[-1] is None
    assert read_topic(broker.bootstrap, topic) == [(key(200), value(200))]


async def test_no_broker_is_told_and_a_wait_may_be_cancelled() -> None:
    async with results_in(unused_address(), "t", client={"message.timeout.ms": 1_000}) as results:
        with pytest.raises(SourceUnavailable, match="tried again for ever") as failure:
            await results.publish(WINDOW, finished(200))
        assert "onnect" in failure.value.what
        publishing = asyncio.create_task(results.publish(WINDOW, finished(200)))
        await asyncio.sleep(0)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing


async def test_a_result_that_is_too_large(broker: KafkaBroker, new_topic: NewTopic) -> None:
    async with results_in(broker.bootstrap, new_topic(max_message_bytes=2_000)) as results:
        with pytest.raises(SourceRefused, match=r"max\.message\.bytes"):
            await results.publish(WINDOW, finished(200, text="".join(map(chr, range(40, 4_000)))))
        await results.publish(WINDOW, finished(200))


async def test_no_permission_to_write(guarded: KafkaBroker) -> None:
    topic = "guarded"
    guarded.create_topic(topic)
    no_writing = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        "User:reader",
        "*",
        AclOperation.WRITE,
        AclPermissionType.DENY,
    )
    with AdminClient({"bootstrap.servers": guarded.bootstrap, "log_level": 0}) as admin:
        for made in admin.create_acls([no_writing]).values():
            made.result(20)
    options: dict[str, Any] = {
        "sasl": {"mechanism": "PLAIN", "username": "reader", "password": "not-a-secret"},
        "tls": {"ca": guarded.certificate.read_text()},
    }
    async with results_in(guarded.secure_bootstrap, topic, **options) as results:
        with pytest.raises(SourceRefused, match="permissions WRITE and DESCRIBE"):
            await results.publish(WINDOW, finished(200))


async def test_a_broker_that_ends_is_waited_for(guarded: KafkaBroker) -> None:
    guarded.create_topic("outage")
    told: list[str | None] = []
    failed = asyncio.Event()

    def tell(error: Retryable | None) -> None:
        told.append(error.what if error else None)
        failed.set()

    async with results_in(guarded.bootstrap, "outage", client={"message.timeout.ms": 1_000}) as inner:
        results = RetryingResults(inner, tell)
        await results.publish(WINDOW, finished(200))
        guarded.kill()
        failed.clear()
        publishing = asyncio.create_task(results.publish(WINDOW, finished(404)))
        await failed.wait()
        await asyncio.to_thread(guarded.start)
        await publishing
    assert "results cannot be written now" in (told[-2] or "")
    assert told[-1] is None
    assert {value for _, value in read_topic(guarded.bootstrap, "outage")} == {value(200), value(404)}
