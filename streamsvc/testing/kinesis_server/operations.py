"""The operations by name: how a request is read, who answers it, and what is decided on purpose instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import msgspec
import orjson

from streamsvc.testing.kinesis_server import record_operations, requests, stream_operations
from streamsvc.testing.kinesis_server.account import Account
from streamsvc.testing.kinesis_server.errors import KinesisError
from streamsvc.testing.kinesis_server.fan_out import OpenSubscription
from streamsvc.testing.kinesis_server.faults import Fault

Answer: TypeAlias = bytes | OpenSubscription
Operation: TypeAlias = Callable[[Account, bytes, Fault | None], Answer]
Asked = TypeVar("Asked", bound=requests.Request)


def parsed(body: bytes, kind: type[Asked]) -> Asked:
    """Raises what AWS answers to a body that is no JSON, or not of the shape."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise KinesisError("ValidationException", f"1 validation error detected: {error}") from None
    except msgspec.DecodeError as error:
        raise KinesisError("SerializationException", str(error)) from None


def _answers(kind: type[Asked], answer: Callable[[Account, Asked], dict[str, Any] | None]) -> Operation:
    def operation(account: Account, body: bytes, _: Fault | None) -> bytes:
        made = answer(account, parsed(body, kind))
        return b"" if made is None else orjson.dumps(made)

    return operation


def _get_records(account: Account, body: bytes, fault: Fault | None) -> bytes:
    return record_operations.get_records(account, parsed(body, requests.GetRecords), empty=fault is Fault.EMPTY)


def _put_records(account: Account, body: bytes, fault: Fault | None) -> bytes:
    request = parsed(body, requests.PutRecords)
    if fault is not Fault.PARTIAL:
        return orjson.dumps(record_operations.put_records(account, request))
    fails = record_operations.some_fail(account, len(request.records))
    return orjson.dumps(record_operations.put_records(account, request, fails))


def _subscribe(account: Account, body: bytes, _: Fault | None) -> OpenSubscription:
    return OpenSubscription(account, parsed(body, requests.SubscribeToShard))


def unknown(account: Account, body: bytes, fault: Fault | None) -> Answer:
    """What is not in ``OPERATIONS``."""
    raise KinesisError("UnknownOperationException", "There is no such operation here.")


OPERATIONS: dict[str, Operation] = {
    "AddTagsToStream": _answers(requests.AddTagsToStream, stream_operations.add_tags_to_stream),
    "CreateStream": _answers(requests.CreateStream, stream_operations.create_stream),
    "DeleteStream": _answers(requests.DeleteStream, stream_operations.delete_stream),
    "DeregisterStreamConsumer": _answers(
        requests.DeregisterStreamConsumer, stream_operations.deregister_stream_consumer
    ),
    "DescribeStream": _answers(requests.DescribeStream, stream_operations.describe_stream),
    "DescribeStreamConsumer": _answers(requests.DescribeStreamConsumer, stream_operations.describe_stream_consumer),
    "DescribeStreamSummary": _answers(requests.DescribeStreamSummary, stream_operations.describe_stream_summary),
    "GetRecords": _get_records,
    "GetShardIterator": _answers(requests.GetShardIterator, record_operations.get_shard_iterator),
    "ListShards": _answers(requests.ListShards, stream_operations.list_shards),
    "ListStreamConsumers": _answers(requests.ListStreamConsumers, stream_operations.list_stream_consumers),
    "MergeShards": _answers(requests.MergeShards, stream_operations.merge_shards),
    "PutRecord": _answers(requests.PutRecord, record_operations.put_record),
    "PutRecords": _put_records,
    "RegisterStreamConsumer": _answers(requests.RegisterStreamConsumer, stream_operations.register_stream_consumer),
    "SplitShard": _answers(requests.SplitShard, stream_operations.split_shard),
    "SubscribeToShard": _subscribe,
    "UpdateMaxRecordSize": _answers(requests.UpdateMaxRecordSize, stream_operations.update_max_record_size),
}
