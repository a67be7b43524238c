"""Fixtures that every test may ask for."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from loadtest.kafka_broker import BrokerMissing, KafkaBroker, Setting
from tests.kinesis_emulators import DynamoDb, EmulatorMissing, KinesisLocal


@pytest.fixture(scope="session")
def broker() -> Iterator[KafkaBroker]:
    """A real Apache Kafka broker, one for the whole session; tests use topics and groups of their own."""
    settings: dict[str, Setting] = {
        "group.consumer.session.timeout.ms": 3000,
        "group.consumer.heartbeat.interval.ms": 500,
    }
    started = KafkaBroker(settings, users={"reader": "not-a-secret"})
    try:
        started.__enter__()
    except BrokerMissing as missing:
        pytest.skip(f"NOT TESTED AGAINST KAFKA: {missing}")
    yield started
    started.__exit__(None, None, None)


@pytest.fixture
def new_topic(broker: KafkaBroker) -> Callable[..., str]:
    """Makes a topic of its own for a test: ``new_topic(partitions=3, cleanup_policy="compact")``; its name."""

    def make(partitions: int = 1, **config: Setting) -> str:
        name = f"topic-{uuid.uuid4().hex[:12]}"
        broker.create_topic(name, partitions, **config)
        return name

    return make


@pytest.fixture(scope="session")
def kinesis_local() -> Iterator[KinesisLocal]:
    """kinesis-local, one for the whole session; tests use streams of their own."""
    try:
        with KinesisLocal() as started:
            yield started
    except EmulatorMissing as missing:
        pytest.skip(f"NOT TESTED AGAINST kinesis-local: {missing}")


@pytest.fixture(scope="session")
def dynamodb() -> Iterator[DynamoDb]:
    """moto's DynamoDB, one for the whole session; tests use tables of their own."""
    with DynamoDb() as started:
        yield started
