"""Results of windows in a stream: all of them, under keys of window and group, whatever fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from streamsvc.app_sinks import keyed_results
from streamsvc.config import Aws, Endpoints
from streamsvc.config_sinks import KeyedSink
from streamsvc.errors import SourceRefused, SourceUnavailable, StreamsvcError
from streamsvc.sinks.kinesis.results import KinesisResults, partition_key
from streamsvc.sinks.kinesis.writer import KinesisWriter
from streamsvc.sinks.retrying import RetryingResults
from streamsvc.sources.kinesis import failures
from streamsvc.testing.kinesis_server import Fault, random_faults
from streamsvc.testing.kinesis_server.streams import Options
from tests.kinesis_world import World, open_world
from tests.windows_results import WINDOW, finished, key, value


def results_in(world: World, stream: str = "s") -> KinesisResults:
    """Waiting takes no time, and little of it is waited."""

    async def sleep(seconds: float) -> None:
        world.clock.now += seconds

    @asynccontextmanager
    async def open_writer() -> AsyncIterator[KinesisWriter]:
        def explain(error: BaseException, action: str) -> StreamsvcError:
            return failures.mapped(error, action)

        async with KinesisWriter(world.kinesis, stream, explain, sleep=sleep, clock=world.clock) as writer:
            yield writer

    return KinesisResults(open_writer, stream)


async def stored(world: World) -> list[tuple[str, str]]:
    found = []
    for shard in world.stream.shards.values():
        answer = await world.records(await world.iterator(shard=shard.id))
        found += [(record["PartitionKey"], record["Data"].decode()) for record in answer["Records"]]
    return sorted(found)


async def test_a_result_is_a_record() -> None:
    async with open_world(shards=2) as world, results_in(world) as results:
        assert await results.publish(WINDOW, finished(200, 404)) == []
        assert await results.publish(WINDOW, finished()) == []
        assert await stored(world) == [(key(200), value(200)), (key(404), value(404))]


async def test_made_of_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    async with open_world() as world:
        aws = Aws(region="us-east-1", endpoints=Endpoints(kinesis=world.server.endpoint_url))
        async with keyed_results(KeyedSink.model_validate({"kinesis": {"stream": "s"}}), aws) as results:
            await results.publish(WINDOW, finished(200))
        assert await stored(world) == [(key(200), value(200))]


async def test_what_fails_comes_again_and_is_the_same() -> None:
    faults = {"PutRecords": [Fault.PARTIAL, Fault.THROTTLE, Fault.PARTIAL]}
    async with open_world(faults=faults) as world, results_in(world) as results:
        await results.publish(WINDOW, finished(*range(600)))
        found = await stored(world)
        assert dict(found) == {key(group): value(group) for group in range(600)}
        await results.publish(WINDOW, finished(*range(600)))
        assert set(await stored(world)) == set(found)


@pytest.mark.parametrize("seed", range(3))
async def test_the_last_value_of_a_key_is_the_newest(seed: int) -> None:
    """Whoever makes the results of a window makes the same. Were they others, the older would still be in front."""
    rates = {Fault.PARTIAL: 0.5, Fault.THROTTLE: 0.1, Fault.RESET_AFTER: 0.1}
    async with open_world(faults={"PutRecords": random_faults(seed, rates)}) as world, results_in(world) as results:
        for text in ("first", "second", "third"):
            await results.publish(WINDOW, finished(*range(600), text=text))
        answer = await world.records(await world.iterator())
        newest = {record["PartitionKey"]: record["Data"].decode() for record in answer["Records"]}
        assert newest == {key(group): value(group, "third") for group in range(600)}
        assert world.server.faults.fired["PutRecords.partial"] > 0


async def test_a_stream_that_is_not_there_is_refused() -> None:
    async with open_world() as world, results_in(world, "missing") as results:
        with pytest.raises(SourceRefused, match="there is no such resource"):
            await results.publish(WINDOW, finished(200))


async def test_no_permission_is_refused() -> None:
    def deny(**_: Any) -> None:
        answer: Any = {"Error": {"Code": "AccessDeniedException", "Message": "not yours"}}
        raise ClientError(answer, "PutRecords")

    async with open_world() as world, results_in(world) as results:
        world.kinesis.meta.events.register("before-call.kinesis.PutRecords", deny)
        with pytest.raises(SourceRefused, match=r"Allow kinesis:PutRecords"):
            await results.publish(WINDOW, finished(200))


async def test_a_service_that_fails_for_long_is_told_and_waited_for() -> None:
    told = []
    faults = {"PutRecords": [Fault.THROTTLE] * 40}
    async with open_world(faults=faults) as world, results_in(world) as inner:

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(0)

        results = RetryingResults(inner, lambda error: told.append(error and type(error)), sleep=sleep)
        await results.publish(WINDOW, finished(200))
        assert (told[0], told[-1]) == (SourceUnavailable, None)
        assert await stored(world) == [(key(200), value(200))]


async def test_a_result_that_is_too_large() -> None:
    async with open_world(options=Options(max_record_kib=1024)) as world, results_in(world) as results:
        with pytest.raises(SourceRefused, match="bytes with its key, and the stream takes"):
            await results.publish(WINDOW, finished(200, text="x" * 2**20))
        await results.publish(WINDOW, finished(200))
        assert await stored(world) == [(key(200), value(200))]


def test_a_key_that_is_too_long_ends_in_a_hash() -> None:
    long, other = "x" * 257, "x" * 256 + "y"
    assert partition_key("x" * 256) == "x" * 256
    assert len(partition_key(long)) == 256
    assert partition_key(long).startswith("x" * 192)
    assert partition_key(long) != partition_key(other)
    assert partition_key(long) == partition_key(long)
