"""What clients ask, as shapes of the service model (``botocore``: ``kinesis/2013-12-02/service-2.json``)."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct, field

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_.-]+$")]
Arn: TypeAlias = Annotated[str, Meta(min_length=1, max_length=2048)]
HashKey: TypeAlias = Annotated[str, Meta(pattern=r"^(0|([1-9]\d{0,38}))$")]
Number: TypeAlias = Annotated[str, Meta(pattern=r"^(0|([1-9]\d{0,128}))$")]
Key: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
Token: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1048576)]
AtMost10000: TypeAlias = Annotated[int, Meta(ge=1, le=10_000)]
Positive: TypeAlias = Annotated[int, Meta(ge=1)]
Tags: TypeAlias = Annotated[dict[str, str], Meta(min_length=1, max_length=200)]

Start: TypeAlias = Literal["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"]


class Request(Struct, rename="pascal", frozen=True):
    """Unknown members are ignored, as AWS does."""


class OfStream(Request, frozen=True, kw_only=True):
    """By name or by ARN or by both (API Reference, every operation on a stream)."""

    stream_name: Name | None = None
    stream_arn: Arn | None = field(default=None, name="StreamARN")


class StreamModeDetails(Request, frozen=True):
    stream_mode: Literal["PROVISIONED", "ON_DEMAND"]


class CreateStream(Request, frozen=True):
    stream_name: Name
    shard_count: Positive | None = None
    stream_mode_details: StreamModeDetails | None = None
    tags: Tags | None = None
    max_record_size_in_kib: Annotated[int, Meta(ge=1024, le=10240)] = field(default=1024, name="MaxRecordSizeInKiB")
    record_distribution_strategy: Literal["AUTO", "USER_PARTITION_KEY"] = "USER_PARTITION_KEY"


class DeleteStream(OfStream, frozen=True):
    enforce_consumer_deletion: bool = False


class DescribeStream(OfStream, frozen=True):
    limit: AtMost10000 = 100
    exclusive_start_shard_id: Name | None = None


class DescribeStreamSummary(OfStream, frozen=True):
    pass


class ShardFilter(Request, frozen=True):
    type: Literal[
        "AFTER_SHARD_ID", "AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST", "AT_TIMESTAMP", "FROM_TIMESTAMP"
    ]
    shard_id: Name | None = None
    timestamp: float | None = None


class ListShards(OfStream, frozen=True):
    next_token: Token | None = None
    exclusive_start_shard_id: Name | None = None
    max_results: AtMost10000 = 1000
    stream_creation_timestamp: float | None = None
    shard_filter: ShardFilter | None = None


class GetShardIterator(OfStream, frozen=True):
    shard_id: Name
    shard_iterator_type: Start
    starting_sequence_number: Number | None = None
    timestamp: float | None = None


class GetRecords(Request, frozen=True):
    shard_iterator: Annotated[str, Meta(min_length=1, max_length=512)]
    limit: AtMost10000 = 10_000
    stream_arn: Arn | None = field(default=None, name="StreamARN")


class PutRecord(OfStream, frozen=True):
    data: str
    partition_key: Key | None = None
    explicit_hash_key: HashKey | None = None
    sequence_number_for_ordering: Number | None = None


class PutRecordsRequestEntry(Request, frozen=True):
    data: str
    explicit_hash_key: HashKey | None = None
    partition_key: Key | None = None


class PutRecords(OfStream, frozen=True):
    records: Annotated[list[PutRecordsRequestEntry], Meta(min_length=1, max_length=500)]


class SplitShard(OfStream, frozen=True):
    shard_to_split: Name
    new_starting_hash_key: HashKey


class MergeShards(OfStream, frozen=True):
    shard_to_merge: Name
    adjacent_shard_to_merge: Name


class AddTagsToStream(OfStream, frozen=True):
    tags: Tags


class UpdateMaxRecordSize(Request, frozen=True):
    max_record_size_in_kib: Annotated[int, Meta(ge=1024, le=10240)] = field(name="MaxRecordSizeInKiB")
    stream_arn: Arn | None = field(default=None, name="StreamARN")


class RegisterStreamConsumer(Request, frozen=True):
    stream_arn: Arn = field(name="StreamARN")
    consumer_name: Name
    tags: Tags | None = None


class OfConsumer(Request, frozen=True):
    """By its ARN, or by the stream's ARN and its name."""

    stream_arn: Arn | None = field(default=None, name="StreamARN")
    consumer_name: Name | None = None
    consumer_arn: Arn | None = field(default=None, name="ConsumerARN")


class DescribeStreamConsumer(OfConsumer, frozen=True):
    pass


class DeregisterStreamConsumer(OfConsumer, frozen=True):
    pass


class ListStreamConsumers(Request, frozen=True):
    stream_arn: Arn = field(name="StreamARN")
    next_token: Token | None = None
    max_results: AtMost10000 = 100
    stream_creation_timestamp: float | None = None


class StartingPosition(Request, frozen=True):
    type: Start
    sequence_number: Number | None = None
    timestamp: float | None = None


class SubscribeToShard(Request, frozen=True):
    consumer_arn: Arn = field(name="ConsumerARN")
    shard_id: Name
    starting_position: StartingPosition
