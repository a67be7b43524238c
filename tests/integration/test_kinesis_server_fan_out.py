"""The Kinesis server's subscriptions, its faults, and its command line, through real clients."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from aiohttp import ClientPayloadError
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, EventStreamError

from streamsvc.testing.kinesis_server import Fault, event_stream, random_faults
from streamsvc.testing.kinesis_server.errors import in_use
from streamsvc.testing.kinesis_server.limits import MIB
from streamsvc.testing.kinesis_server.streams import Options
from tests.kinesis_emulators import KinesisProcess, client
from tests.kinesis_world import FIRST, UNTHROTTLED, World, open_world, refused, values

BUSY = replace(UNTHROTTLED, idle_event_s=0.02)


async def _consumer(world: World, name: str = "c") -> str:
    registered = await world.kinesis.register_stream_consumer(StreamARN=world.stream.arn, ConsumerName=name)
    return str(registered["Consumer"]["ConsumerARN"])


@asynccontextmanager
async def _subscribed(
    world: World, consumer: str, kind: str = "TRIM_HORIZON", **place: Any
) -> AsyncIterator[AsyncIterator[Any]]:
    """The events of a subscription."""
    start = {"Type": kind, **place}
    answer = await world.kinesis.subscribe_to_shard(ConsumerARN=consumer, ShardId=FIRST, StartingPosition=start)
    with closing(answer["EventStream"]) as stream:
        yield (event["SubscribeToShardEvent"] async for event in stream)


async def _open(world: World, consumer: str) -> None:
    async with _subscribed(world, consumer) as events:
        await anext(events)


async def _all(events: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in events]


async def _next_with_records(events: AsyncIterator[Any]) -> Any:
    async for event in events:
        if event["Records"]:
            return event
    raise AssertionError("the subscription ended")


def test_messages_are_what_botocore_reads() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(event_stream.initial_response())
    buffer.add_data(event_stream.event("SubscribeToShardEvent", b'{"a":1}'))
    buffer.add_data(event_stream.exception(in_use("taken")))
    messages: list[Any] = list(buffer)
    initial, event, exception = messages
    assert initial.headers[":event-type"] == "initial-response"
    assert event.payload == b'{"a":1}'
    assert exception.to_response_dict()["status_code"] == 400
    assert exception.headers[":exception-type"] == "ResourceInUseException"


async def test_records_are_pushed_and_continue_after_the_last_one() -> None:
    async with open_world(BUSY) as world:
        (number,) = world.put(b"1")
        async with _subscribed(world, await _consumer(world)) as events:
            first = await anext(events)
            assert values(first) == [b"1"]
            assert first["ContinuationSequenceNumber"] == str(number)
            idle = await anext(events)
            assert values(idle) == []
            assert idle["MillisBehindLatest"] == 0
            assert int(idle["ContinuationSequenceNumber"]) > number
            (number,) = world.put(b"2")
            assert values(await _next_with_records(events)) == [b"2"]
            assert int(idle["ContinuationSequenceNumber"]) < number
        for kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
            assert await world.read(kind, StartingSequenceNumber=idle["ContinuationSequenceNumber"]) == [b"2"]


async def test_a_subscription_ends_by_itself() -> None:
    async with open_world(replace(BUSY, subscription_s=0.05)) as world:
        world.put(b"1")
        async with _subscribed(world, await _consumer(world)) as subscription:
            events = await _all(subscription)
        assert values(events[0]) == [b"1"]
        assert "ChildShards" not in events[-1]


async def test_the_end_of_a_shard_has_children_and_no_continuation() -> None:
    async with open_world(BUSY) as world:
        world.put(b"1")
        async with _subscribed(world, await _consumer(world)) as subscription:
            world.stream.split(FIRST, str(2**127), world.clock.now)
            events = await _all(subscription)
        assert [value for event in events for value in values(event)] == [b"1"]
        assert "ContinuationSequenceNumber" not in events[-1]
        assert [child["ParentShards"] for child in events[-1]["ChildShards"]] == [[FIRST], [FIRST]]
        async with _subscribed(world, await _consumer(world, "late"), "LATEST") as subscription:
            (end,) = await _all(subscription)
        assert len(end["ChildShards"]) == 2


async def test_a_second_subscription_is_refused_for_five_seconds_and_then_takes_over() -> None:
    async with open_world(BUSY) as world:
        consumer = await _consumer(world)
        async with _subscribed(world, consumer) as first:
            world.clock.now += 4.9
            with refused("ResourceInUseException"):
                await _open(world, consumer)
            async with _subscribed(world, await _consumer(world, "other")) as other:
                await anext(other)
            world.clock.now += 0.2
            async with _subscribed(world, consumer) as second:
                with pytest.raises(EventStreamError, match="ResourceInUseException"):
                    await _all(first)
                world.put(b"1")
                assert values(await _next_with_records(second)) == [b"1"]


async def test_a_consumer_that_is_gone_ends_its_subscriptions_and_comes_back_under_another_name() -> None:
    async with open_world(BUSY) as world:
        consumer = await _consumer(world)
        async with _subscribed(world, consumer) as subscription:
            with refused("ResourceInUseException"):
                await _consumer(world)
            await world.kinesis.deregister_stream_consumer(ConsumerARN=consumer)
            with pytest.raises(EventStreamError, match="ResourceNotFoundException"):
                await _all(subscription)
        with refused("ResourceNotFoundException"):
            await _open(world, consumer)
        assert await _consumer(world) != consumer


async def test_a_consumer_must_be_active_and_a_stream_has_twenty() -> None:
    async with open_world(replace(BUSY, transition_s=10)) as world:
        world.clock.now += 10
        consumers = [await _consumer(world, f"c{number:02}") for number in range(20)]
        with refused("LimitExceededException"):
            await _consumer(world, "one-too-many")
        with refused("ResourceInUseException"):
            await _open(world, consumers[0])
        world.clock.now += 10
        await _open(world, consumers[0])


async def test_a_large_record_is_one_event() -> None:
    async with open_world(BUSY, options=Options(max_record_kib=10_240)) as world:
        sent = [b"x" * (10 * MIB - 1), b"small"]
        world.put(*sent)
        async with _subscribed(world, await _consumer(world)) as events:
            assert [values(await anext(events)), values(await anext(events))] == [[sent[0]], [sent[1]]]


async def test_a_stream_that_is_cut_breaks_within_an_event_and_nothing_is_lost_by_going_on() -> None:
    async with open_world(BUSY, faults={"SubscribeToShard": [Fault.CUT]}) as world:
        world.put(b"1")
        consumer = await _consumer(world)
        got: list[bytes] = []
        cut = False
        after: dict[str, Any] = {"kind": "TRIM_HORIZON"}
        async with _subscribed(world, consumer) as events:
            try:
                async for event in events:
                    got += values(event)
                    after = {"kind": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": event["ContinuationSequenceNumber"]}
            except ClientPayloadError:
                cut = True
        assert cut
        world.put(b"2")
        world.clock.now += 5
        world.stream.split(FIRST, str(2**127), world.clock.now)
        async with _subscribed(world, consumer, **after) as events:
            got += [value for event in await _all(events) for value in values(event)]
        assert got == [b"1", b"2"]


ANSWERED = [
    (Fault.THROTTLE, "ProvisionedThroughputExceededException", 0),
    (Fault.INTERNAL, "InternalFailure", 0),
    (Fault.UNAVAILABLE, "InternalFailure", 0),
    (Fault.ERROR_AFTER, "InternalFailure", 1),
]


@pytest.mark.parametrize(("fault", "kind", "applied"), ANSWERED)
async def test_faults_with_an_answer(fault: Fault, kind: str, applied: int) -> None:
    async with open_world(faults={"PutRecord": [fault]}) as world:
        with refused(kind):
            await world.kinesis.put_record(StreamName="s", Data=b"1", PartitionKey="k")
        assert len(await world.read()) == applied
        await world.kinesis.put_record(StreamName="s", Data=b"1", PartitionKey="k")
        assert world.server.faults.fired == Counter({f"PutRecord.{fault.value}": 1})


@pytest.mark.parametrize(("fault", "applied"), [(Fault.RESET_BEFORE, 0), (Fault.RESET_AFTER, 1)])
async def test_a_reset_connection_may_have_been_a_success(fault: Fault, applied: int) -> None:
    async with open_world(faults={"PutRecord": [fault]}) as world:
        with pytest.raises((ConnectionClosedError, EndpointConnectionError)):
            await world.kinesis.put_record(StreamName="s", Data=b"1", PartitionKey="k")
        assert len(await world.read()) == applied


async def test_faults_of_reading() -> None:
    script = [Fault.EMPTY, Fault.EXPIRED, Fault.SLOW]
    async with open_world(faults={"GetRecords": script}) as world:
        world.put(b"1")
        world.clock.now += 1
        answer = await world.records(await world.iterator())
        assert [values(answer), answer["MillisBehindLatest"]] == [[], 1000]
        with refused("ExpiredIteratorException"):
            await world.records(answer["NextShardIterator"])
        assert values(await world.records(answer["NextShardIterator"])) == [b"1"]


async def test_a_partial_failure_stores_exactly_what_it_says_and_is_repeatable() -> None:
    failed: list[list[bool]] = []
    for _ in range(2):
        async with open_world(faults={"PutRecords": [Fault.PARTIAL]}) as world:
            records = [{"Data": bytes([n]), "PartitionKey": "k"} for n in range(20)]
            answer = await world.kinesis.put_records(StreamName="s", Records=records)
            failed.append(["ErrorCode" in record for record in answer["Records"]])
            assert answer["FailedRecordCount"] == sum(failed[-1])
            assert await world.read() == [bytes([n]) for n in range(20) if not failed[-1][n]]
            kinds = {record.get("ErrorCode") for record in answer["Records"]}
            assert kinds == {None, "ProvisionedThroughputExceededException", "InternalFailure"}
    assert failed[0] == failed[1]


def test_random_faults_come_at_their_rate_and_are_repeatable() -> None:
    rates = {Fault.THROTTLE: 0.2, Fault.RESET_AFTER: 0.1}
    drawn = list(islice(random_faults(3, rates), 10_000))
    assert drawn == list(islice(random_faults(3, rates), 10_000))
    assert 1_800 < drawn.count(Fault.THROTTLE) < 2_200
    assert 850 < drawn.count(Fault.RESET_AFTER) < 1_150


async def test_a_fault_that_the_operation_cannot_have_is_a_mistake_of_the_test() -> None:
    async def put() -> None:
        async with open_world(faults={"PutRecord": [Fault.CUT]}) as world:
            with pytest.raises(ConnectionClosedError):
                await world.kinesis.put_record(StreamName="s", Data=b"1", PartitionKey="k")

    with pytest.raises(ValueError, match="not of PutRecord"):
        await put()


async def test_what_is_not_served_and_what_is_not_json() -> None:
    async with open_world() as world:
        with refused("UnknownOperationException"):
            await world.kinesis.list_streams()

        def ask() -> bytes:
            headers = {"X-Amz-Target": "Kinesis_20131202.PutRecord"}
            request = urllib.request.Request(world.server.endpoint_url, b"{", headers)
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request)
            with caught.value as error:
                return error.read()

        assert json.loads(await asyncio.to_thread(ask))["__type"] == "SerializationException"


async def test_a_process_of_its_own_serves_counts_faults_and_ends_with_its_parent() -> None:
    with KinesisProcess("--limit", "iterator_s=5", "--fault", "PutRecord.throttle=1.0") as server:
        async with client("kinesis", server.endpoint_url) as kinesis:
            await kinesis.create_stream(StreamName="s", ShardCount=1)
            with pytest.raises(ClientError):
                await kinesis.put_record(StreamName="s", Data=b"1", PartitionKey="k")

        def faults() -> Any:
            with urllib.request.urlopen(f"{server.endpoint_url}/_faults") as answer:
                return json.load(answer)

        counted = await asyncio.to_thread(faults)
        assert counted == {"calls": {"CreateStream": 1, "PutRecord": 1}, "fired": {"PutRecord.throttle": 1}}
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert await asyncio.to_thread(server.process.wait, 30) == 0


@pytest.mark.parametrize("wrong", [["--limit", "speed=1"], ["--fault", "GetRecords.lost=1"], ["--fault", "Get.slow=1"]])
def test_a_wrong_command_line_is_told(wrong: list[str]) -> None:
    command = [sys.executable, "-m", "streamsvc.testing.kinesis_server", *wrong]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error:" in done.stderr
