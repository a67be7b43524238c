"""The promise itself, on real parts: kills, faults and a stopped worker lose nothing and double nothing.

Two service processes, a real Kafka, an S3 behind a proxy that fails a tenth of the calls, the audit by plain listing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtest import million
from loadtest.chaos import Scenario, chaos, stop_in_mid_landing
from loadtest.kafka_broker import KafkaBroker
from loadtest.stage import Stage, local_store, s3_store
from streamsvc.testing.access_logs import Form

pytestmark = pytest.mark.broker


@contextmanager
def faulty_stage(directory: Path, brokers: str, topic: str, delay_s: float) -> Iterator[Stage]:
    with s3_store(directory, fault_share=0.1, delay_s=delay_s) as store:
        yield Stage(directory, brokers, topic, store)


@pytest.mark.timeout(150)
def test_random_kills_and_a_faulty_store_lose_and_double_nothing(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scenario = Scenario(kills=5, records=60_000, rate=4_000.0, pause_s=(1.0, 5.0), limit_s=60.0)
    with faulty_stage(tmp_path, broker.bootstrap, new_topic(partitions=4), 0.01) as stage:
        assert chaos(stage, scenario) == 0, capfd.readouterr().out


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_fifty_kills(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with faulty_stage(tmp_path, broker.bootstrap, new_topic(partitions=4), 0.05) as stage:
        assert chaos(stage, Scenario()) == 0, capfd.readouterr().out


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_worker_stopped_in_mid_landing_publishes_nothing_after_it_wakes(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with faulty_stage(tmp_path, broker.bootstrap, new_topic(partitions=4), 0.1) as stage:
        assert stop_in_mid_landing(stage, Scenario(limit_s=120.0)) == 0, capfd.readouterr().out


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("form", "workers"), [("combined", 1), ("combined", 2), ("json", 1)])
def test_a_million_records(
    broker: KafkaBroker,
    new_topic: Callable[..., str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    form: Form,
    workers: int,
) -> None:
    with local_store(tmp_path) as store:
        stage = Stage(tmp_path, broker.bootstrap, new_topic(partitions=4), store, form)
        assert million.run(stage, 1_000_000, workers, malformed_share=0.001) == 0, capfd.readouterr().out
