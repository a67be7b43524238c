"""The Kinesis server speaks as botocore's service model says: what it reads, and what it answers real clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import boto3
import msgspec
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.model import OperationModel, StructureShape
from botocore.session import get_session

from streamsvc.testing.kinesis_server import Fault, KinesisServer, Limits, requests
from streamsvc.testing.kinesis_server.operations import OPERATIONS
from tests.kinesis_emulators import client
from tests.kinesis_shapes import problems

MODEL = get_session().get_service_model("kinesis")


def operation(name: str) -> OperationModel:
    return MODEL.operation_model(name)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_requests_are_read_as_the_model_has_them(name: str) -> None:
    _compare(getattr(requests, name), operation(name).input_shape)


def _compare(kind: type[msgspec.Struct], shape: Any) -> None:
    assert isinstance(shape, StructureShape)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    assert fields.keys() <= shape.members.keys()
    assert {name for name, field in fields.items() if field.required} == set(shape.required_members)
    for name, field in fields.items():
        nested = [
            option for option in _options(field.type) if isinstance(option, type) and issubclass(option, msgspec.Struct)
        ]
        for option in nested:
            member: Any = shape.members[name]
            _compare(option, member.member if member.type_name == "list" else member)


def _options(kind: Any) -> list[Any]:
    found = [kind]
    for inner in getattr(kind, "__args__", ()) + ((kind.__origin__,) if hasattr(kind, "__metadata__") else ()):
        found += _options(inner)
    return found


class Recorded:
    """A boto3 client whose every request and answer is held against the model."""

    def __init__(self, endpoint_url: str) -> None:
        self.wrong: list[str] = []
        self.operations: set[str] = set()
        self.client: Any = boto3.client(
            "kinesis",
            region_name="us-east-1",
            endpoint_url=endpoint_url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}),
        )
        self.client.meta.events.register("before-parse.kinesis.*", self._check)

    def _check(self, operation_model: OperationModel, response_dict: dict[str, Any], **_: Any) -> None:
        body = response_dict["body"]
        if response_dict["status_code"] != 200:
            error = json.loads(body)
            declared = {shape.name for shape in operation_model.error_shapes}
            if error["__type"] not in declared or not isinstance(error["message"], str):
                self.wrong.append(f"{operation_model.name}: {error}")
            return
        self.operations.add(operation_model.name)
        if operation_model.output_shape is None:
            self.wrong += [] if body == b"" else [f"{operation_model.name}: an answer where there is none: {body!r}"]
        elif not operation_model.has_event_stream_output:
            answer = json.loads(body)
            found = problems(operation_model.output_shape, answer)
            self.wrong += [f"{operation_model.name}: {problem}" for problem in found if not _known(problem)]


def _known(problem: str) -> bool:
    """Where the model forbids what AWS answers in the API Reference's own examples of PutRecords and DescribeStream."""
    return problem.startswith("$.FailedRecordCount: 0 ") or problem.endswith("ShardLevelMetrics: 0 long, not 1..7")


async def test_every_answer_is_of_its_shape() -> None:
    async with KinesisServer(faults={"PutRecords": [None, Fault.PARTIAL]}) as server:
        recorded = Recorded(server.endpoint_url)
        await asyncio.to_thread(_everything, recorded.client)
        recorded.client.close()
    assert recorded.wrong == []
    assert recorded.operations == OPERATIONS.keys() - {"SubscribeToShard"}


def _everything(kinesis: Any) -> None:
    kinesis.create_stream(StreamName="orders", ShardCount=2, Tags={"team": "web"}, MaxRecordSizeInKiB=2048)
    arn = kinesis.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]["StreamARN"]
    kinesis.create_stream(StreamName="scaling", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    kinesis.put_record(StreamName="orders", Data=b"a", PartitionKey='k"\\é')
    records = [{"Data": bytes([n]), "PartitionKey": str(n), "ExplicitHashKey": str(n << 120)} for n in range(100)]
    kinesis.put_records(StreamName="orders", Records=records)
    kinesis.put_records(StreamARN=arn, Records=records)
    kinesis.split_shard(StreamName="orders", ShardToSplit="shardId-000000000000", NewStartingHashKey="1000")
    kinesis.merge_shards(
        StreamARN=arn, ShardToMerge="shardId-000000000003", AdjacentShardToMerge="shardId-000000000001"
    )
    page = kinesis.list_shards(StreamName="orders", MaxResults=2)
    kinesis.list_shards(NextToken=page["NextToken"])
    kinesis.describe_stream(StreamName="orders", Limit=3)
    for shard in kinesis.list_shards(StreamARN=arn)["Shards"]:
        _read(kinesis, shard["ShardId"])
    consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="fast")["Consumer"]
    kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="slow")
    kinesis.describe_stream_consumer(ConsumerARN=consumer["ConsumerARN"])
    kinesis.describe_stream_consumer(StreamARN=arn, ConsumerName="slow")
    kinesis.list_stream_consumers(StreamARN=arn, NextToken=_first_page(kinesis, arn))
    kinesis.deregister_stream_consumer(ConsumerARN=consumer["ConsumerARN"])
    kinesis.add_tags_to_stream(StreamName="orders", Tags={"env": "test"})
    kinesis.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=1024)
    _refusals(kinesis)
    kinesis.delete_stream(StreamName="orders", EnforceConsumerDeletion=True)


def _first_page(kinesis: Any, arn: str) -> str:
    return str(kinesis.list_stream_consumers(StreamARN=arn, MaxResults=1)["NextToken"])


def _read(kinesis: Any, shard: str) -> None:
    found = kinesis.get_shard_iterator(StreamName="orders", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    iterator = found["ShardIterator"]
    while iterator is not None:
        answer = kinesis.get_records(ShardIterator=iterator)
        iterator = answer.get("NextShardIterator") if answer["Records"] else None


def _refusals(kinesis: Any) -> None:
    shard = {"StreamName": "orders", "ShardId": "shardId-000000000002"}
    refused: list[tuple[str, Callable[[], Any]]] = [
        ("ResourceNotFoundException", lambda: kinesis.describe_stream(StreamName="nothing")),
        (
            "ResourceNotFoundException",
            lambda: kinesis.get_shard_iterator(**shard | {"ShardId": "x"}, ShardIteratorType="LATEST"),
        ),
        ("InvalidArgumentException", lambda: kinesis.get_records(ShardIterator="garbage")),
        ("ResourceInUseException", lambda: kinesis.create_stream(StreamName="orders", ShardCount=1)),
        ("ResourceInUseException", lambda: kinesis.delete_stream(StreamName="orders")),
        (
            "ValidationException",
            lambda: kinesis.split_shard(StreamName="scaling", ShardToSplit="x", NewStartingHashKey="9"),
        ),
        (
            "InvalidArgumentException",
            lambda: kinesis.put_record(StreamName="orders", Data=bytes(2**20), PartitionKey="k"),
        ),
    ]
    for kind, call in refused:
        with pytest.raises(ClientError) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == kind


async def test_events_are_of_their_shape() -> None:
    shape = MODEL.shape_for("SubscribeToShardEvent")
    async with KinesisServer(limits=Limits(idle_event_s=0.01)) as server:
        stream = server.account.create_stream("s")
        shard = stream.shards["shardId-000000000000"]
        shard.put(b"one", "k", server.account.clock())
        consumer = server.account.register(stream, "c")
        payloads: list[dict[str, Any]] = []
        async with client("kinesis", server.endpoint_url) as kinesis:
            answer = await kinesis.subscribe_to_shard(
                ConsumerARN=consumer.arn, ShardId=shard.id, StartingPosition={"Type": "TRIM_HORIZON"}
            )
            stream_of_events = answer["EventStream"]
            async for message in stream_of_events._create_raw_event_generator():
                payloads.append(json.loads(message.payload))
                if len(payloads) == 3:
                    stream.split(shard.id, str(2**127), server.account.clock())
    assert payloads[0]["Records"]
    assert [payload["Records"] for payload in payloads[1:]] == [[]] * (len(payloads) - 1)
    assert [problem for payload in payloads[:-1] for problem in problems(shape, payload)] == []
    assert problems(shape, payloads[-1]) == ["$.ContinuationSequenceNumber is required"]
    assert len(payloads[-1]["ChildShards"]) == 2
