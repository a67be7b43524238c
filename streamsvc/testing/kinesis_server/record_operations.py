"""Operations on records: writing them, and reading them by polling."""

from __future__ import annotations

from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Callable
from typing import Any

import orjson

from streamsvc.testing.kinesis_server import requests
from streamsvc.testing.kinesis_server.account import Account
from streamsvc.testing.kinesis_server.errors import KinesisError, internal, invalid, not_found, throttled
from streamsvc.testing.kinesis_server.places import place_of
from streamsvc.testing.kinesis_server.shards import Answer, Shard
from streamsvc.testing.kinesis_server.streams import Stream


def put_record(account: Account, request: requests.PutRecord) -> dict[str, Any]:
    stream = account.live_stream(request.stream_name, request.stream_arn)
    nbytes = _checked_size(stream, request.data, request.partition_key)
    shard, number = stream.put(request.data, nbytes, request.partition_key, request.explicit_hash_key, account.clock())
    return {"ShardId": shard.id, "SequenceNumber": str(number)}


def put_records(
    account: Account, request: requests.PutRecords, fails: Callable[[int], KinesisError | None] = lambda _: None
) -> dict[str, Any]:
    """API Reference, PutRecords: the answers in the order of the records; one that fails stops no other.

    ``fails`` says of the n-th record, from 0, how it fails on purpose.
    """
    stream = account.live_stream(request.stream_name, request.stream_arn)
    sizes = [_checked_size(stream, record.data, record.partition_key) for record in request.records]
    if sum(sizes) > account.limits.request_bytes:
        raise invalid(f"Records size exceeds {account.limits.request_bytes} bytes")
    now = account.clock()
    answers: list[dict[str, str]] = []
    failed = 0
    for number, (record, nbytes) in enumerate(zip(request.records, sizes, strict=True)):
        error = fails(number)
        if error is None:
            try:
                shard, sequence_number = stream.put(
                    record.data, nbytes, record.partition_key, record.explicit_hash_key, now
                )
            except KinesisError as refused:
                if refused.kind != "ProvisionedThroughputExceededException":
                    raise
                error = refused
            else:
                answers.append({"ShardId": shard.id, "SequenceNumber": str(sequence_number)})
                continue
        failed += 1
        answers.append({"ErrorCode": error.kind, "ErrorMessage": error.message})
    return {"FailedRecordCount": failed, "Records": answers}


def some_fail(account: Account, records: int) -> Callable[[int], KinesisError | None]:
    """About half of the records, at least one, throttled or with InternalFailure by turns."""
    chosen = {number for number in range(records) if account.dice.random() < 0.5}
    chosen.add(account.dice.randrange(records))

    def fails(number: int) -> KinesisError | None:
        if number not in chosen:
            return None
        return throttled("Rate exceeded, on purpose.") if number % 2 else internal()

    return fails


def _checked_size(stream: Stream, data: str, key: str | None) -> int:
    """What a record counts for: data and partition key (API Reference, PutRecordsRequestEntry)."""
    try:
        nbytes = len(a2b_base64(data, strict_mode=True)) if data else 0
    except NotBase64:
        raise KinesisError("SerializationException", "Data is not base64.") from None
    if key is None and stream.requires_key():
        raise invalid("PartitionKey must be specified.")
    nbytes += len(key.encode()) if key else 0
    if nbytes > stream.max_record_bytes:
        raise invalid(f"A record of {nbytes} bytes exceeds the maximum record size of {stream.max_record_bytes} bytes.")
    return nbytes


def get_shard_iterator(account: Account, request: requests.GetShardIterator) -> dict[str, Any]:
    """API Reference, GetShardIterator: five calls a second a shard; a closed shard has iterators too."""
    now = account.clock()
    stream = account.live_stream(request.stream_name, request.stream_arn)
    shard = stream.shard(request.shard_id, now)
    if not shard.meters.iterators.allows(now):
        raise throttled(f"Rate exceeded for shard {shard.id} in stream {stream.name}.")
    shard.meters.iterators.spend(1)
    place = place_of(shard, request.shard_iterator_type, request.starting_sequence_number, request.timestamp, now)
    return {"ShardIterator": _iterator(account, stream, shard, place, now)}


def _iterator(account: Account, stream: Stream, shard: Shard, place: int, now: float) -> str:
    return account.iterators.write([stream.name, stream.created, shard.id, place], now)


def get_records(account: Account, request: requests.GetRecords, *, empty: bool = False) -> bytes:
    """API Reference, GetRecords. ``empty``: no records, on purpose, and an iterator for the same place."""
    now = account.clock()
    name, created, shard_id, place = account.iterators.read(request.shard_iterator, now)
    stream = account.live_stream(name, request.stream_arn)
    if stream.created != created:
        raise not_found(f"Stream {name} of this iterator not found.")
    shard = stream.shard(shard_id, now)
    _meter_read(stream, shard, now)
    most = min(request.limit, account.limits.answer_records)
    answer = Answer([], place, 0) if empty else shard.read(place, most, account.limits.answer_bytes)
    shard.meters.read_bytes.spend(answer.nbytes)
    ended = shard.closed is not None and answer.next >= shard.end and not empty
    if ended and answer.pieces and not account.limits.ends_with_records:
        ended = False
    rest: dict[str, Any] = {"MillisBehindLatest": shard.millis_behind(answer.next, now)}
    if ended:
        rest |= {"NextShardIterator": None, "ChildShards": [child.as_child() for child in shard.children]}
    else:
        rest["NextShardIterator"] = _iterator(account, stream, shard, answer.next, now)
    return b'{"Records":[%s],%s' % (b",".join(answer.pieces), orjson.dumps(rest)[1:])


def _meter_read(stream: Stream, shard: Shard, now: float) -> None:
    """Each call counts as one of five a second, whatever it returns; 10 MiB are five seconds' worth of bytes."""
    meters = shard.meters
    if not (meters.reads.allows(now) and meters.read_bytes.allows(now)):
        raise throttled(f"Rate exceeded for shard {shard.id} in stream {stream.name}.")
    meters.reads.spend(1)
