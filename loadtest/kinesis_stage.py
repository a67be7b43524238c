"""What a run over Kinesis needs: the in-process server and moto's DynamoDB, each in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from mypy_boto3_kinesis import KinesisClient

from loadtest.processes import Child
from loadtest.stage import Stage, module
from tests.kinesis_emulators import DynamoDb, KinesisProcess

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@dataclass(frozen=True)
class Servers:
    """Where they listen."""

    kinesis: str
    dynamodb: str

    def client(self) -> KinesisClient:
        return boto3.client(
            "kinesis",
            endpoint_url=self.kinesis,
            region_name=CREDENTIALS["AWS_REGION"],
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )

    def aws(self) -> dict[str, Any]:
        """For a configuration."""
        return {
            "region": CREDENTIALS["AWS_REGION"],
            "access_key_id": CREDENTIALS["AWS_ACCESS_KEY_ID"],
            "secret_access_key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            "endpoints": {"kinesis": self.kinesis, "dynamodb": self.dynamodb},
        }


@contextmanager
def kinesis_servers(*arguments: str) -> Iterator[Servers]:
    """``arguments``: of ``streamsvc.testing.kinesis_server``."""
    with KinesisProcess(*arguments) as kinesis, DynamoDb() as dynamodb:
        yield Servers(kinesis.endpoint_url, dynamodb.endpoint_url)


@dataclass(frozen=True, kw_only=True)
class KinesisStage(Stage):
    """A stream instead of a topic; its name is ``topic``.

    options:       of the source, beside the stream
    reshard_every: of the producer
    """

    servers: Servers
    options: dict[str, Any] = field(default_factory=dict)
    reshard_every: int = 0

    def source(self) -> dict[str, Any]:
        return {"kinesis": {"stream": self.topic, **self.options}}

    def aws(self, *, faulty: bool) -> dict[str, Any]:
        return self.servers.aws()

    def producer(self, **options: object) -> Child:
        """``loadtest.kinesis_produce``."""
        given: dict[str, object] = {"endpoint-url": self.servers.kinesis, "stream": self.topic, "ledger": self.ledger}
        given["reshard-every"] = self.reshard_every
        given |= {name.replace("_", "-"): value for name, value in options.items()}
        return Child(module("kinesis_produce", given), self.directory / "producer.log")
