"""The Kafka source against a real broker: what the contract of sources does not know of."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from loadtest.kafka_broker import KafkaBroker
from streamsvc.config_sources import KafkaSource as KafkaOptions
from streamsvc.config_sources import Sasl, Tls
from streamsvc.contracts import Assigned, Revoked, SplitEvent
from streamsvc.core.offsets import offset_of, position_of
from streamsvc.errors import PositionLost, SourceRefused
from streamsvc.records import Split
from streamsvc.sources.kafka import ownership
from streamsvc.sources.kafka.source import KafkaSource

NewTopic = Callable[..., str]

pytestmark = pytest.mark.broker

QUICK = {"topic.metadata.refresh.interval.ms": 300, "heartbeat.interval.ms": 200, "fetch.wait.max.ms": 50}


def source_of(brokers: str, topic: str, *, instance: str | None = None, **options: Any) -> KafkaSource:
    """A member of a group of its own, unless ``group`` is given."""
    given = {"group": f"group-{uuid.uuid4().hex[:12]}", "client": QUICK, **options}
    settings = KafkaOptions.model_validate({"brokers": brokers, "topics": [topic], **given})
    return KafkaSource(settings, service="test", pipeline="test", instance=instance, queue_bytes=0)


def produce(brokers: str, topic: str, *values: bytes, partition: int = 0, **more: Any) -> None:
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 0, "log_level": 0})
    for value in values:
        producer.produce(topic, value, partition=partition, **more)
    assert producer.flush(20) == 0


async def next_event(events: AsyncIterator[SplitEvent], kind: type[SplitEvent]) -> tuple[Split, ...]:
    event = await anext(events)
    assert isinstance(event, kind)
    return event.splits


async def read_values(source: KafkaSource, count: int) -> list[bytes]:
    values: list[bytes] = []
    while len(values) < count:
        values += (await source.read()).values.to_pylist()
    return values


async def test_partitions_that_are_added_are_read_from_their_first_record(
    broker: KafkaBroker, new_topic: NewTopic
) -> None:
    topic = new_topic(partitions=1)
    async with source_of(broker.bootstrap, topic) as source:
        events = source.assignments()
        assert len(await next_event(events, Assigned)) == 1
        broker.grow_topic(topic, 3)
        produce(broker.bootstrap, topic, b"first", partition=2)
        added = await next_event(events, Assigned)
        assert len(added) == 2
        source.start_at(dict.fromkeys(added, source.first_position))
        assert await read_values(source, 1) == [b"first"]


async def test_a_topic_that_is_created_anew_has_other_splits(broker: KafkaBroker, new_topic: NewTopic) -> None:
    """Also when it grows past the old position at once, so that no offset is out of range."""
    topic = new_topic()
    produce(broker.bootstrap, topic, *[b"old"] * 100)
    async with source_of(broker.bootstrap, topic) as source:
        events = source.assignments()
        old = await next_event(events, Assigned)
        source.start_at(dict.fromkeys(old, source.first_position))
        assert await read_values(source, 100) == [b"old"] * 100

        broker.delete_topic(topic)
        broker.create_topic(topic)
        produce(broker.bootstrap, topic, *[b"new"] * 300)
        assert await next_event(events, Revoked) == old
        new = await next_event(events, Assigned)
        assert set(new).isdisjoint(old)
        source.start_at(dict.fromkeys(new, source.first_position))
        assert await read_values(source, 300) == [b"new"] * 300
        assert list(await source.splits()) == list(new)
        with pytest.raises(PositionLost, match="created anew"):
            await anext(source.read_range({old[0]: (position_of(0), position_of(100))}))


async def test_a_broker_that_restarts_is_waited_for(broker: KafkaBroker, new_topic: NewTopic) -> None:
    topic = new_topic()
    async with source_of(broker.bootstrap, topic) as source:
        (split,) = await next_event(source.assignments(), Assigned)
        source.start_at({split: source.first_position})
        produce(broker.bootstrap, topic, b"before")
        assert await read_values(source, 1) == [b"before"]
        assert source.problem is None
        reading = asyncio.create_task(read_values(source, 1))
        broker.stop()
        while source.problem is None:
            await asyncio.sleep(0.05)
        assert not reading.done()
        broker.start()
        produce(broker.bootstrap, topic, b"after")
        assert await reading == [b"after"]
        while source.problem is not None:
            await asyncio.sleep(0.05)


async def test_a_source_ends_soon_while_no_broker_takes_its_last_offsets(
    broker: KafkaBroker, new_topic: NewTopic
) -> None:
    topic = new_topic()
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(source_of(broker.bootstrap, topic, client={}))
        (split,) = await next_event(source.assignments(), Assigned)
        broker.stop()
        while source.problem is None:
            await asyncio.sleep(0.05)
        source.acknowledge({split: position_of(0)})
        async with asyncio.timeout(40):  # the session is 45 s, and nothing but waiting is left
            await stack.aclose()
    broker.start()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_a_member_to_which_the_group_gives_nothing_stands_by_and_is_well(
    broker: KafkaBroker, new_topic: NewTopic, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "NO_NEWS_S", 2.0)
    topic = new_topic(partitions=1)
    same: dict[str, Any] = {"group": f"group-{uuid.uuid4().hex[:12]}", "group_protocol": protocol, "client": {}}
    one, two = (source_of(broker.bootstrap, topic, instance=name, **same) for name in "ab")
    async with one, two:
        assert one.problem is not None
        while one.problem is not None or two.problem is not None:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_a_killed_static_member_takes_its_splits_up_again(
    broker: KafkaBroker, new_topic: NewTopic, protocol: str
) -> None:
    topic = new_topic(partitions=2)
    group, instance = f"group-{uuid.uuid4().hex[:12]}", "host-0"
    module = "tests.integration.kafka_member_process"
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, broker.bootstrap, topic, group, instance, protocol,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert killed.stdout is not None
    owned = {(await killed.stdout.readline()).decode().strip() for _ in range(2)}
    killed.kill()
    await killed.wait()
    options: dict[str, Any] = {"group": group, "group_protocol": protocol, "client": {}}
    async with source_of(broker.bootstrap, topic, instance=instance, **options) as source:
        # Less than the session of 45 s: the classic protocol lets a static member back in at once; with KIP-848
        # the broker keeps the dead one's place for its own session, 3 s here.
        assert set(await next_event(source.assignments(), Assigned)) == owned


@pytest.mark.parametrize("fails", [False, True])
async def test_a_static_member_leaves_when_it_exits_and_keeps_its_place_when_it_fails(
    broker: KafkaBroker, new_topic: NewTopic, fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streamsvc.kafka")
    topic, group = new_topic(partitions=2), f"group-{uuid.uuid4().hex[:12]}"
    with suppress(RuntimeError):
        async with source_of(broker.bootstrap, topic, instance="host-0", group=group) as source:
            assert len(await next_event(source.assignments(), Assigned)) == 2
            if fails:
                raise RuntimeError
    assert await members_of(group, broker.bootstrap) == (["host-0"] if fails else [])
    assert ("its 2 partitions are read on when it is back" in caplog.text) == fails


async def members_of(group: str, brokers: str) -> list[str]:
    with AdminClient({"bootstrap.servers": brokers, "log_level": 0}) as admin:
        described = await asyncio.wrap_future(admin.describe_consumer_groups([group])[group])
    return [member.group_instance_id for member in described.members]


async def test_members_of_the_new_protocol_hand_over(broker: KafkaBroker, new_topic: NewTopic) -> None:
    topic = new_topic(partitions=2)
    group = f"group-{uuid.uuid4().hex[:12]}"
    options: dict[str, Any] = {"group": group, "group_protocol": "consumer", "client": {"fetch.wait.max.ms": 50}}
    async with source_of(broker.bootstrap, topic, **options) as first:
        events = first.assignments()
        assert len(await next_event(events, Assigned)) == 2
        async with source_of(broker.bootstrap, topic, **options) as second:
            leaving = await next_event(events, Revoked)
            first.release(leaving)
            assert await next_event(second.assignments(), Assigned) == leaving
        assert await next_event(events, Assigned) == leaving


async def test_a_second_worker_with_the_same_instance_id_ends_the_first(
    broker: KafkaBroker, new_topic: NewTopic
) -> None:
    topic = new_topic()
    group = f"group-{uuid.uuid4().hex[:12]}"
    async with source_of(broker.bootstrap, topic, instance="same", group=group) as first:
        await next_event(first.assignments(), Assigned)
        async with source_of(broker.bootstrap, topic, instance="same", group=group) as second:
            await next_event(second.assignments(), Assigned)
            with pytest.raises(SourceRefused, match="instance"):
                await first.read()


async def test_the_mock_broker_will_do_for_the_demo() -> None:
    producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    cluster = producer.list_topics(timeout=10)
    (mock,) = cluster.brokers.values()
    brokers = f"{mock.host}:{mock.port}"
    for number in range(8):
        producer.produce("demo", b"line", partition=number % 4)
    assert producer.flush(10) == 0
    async with source_of(brokers, "demo", instance="demo-0") as source:
        events = source.assignments()
        splits = await next_event(events, Assigned)
        starts = await source.first_positions()
        assert set(starts) == set(splits)
        source.start_at(starts)
        assert await read_values(source, 8) == [b"line"] * 8
        ends = await source.ends()
        assert [offset_of(end) for end in ends.values()] == [2, 2, 2, 2]
        source.acknowledge(ends)


async def test_a_topic_that_does_not_exist_is_refused(broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "TOPIC_GRACE_S", 0.5)
    async with source_of(broker.bootstrap, "no-such-topic") as source:
        with pytest.raises(SourceRefused, match="no-such-topic"):
            await source.read()
        with pytest.raises(SourceRefused, match="no-such-topic"):
            await anext(source.assignments())
        with pytest.raises(SourceRefused, match="no-such-topic"):
            await source.first_positions()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
async def test_tls_and_sasl(broker: KafkaBroker, new_topic: NewTopic, mechanism: str) -> None:
    topic = new_topic()
    produce(broker.bootstrap, topic, b"secret line")
    options: dict[str, Any] = {
        "tls": Tls(ca=str(broker.certificate)),
        "sasl": {"mechanism": mechanism, "username": "reader", "password": "not-a-secret"},
    }
    async with source_of(broker.secure_bootstrap, topic, **options) as source:
        (split,) = await next_event(source.assignments(), Assigned)
        source.start_at({split: source.first_position})
        assert await read_values(source, 1) == [b"secret line"]


async def test_wrong_credentials_are_refused_and_not_logged(
    broker: KafkaBroker, new_topic: NewTopic, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sasl = Sasl(mechanism="SCRAM-SHA-512", username="reader", password=SecretStr("guessed-wrongly"))
    options: dict[str, Any] = {
        "tls": Tls(ca=broker.certificate.read_text()),
        "sasl": sasl,
        "client": {"debug": "security,conf"},
    }
    async with source_of(broker.secure_bootstrap, new_topic(), **options) as source:
        with pytest.raises(SourceRefused, match="check `sasl`") as refused:
            await source.first_positions()
        with pytest.raises(SourceRefused):
            await source.read()
        said = (
            f"{refused.value} {source.problem} {source.__dict__} {source._clients.__dict__} {source._clients.member()}"
        )
    assert len(caplog.records) > 10
    assert "guessed-wrongly" not in caplog.text + said


async def test_an_unknown_certificate_is_refused(broker: KafkaBroker, new_topic: NewTopic) -> None:
    sasl = {"mechanism": "PLAIN", "username": "reader", "password": "not-a-secret"}
    async with source_of(broker.secure_bootstrap, new_topic(), sasl=sasl) as source:
        with pytest.raises(SourceRefused, match="check `tls`"):
            await source.first_positions()


async def test_a_start_in_time(broker: KafkaBroker, new_topic: NewTopic) -> None:
    topic = new_topic(partitions=2)
    now = datetime.now(UTC)
    for minutes in range(5):
        moment = now - timedelta(minutes=4 - minutes)
        produce(broker.bootstrap, topic, b"x", timestamp=int(moment.timestamp() * 1000))
    start = (now - timedelta(minutes=2, seconds=30)).isoformat()
    async with source_of(broker.bootstrap, topic, start=start) as source:
        starts = await source.first_positions()
        assert [offset_of(starts[split]) for split in sorted(starts)] == [2, 0]


async def test_gaps_that_compaction_left_are_no_loss(broker: KafkaBroker, new_topic: NewTopic) -> None:
    topic = new_topic(cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0.01, delete_retention_ms=100)
    for number in range(20):
        produce(broker.bootstrap, topic, b"%d" % number, key=b"k%d" % (number % 3))
    async with source_of(broker.bootstrap, topic) as source:
        (split,) = await next_event(source.assignments(), Assigned)
        offsets = list(range(20))
        at = end = position_of(0)
        while offsets == list(range(len(offsets))):
            # A segment is closed, and then cleaned, only when another record comes.
            produce(broker.bootstrap, topic, b"more", key=b"more")
            end = (await source.ends())[split]
            offsets, at = [], position_of(0)
            async for batch in source.read_range({split: (at, end)}):
                offsets += batch.offsets.to_pylist()
                for span in batch.spans:
                    assert span.first == at
                    at = span.to
            assert at == end
        source.start_at({split: source.first_position})
        at = position_of(0)
        while at < end:
            for span in (await source.read()).spans:
                assert span.first == at
                at = span.to


async def test_a_record_that_is_damaged_on_the_brokers_disk_is_not_skipped(
    broker: KafkaBroker, new_topic: NewTopic
) -> None:
    topic = new_topic()
    for value in (b"before", b"to-be-damaged", b"behind"):
        produce(broker.bootstrap, topic, value)
    (segment,) = broker.partition_files(topic, 0).glob("*.log")
    with segment.open("r+b") as file:
        file.seek(file.read().index(b"to-be-damaged"))
        file.write(b"TO")
    async with source_of(broker.bootstrap, topic) as source:
        (split,) = await next_event(source.assignments(), Assigned)
        source.start_at({split: source.first_position})
        with pytest.raises(SourceRefused, match="cannot be read") as refused:
            await read_values(source, 3)
        assert refused.value.where["position"] == position_of(1)


async def test_a_header_name_that_is_not_text_does_no_harm(broker: KafkaBroker, new_topic: NewTopic) -> None:
    """Among many, because Python calls in another way what it has called often."""
    topic = new_topic()
    expected: list[object] = []
    for _ in range(3):
        produce(broker.bootstrap, topic, *[b"value"] * 40, headers=[("good", b"1")])
        produce_with_header_name(broker.bootstrap, topic, b"\xff\xfe")
        expected += [[("good", b"1")]] * 40 + [[("(a header name was not UTF-8)", None)]]
    async with source_of(broker.bootstrap, topic) as source:
        (split,) = await next_event(source.assignments(), Assigned)
        source.start_at({split: source.first_position})
        headers: list[object] = []
        while len(headers) < len(expected):
            batch = await source.read()
            headers += batch.headers().to_pylist()
            assert batch.headers().equals(batch.headers())
        assert headers == expected


def produce_with_header_name(brokers: str, topic: str, name: bytes) -> None:
    """By librdkafka's C interface, since the Python one takes only text."""
    (library,) = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka-*")
    librdkafka = ctypes.CDLL(str(library))
    for function in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new"):
        getattr(librdkafka, function).restype = ctypes.c_void_p
    error = ctypes.create_string_buffer(512)
    settings = ctypes.c_void_p(librdkafka.rd_kafka_conf_new())
    librdkafka.rd_kafka_conf_set(settings, b"bootstrap.servers", brokers.encode(), error, len(error))
    client = ctypes.c_void_p(librdkafka.rd_kafka_new(0, settings, error, len(error)))
    headers = ctypes.c_void_p(librdkafka.rd_kafka_headers_new(1))
    librdkafka.rd_kafka_header_add(headers, name, ctypes.c_ssize_t(len(name)), b"1", ctypes.c_ssize_t(1))
    topic_tag, value_tag, headers_tag, end_tag = 1, 4, 10, 0
    code = librdkafka.rd_kafka_producev(
        client, topic_tag, topic.encode(), value_tag, b"odd", ctypes.c_size_t(3), headers_tag, headers, end_tag
    )
    assert code == 0
    assert librdkafka.rd_kafka_flush(client, 20_000) == 0
    librdkafka.rd_kafka_destroy(client)
