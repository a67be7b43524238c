"""The commands as a person types them, against a real broker and a local lake."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.parquet as parquet
import pytest
from confluent_kafka import Producer

from loadtest.kafka_broker import KafkaBroker
from streamsvc.testing.access_logs import AccessLogs

pytestmark = pytest.mark.broker

EVERYTHING = "SELECT * FROM input"

CONFIGURATION = """\
service: e2e-{topic}
state: file://{folder}/state
memory: 256MiB
workers: {workers}
http: null
pipelines:
  access:
    source: {{kafka: {{brokers: "{brokers}", topics: [{topic}]}}}}
    decode: {{apache: combined}}
    transform:
      - sql: {sql}
    sink:
      path: file://{folder}/lake
      partition_by: {{date: "strftime(datetime, '%Y-%m-%d')", response: response}}
      buffer: {{size: 8MiB, interval: 500ms}}
    rejects: {{path: file://{folder}/rejects}}
"""


class Service:
    """A topic of its own, a configuration, and the commands over it."""

    def __init__(
        self, broker: KafkaBroker, folder: Path, *, workers: int = 1, sql: str = "SELECT * FROM input"
    ) -> None:
        self.folder = folder
        self.topic = f"access-{uuid4().hex[:8]}"
        broker.create_topic(self.topic, 4)
        self._producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 20})
        self._broker = broker
        self.logs = AccessLogs(7, datetime(2026, 11, 24, tzinfo=UTC), malformed_share=0.01)
        self.file = folder / "pipeline.yaml"
        self.configure(workers=workers, sql=sql)

    def configure(self, *, workers: int = 1, sql: str = EVERYTHING) -> None:
        text = CONFIGURATION.format(
            topic=self.topic, folder=self.folder, brokers=self._broker.bootstrap, workers=workers, sql=sql
        )
        self.file.write_text(text)

    def produce(self, count: int) -> None:
        for number, line in enumerate(self.logs.lines(count)):
            self._producer.produce(self.topic, line, partition=number % 4)
            self._producer.poll(0)
        assert self._producer.flush(30) == 0

    def command(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "streamsvc", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "streamsvc", "run", str(self.file)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def landed(self) -> int:
        return sum(parquet.read_metadata(path).num_rows for path in (self.folder / "lake").rglob("*.parquet"))

    def wait_until_landed(self, rows: int, by: subprocess.Popen[str]) -> None:
        while self.landed() < rows:
            assert by.poll() is None, f"{self.landed()} of {rows} rows landed when it ended"
            time.sleep(0.2)

    def status(self) -> Any:
        return json.loads(self.command("status", str(self.file), "--json"))["access"]

    @property
    def good(self) -> int:
        return self.logs.made - len(self.logs.malformed)


@pytest.mark.parametrize("workers", [1, 2])
def test_until_end_then_on_from_there(broker: KafkaBroker, tmp_path: Path, workers: int) -> None:
    service = Service(broker, tmp_path, workers=workers)
    service.produce(8000)
    summary = tmp_path / "summary.json"
    service.command("run", str(service.file), "--until-end", "--summary", str(summary))
    told = json.loads(summary.read_bytes())
    assert (told["records"], told["rows"], told["rejects"]) == (8000, service.good, len(service.logs.malformed))
    assert service.landed() == service.good
    service.produce(2000)
    service.command("run", str(service.file), "--until-end", "--fail-on-rejects", code=3)
    assert service.landed() == service.good
    status = service.status()
    assert sum(row["lag_records"] for row in status["splits"]) == 0
    assert all(row["pending_segment"] is None for row in status["splits"])


def test_sigterm_lands_what_is_open_and_a_restart_goes_on(broker: KafkaBroker, tmp_path: Path) -> None:
    service = Service(broker, tmp_path)
    service.produce(3000)
    for part in (1, 2):
        with service.running() as process:
            service.wait_until_landed(service.good, process)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate()
            assert process.returncode == 0, errors
        if part == 1:
            service.produce(3000)
    assert service.landed() == service.good


def test_rejects_are_listed_and_replayed_once(broker: KafkaBroker, tmp_path: Path) -> None:
    strict = "SELECT * REPLACE (CASE WHEN response = 404 THEN error('no') ELSE response END AS response) FROM input"
    service = Service(broker, tmp_path, sql=strict)
    service.produce(4000)
    service.command("run", str(service.file), "--until-end")
    listed = json.loads(service.command("rejects", str(service.file), "--json").splitlines()[0])
    malformed = len(service.logs.malformed)
    missing = service.good - service.landed()
    assert missing > 0
    assert sum(listed["reasons"].values()) == malformed + missing
    service.configure()
    replayed = json.loads(service.command("rejects", str(service.file), "--replay", "--json"))
    assert (replayed["landed"], sum(replayed["still_rejected"].values())) == (missing, malformed)
    again = json.loads(service.command("rejects", str(service.file), "--replay", "--json"))
    assert (again["landed"], again["landed_before"]) == (0, missing)
    assert service.landed() == service.good
    assert "malformed" in service.command("rejects", str(service.file))


def test_preview_writes_nothing_and_validate_online_agrees(broker: KafkaBroker, tmp_path: Path) -> None:
    service = Service(broker, tmp_path)
    service.produce(1000)
    shown = service.command("preview", str(service.file))
    assert "date=2026-11-24/response=200/" in shown
    assert not (tmp_path / "lake").exists()
    assert "4 splits" in service.command("validate", str(service.file), "--online")


def test_seek_moves_a_pipeline_back_and_gc_deletes_no_data(broker: KafkaBroker, tmp_path: Path) -> None:
    service = Service(broker, tmp_path)
    service.produce(2000)
    service.command("run", str(service.file), "--until-end")
    split = service.status()["splits"][0]["split"]
    beyond = [str(service.file), "--pipeline", "access", "--to", "99999999", "--split", split]
    service.command("seek", *beyond, code=2)
    assert "epoch 1" in service.command("seek", str(service.file), "--pipeline", "access", "--to", "earliest")
    service.command("run", str(service.file), "--until-end")
    assert service.landed() == 2 * service.good
    service.command("gc", str(service.file))
    assert service.landed() == 2 * service.good
    service.command("run", str(service.file), "--until-end")
    assert service.landed() == 2 * service.good
    assert sum(row["lag_records"] for row in service.status()["splits"]) == 0


def test_bad_usage_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("service: x\nstate: file:///tmp/x\npipelines:\n  a: {sourc: {}}\n")
    done = subprocess.run(
        [sys.executable, "-m", "streamsvc", "validate", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"{file}:4:7: pipelines.a.sourc: unknown key; did you mean `source`?" in done.stderr
    assert "Traceback" not in done.stderr
