"""What is charted of Kinesis, under AWS's names, against what the server did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from streamsvc.contracts import Revoked
from streamsvc.core.kinesis_positions import END
from streamsvc.testing.kinesis_server import Fault
from tests.kinesis_emulators import DynamoDb
from tests.kinesis_sources import Follower, Scene, open_scene, revoked


class Charts:
    """What a Prometheus would see of a scene's sources."""

    def __init__(self, scene: Scene) -> None:
        families = text_string_to_metric_families(scene.metrics.exposition().decode())
        self._samples = [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == f"streamsvc_kinesis_{name}" and labels.items() <= sample.labels.items()
        )

    def splits(self) -> set[str]:
        return {s.labels["split"] for s in self._samples if s.name == "streamsvc_kinesis_millis_behind_latest"}


async def until(scene: Scene, name: str, values: Iterable[float]) -> None:
    async with asyncio.timeout(20):
        while Charts(scene).value(name) not in values:
            await asyncio.sleep(0.02)


async def test_reading_by_polling() -> None:
    faults = {"GetRecords": [Fault.THROTTLE, Fault.INTERNAL]}
    async with open_scene(shards=2, faults=faults) as scene, scene.source() as source:
        scene.put(b"12345", b"678", shard=0, at=time.time() - 60)
        follower = Follower(source)
        splits = await follower.assigned(2)
        await follower.read_until(2)
        charts = Charts(scene)
        assert charts.value("get_records_total", result="failed") == 2
        assert charts.value("read_provisioned_throughput_exceeded_total") == 1
        assert charts.value("get_records_total", result="success") == charts.value("get_records_latency_seconds_count")
        assert charts.value("records_total", operation="GetRecords") == 2
        assert charts.value("bytes_total", operation="GetRecords") == 8
        assert charts.splits() <= splits
        await until(scene, "millis_behind_latest", [0])
        source.stop_reading(sorted(splits)[:1])
        assert Charts(scene).splits() <= set(sorted(splits)[1:])


async def test_a_shard_that_is_read_late_is_behind() -> None:
    async with open_scene() as scene, scene.source() as source:
        scene.put(*(b"x" * 1000 for _ in range(20_000)), at=time.time() - 60)
        follower = Follower(source)
        await follower.assigned()
        await follower.read()
        assert 50_000 < Charts(scene).value("millis_behind_latest") < 90_000
        await follower.read_until(20_000)
        await until(scene, "millis_behind_latest", [0])


async def test_a_shard_that_ended_is_charted_no_longer() -> None:
    async with open_scene() as scene, scene.source() as source:
        scene.put(b"x")
        follower = Follower(source)
        (parent,) = await follower.assigned()
        scene.stream.split(scene.shards[0].id, str(2**127), time.time())
        await follower.to_end(parent)
        assert Charts(scene).splits() == {parent}
        source.acknowledge({parent: END})
        assert (await revoked(follower)) == Revoked((parent,), 0.0)
        assert parent not in Charts(scene).splits()


async def test_reading_by_fan_out() -> None:
    faults = {"SubscribeToShard": [Fault.INTERNAL]}
    async with open_scene(faults=faults) as scene, scene.source(retrieval="fanout") as source:
        scene.put(b"12345", b"678")
        follower = Follower(source)
        await follower.assigned()
        await follower.read_until(2)
        charts = Charts(scene)
        assert charts.value("subscribe_to_shard_total", result="failed") == 1
        assert charts.value("subscribe_to_shard_total", result="success") == 1
        assert charts.value("subscribe_to_shard_events_total") >= 1
        assert charts.value("records_total", operation="SubscribeToShardEvent") == 2
        assert charts.value("bytes_total", operation="SubscribeToShardEvent") == 8
        assert charts.value("get_records_total") == 0


async def test_leases(dynamodb: DynamoDb) -> None:
    async with open_scene(shards=2, dynamodb=dynamodb.endpoint_url) as scene:
        table: dict[str, Any] = {"leases": "dynamodb", "application": f"metrics-{time.time_ns()}", "failover": 2}
        async with scene.source(**table) as source:
            follower = Follower(source)
            splits = await follower.assigned(2)
            charts = Charts(scene)
            assert (charts.value("leases_held"), charts.value("leases_taken_total")) == (2, 2)
            source.release(sorted(splits)[:1])
            assert Charts(scene).value("leases_held") == 1
            assert Charts(scene).value("leases_lost_total") == 0


async def test_shards_above_the_limit_of_a_worker_are_left_and_told(dynamodb: DynamoDb) -> None:
    async with open_scene(shards=3, dynamodb=dynamodb.endpoint_url) as scene:
        application = f"limited-{time.time_ns()}"
        async with scene.source(leases="dynamodb", application=application, failover=2, max_leases=2) as source:
            await Follower(source).assigned(2)
            while source.problem is None:
                await asyncio.sleep(0.01)
            assert "1 shards" in source.problem
            assert "max_leases" in source.problem
            assert Charts(scene).value("leases_held") == 2
