"""Operations on streams, shards and consumers: everything but records."""

from __future__ import annotations

from typing import Any

import msgspec

from streamsvc.testing.kinesis_server import requests
from streamsvc.testing.kinesis_server.account import Account, Consumer
from streamsvc.testing.kinesis_server.errors import KinesisError, in_use, invalid, not_found
from streamsvc.testing.kinesis_server.listing import filtered
from streamsvc.testing.kinesis_server.streams import Options, Stream

MAX_LISTED = 1000
"""API Reference, ListShards: "if you specify a value greater than 1000, at most 1000 results are returned"."""


def create_stream(account: Account, request: requests.CreateStream) -> None:
    details = request.stream_mode_details
    options = Options(
        mode=details.stream_mode if details else "PROVISIONED",
        max_record_kib=request.max_record_size_in_kib,
        distribution=request.record_distribution_strategy,
        tags=request.tags or {},
    )
    if options.distribution == "AUTO" and options.mode != "ON_DEMAND":
        raise invalid("RecordDistributionStrategy AUTO is only supported in on-demand mode.")
    account.create_stream(request.stream_name, request.shard_count, options)


def delete_stream(account: Account, request: requests.DeleteStream) -> None:
    stream = account.stream(request.stream_name, request.stream_arn)
    account.delete_stream(stream, with_consumers=request.enforce_consumer_deletion)


def describe_stream(account: Account, request: requests.DescribeStream) -> dict[str, Any]:
    """A stream that is being created has no shards yet."""
    stream = account.stream(request.stream_name, request.stream_arn)
    now = account.clock()
    shards = [] if stream.status(now) == "CREATING" else filtered(stream, None, now)
    rest = [shard for shard in shards if shard.id > (request.exclusive_start_shard_id or "")]
    return {
        "StreamDescription": {
            **stream.described(now),
            "Shards": [shard.described() for shard in rest[: request.limit]],
            "HasMoreShards": len(rest) > request.limit,
        }
    }


def describe_stream_summary(account: Account, request: requests.DescribeStreamSummary) -> dict[str, Any]:
    stream = account.stream(request.stream_name, request.stream_arn)
    consumers = {"ConsumerCount": len(account.consumers_of(stream))}
    return {"StreamDescriptionSummary": {**stream.described(account.clock()), **stream.summary(), **consumers}}


def list_shards(account: Account, request: requests.ListShards) -> dict[str, Any]:
    """API Reference, ListShards: a NextToken stands for stream, filter and place."""
    now = account.clock()
    stream, chosen, after = _listing(account, request, now)
    shards = [shard for shard in filtered(stream, chosen, now) if shard.id > after]
    page = shards[: min(request.max_results, MAX_LISTED)]
    answer: dict[str, Any] = {"Shards": [shard.described() for shard in page]}
    if len(page) < len(shards):
        carried = [stream.name, stream.created, page[-1].id, msgspec.to_builtins(chosen)]
        answer["NextToken"] = account.next_tokens.write(carried, now)
    return answer


def _listing(
    account: Account, request: requests.ListShards, now: float
) -> tuple[Stream, requests.ShardFilter | None, str]:
    if request.next_token is None:
        stream = account.stream(request.stream_name, request.stream_arn)
        if stream.status(now) == "CREATING":
            raise in_use(f"Stream {stream.name} is being created.")
        _same_stream(stream, request.stream_creation_timestamp)
        return stream, request.shard_filter, request.exclusive_start_shard_id or ""
    if request.stream_name or request.stream_creation_timestamp or request.exclusive_start_shard_id:
        raise invalid("NextToken and StreamName, StreamCreationTimestamp or a start cannot be provided together.")
    name, created, after, chosen = account.next_tokens.read(request.next_token, now)
    stream = account.live_stream(name)
    _same_stream(stream, created)
    return stream, msgspec.convert(chosen, requests.ShardFilter | None), after


def _same_stream(stream: Stream, created: float | None) -> None:
    """botocore sends times in whole seconds, so a time is of this stream if it lies in its second."""
    if created is not None and int(created) != int(stream.created):
        raise not_found(f"Stream {stream.name} created at {created} not found.")


def split_shard(account: Account, request: requests.SplitShard) -> None:
    _provisioned(account, request).split(request.shard_to_split, request.new_starting_hash_key, account.clock())


def merge_shards(account: Account, request: requests.MergeShards) -> None:
    stream = _provisioned(account, request)
    stream.merge(request.shard_to_merge, request.adjacent_shard_to_merge, account.clock())


def _provisioned(account: Account, request: requests.OfStream) -> Stream:
    """API Reference, SplitShard and MergeShards: ValidationException for a stream in on-demand mode."""
    stream = account.stream(request.stream_name, request.stream_arn)
    if stream.mode == "ON_DEMAND":
        raise KinesisError("ValidationException", f"Stream {stream.name} is in on-demand mode.")
    return stream


def add_tags_to_stream(account: Account, request: requests.AddTagsToStream) -> None:
    account.live_stream(request.stream_name, request.stream_arn).tags.update(request.tags)


def update_max_record_size(account: Account, request: requests.UpdateMaxRecordSize) -> None:
    stream = account.live_stream(None, request.stream_arn)
    stream.max_record_bytes = request.max_record_size_in_kib * 1024


def register_stream_consumer(account: Account, request: requests.RegisterStreamConsumer) -> dict[str, Any]:
    stream = account.live_stream(None, request.stream_arn)
    return {"Consumer": _described(account, account.register(stream, request.consumer_name))}


def describe_stream_consumer(account: Account, request: requests.DescribeStreamConsumer) -> dict[str, Any]:
    consumer = account.consumer(request.consumer_arn, request.stream_arn, request.consumer_name)
    return {"ConsumerDescription": {**_described(account, consumer), "StreamARN": consumer.stream.arn}}


def list_stream_consumers(account: Account, request: requests.ListStreamConsumers) -> dict[str, Any]:
    stream = account.live_stream(None, request.stream_arn)
    now = account.clock()
    after = "" if request.next_token is None else account.next_tokens.read(request.next_token, now)[0]
    rest = [consumer for consumer in account.consumers_of(stream) if consumer.name > after]
    page = rest[: request.max_results]
    answer: dict[str, Any] = {"Consumers": [_described(account, consumer) for consumer in page]}
    if len(page) < len(rest):
        answer["NextToken"] = account.next_tokens.write([page[-1].name], now)
    return answer


def deregister_stream_consumer(account: Account, request: requests.DeregisterStreamConsumer) -> None:
    account.deregister(account.consumer(request.consumer_arn, request.stream_arn, request.consumer_name))


def _described(account: Account, consumer: Consumer) -> dict[str, Any]:
    """Shape ``Consumer``."""
    return {
        "ConsumerName": consumer.name,
        "ConsumerARN": consumer.arn,
        "ConsumerStatus": consumer.status(account.clock()),
        "ConsumerCreationTimestamp": consumer.created,
    }
