"""``engine: kcl`` by the command, and both engines in turn over one state: every record once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.kcl_takeover import (
    ENVIRONMENT,
    QUICK,
    Aws,
    Producer,
    config_file,
    lake,
    running_streamsvc,
    start_streamsvc,
    wait_until,
)
from streamsvc.errors import ConfigError
from streamsvc.sources.kinesis.kcl.settings import find_runtime
from tests.kinesis_emulators import DynamoDb, EmulatorMissing, KinesisLocal

KCL = {"engine": "kcl", "kcl": {"properties": QUICK}}


@pytest.fixture
def aws() -> Iterator[Aws]:
    try:
        find_runtime()
        with KinesisLocal() as kinesis, DynamoDb() as dynamodb:
            yield Aws(kinesis.endpoint_url, dynamodb.endpoint_url)
    except (EmulatorMissing, ConfigError) as missing:
        pytest.skip(f"no real KCL: {missing}")


def land_all(folder: Path, file: Path, producer: Producer, count: int) -> None:
    """Run until all that was put, and so many more, are in the lake."""
    with running_streamsvc(folder, file):
        producer.put(count)
        wait_until("everything lands", lambda: len(lake(folder)) >= len(producer.values))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_engines_take_turns(aws: Aws, tmp_path: Path) -> None:
    aws.create_stream(2)
    producer = Producer(tmp_path, aws)
    land_all(tmp_path, config_file(tmp_path, aws, **KCL), producer, 400)
    aws.split("shardId-000000000000", 0.5)
    land_all(tmp_path, config_file(tmp_path, aws), producer, 400)
    aws.split("shardId-000000000001", 0.5)
    land_all(tmp_path, config_file(tmp_path, aws, **KCL), producer, 400)
    assert sorted(lake(tmp_path)) == producer.values


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_shard_is_handed_over_and_a_killed_worker_is_missed(aws: Aws, tmp_path: Path) -> None:
    aws.create_stream(4)
    producer = Producer(tmp_path, aws)
    file = config_file(tmp_path, aws, **KCL)
    with running_streamsvc(tmp_path, file, "left"):
        producer.put(400)
        wait_until("the first worker lands everything", lambda: len(lake(tmp_path)) == 400)
        right = start_streamsvc(tmp_path, file, "right")
        try:
            wait_until("the second worker has a shard", lambda: "right-0" in put_and_look(producer, aws))
            producer.put(200)
            wait_until("both land everything", lambda: len(lake(tmp_path)) >= len(producer.values))
        finally:
            right.kill()
        producer.put(200)
        wait_until("the first worker lands everything", lambda: len(lake(tmp_path)) >= len(producer.values))
    assert sorted(lake(tmp_path)) == producer.values


def put_and_look(producer: Producer, aws: Aws) -> set[str]:
    """Who has shards now. The KCL shares out by what workers have to do, so there must be something to do."""
    producer.put(50)
    return {row["leaseOwner"]["S"] for row in aws.rows().values() if "leaseOwner" in row}


def test_a_machine_without_java_is_told_what_to_install(tmp_path: Path) -> None:
    file = config_file(tmp_path, Aws("http://127.0.0.1:1", "http://127.0.0.1:1"), **KCL)
    environment = {**os.environ, **ENVIRONMENT, "JAVA_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "streamsvc", "run", str(file)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "apt install openjdk-17-jre-headless" in ended.stderr
    assert "Traceback" not in ended.stderr
