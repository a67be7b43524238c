"""A KCL application is stopped, streamsvc goes on where it was, and later the KCL goes on where streamsvc was.

``python -m loadtest.kcl_takeover``
    A real KCL 3 (MultiLangDaemon, Java 17) reads part of a stream that is split meanwhile, half of it KPL aggregates,
    and is stopped. ``streamsvc run`` with ``start: committed`` takes its lease table over and lands the rest, through
    another split. Then the KCL is started again. The audit: every record once, in the part of the first KCL up to its
    checkpoints, in the lake, or in the part of the second. Kinesis is kinesis-local, DynamoDB is moto's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from loadtest import kcl_recorder
from loadtest.processes import REPOSITORY, Child
from streamsvc.core.kinesis_positions import END, KclCheckpoint, position_after, position_of_checkpoint
from streamsvc.records import Position
from streamsvc.sources.kinesis.kcl.settings import DaemonSettings, command_line, find_runtime, write_files
from tests.kinesis_emulators import DynamoDb, KinesisLocal, client

STREAM, APPLICATION, REGION = "access", "takeover", "us-east-1"

QUICK = {
    "shardSyncIntervalMillis": "500",
    "leaseAssignmentIntervalMillis": "2000",
    "workerMetricsReporterFreqInMillis": "1000",
    "parentShardPollIntervalMillis": "500",
    "idleTimeBetweenReadsInMillis": "250",
}
"""The KCL's own pauses are made for fleets."""

LIMIT_S = 240.0

STREAMSVC = [sys.executable, "-m", "streamsvc"]

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": REGION}


class TooLong(Exception):
    """Something did not happen in its time."""


@dataclass(frozen=True)
class Given:
    """A record as a KCL gave it to its application."""

    shard: str
    position: Position
    value: str


class Kcl:
    """A KCL application with the recorder; stopped when the block is left. ``limit``: records of each shard."""

    def __init__(self, folder: Path, endpoints: Mapping[str, str], limit: int) -> None:
        self._folder = folder
        self.records = folder / "records"
        self.records.mkdir(parents=True)
        settings = DaemonSettings(
            stream=STREAM,
            application=APPLICATION,
            table=APPLICATION,
            worker=folder.name,
            region=REGION,
            failover_s=3.0,
            endpoints=endpoints,
            properties=QUICK,
        )
        write_files(folder, settings, debug=False)
        recorder = [sys.executable, "-I", "-S", kcl_recorder.__file__, str(self.records), str(limit)]
        (folder / "child.sh").write_text(f"exec {shlex.join(recorder)}\n")
        self._command = command_line(find_runtime(), settings)

    def __enter__(self) -> Kcl:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={**os.environ, **ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        """As an operator stops it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def given(self) -> list[Given]:
        return [given for file in sorted(self.records.iterdir()) for given in _given(file)]

    def began(self) -> dict[str, KclCheckpoint]:
        """Of each shard that it was given: the checkpoint that it first was given it with."""
        began: dict[str, KclCheckpoint] = {}
        for file in sorted(self.records.iterdir(), key=lambda file: file.stat().st_ctime_ns):
            first = file.read_text().partition("\n")[0]
            if first:
                shard, sequence, sub = json.loads(first)
                began.setdefault(shard, KclCheckpoint(sequence, sub))
        return began


def _given(file: Path) -> Iterator[Given]:
    lines = file.read_text().split("\n")[:-1]
    if lines:
        shard = json.loads(lines[0])[0]
        for line in lines[1:]:
            sequence, sub, value = json.loads(line)
            yield Given(shard, position_after(sequence, sub), value)


class Aws:
    """The emulators, and what the run does with them."""

    def __init__(self, kinesis: str, dynamodb: str) -> None:
        self.endpoints = {"kinesis": kinesis, "dynamodb": dynamodb}

    def ask(self, service: str, operation: str, **arguments: Any) -> Any:
        async def asked() -> Any:
            async with client(service, self.endpoints[service]) as asking:
                return await getattr(asking, operation)(**arguments)

        return asyncio.run(asked())

    def create_stream(self, shards: int) -> None:
        self.ask("kinesis", "create_stream", StreamName=STREAM, ShardCount=shards)
        self._wait_until_active()

    def split(self, shard: str, at: float) -> None:
        """at: which part of its hash keys the first child gets"""
        shards = self.ask("kinesis", "list_shards", StreamName=STREAM)["Shards"]
        hashes = next(each["HashKeyRange"] for each in shards if each["ShardId"] == shard)
        first, last = int(hashes["StartingHashKey"]), int(hashes["EndingHashKey"])
        key = first + int((last - first) * at)
        self.ask("kinesis", "split_shard", StreamName=STREAM, ShardToSplit=shard, NewStartingHashKey=str(key))
        self._wait_until_active()

    def _wait_until_active(self) -> None:
        def active() -> bool:
            answer = self.ask("kinesis", "describe_stream_summary", StreamName=STREAM)
            return bool(answer["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE")

        wait_until("the stream is active", active)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The lease table, as it is."""
        return {row["leaseKey"]["S"]: row for row in self.ask("dynamodb", "scan", TableName=APPLICATION)["Items"]}

    def checkpoints(self) -> dict[str, Position]:
        """Of each shard, where its row says to go on."""
        checkpoints = {
            shard: KclCheckpoint(row["checkpoint"]["S"], int(row["checkpointSubSequenceNumber"]["N"]))
            for shard, row in self.rows().items()
        }
        return {shard: position_of_checkpoint(checkpoint) or "" for shard, checkpoint in checkpoints.items()}


class Producer:
    """``streamsvc put``, and everything that it has put."""

    def __init__(self, folder: Path, aws: Aws) -> None:
        self._folder = folder
        self._where = ["--region", REGION, "--endpoint-url", aws.endpoints["kinesis"]]
        self.values: list[str] = []

    def put(self, count: int) -> None:
        """Half of them packed, half of them as they are."""
        values = [f"record {number:07}" for number in range(len(self.values), len(self.values) + count)]
        self._put(values[: count // 2], "--kpl")
        self._put(values[count // 2 :])
        self.values += values

    def _put(self, values: Sequence[str], *options: str) -> None:
        file = self._folder / "lines"
        file.write_text("".join(f"{value}\n" for value in values))
        command = [*STREAMSVC, "put", str(file), "--stream", STREAM, *self._where, *options]
        subprocess.run(
            command, env={**os.environ, **ENVIRONMENT}, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL
        )


def wait_until(what: str, is_so: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    give_up_at = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > give_up_at:
            raise TooLong(f"{what}: not within {limit_s:.0f} s")
        time.sleep(0.2)


def config_file(folder: Path, aws: Aws, **source: object) -> Path:
    file = folder / "takeover.yaml"
    document = {
        "service": "takeover",
        "state": f"file://{folder}/state",
        "http": None,
        "aws": {"region": REGION, "endpoints": aws.endpoints},
        "pipelines": {
            "lines": {
                "source": {
                    "kinesis": {"stream": STREAM, "application": APPLICATION, "failover": "3s", **source},
                },
                "decode": {"raw": {"type": "string"}},
                "include": ["_split", "_position"],
                "sink": {"path": f"file://{folder}/lake", "buffer": {"interval": "2s"}},
            }
        },
    }
    file.write_text(json.dumps(document))
    return file


def lake(folder: Path) -> list[str]:
    path = folder / "lake"
    if not path.exists():
        return []
    return [str(value) for value in ds.dataset(path, format="parquet").to_table(columns=["value"])["value"].to_pylist()]


def start_streamsvc(folder: Path, file: Path, worker: str) -> Child:
    environment = {**ENVIRONMENT, "STREAMSVC_INSTANCE": worker}
    return Child([*STREAMSVC, "run", str(file)], folder / f"{worker}.log", environment)


@contextmanager
def running_streamsvc(folder: Path, file: Path, worker: str = "streamsvc") -> Iterator[Child]:
    """Ended by SIGTERM, as an operator does."""
    child = start_streamsvc(folder, file, worker)
    try:
        yield child
    finally:
        child.signal(signal.SIGTERM)
        child.wait(60.0)


@dataclass(frozen=True)
class Verdict:
    produced: int
    first: int
    landed: int
    second: int
    lost: list[str]
    duplicated: list[str]

    def __str__(self) -> str:
        return (
            f"produced {self.produced}: first KCL {self.first}, lake {self.landed}, second KCL {self.second};"
            f" lost {len(self.lost)}, duplicated {len(self.duplicated)}"
        )


def audit(produced: Sequence[str], first: Sequence[str], landed: Sequence[str], second: Sequence[str]) -> Verdict:
    seen = Counter([*first, *landed, *second])
    return Verdict(
        len(produced),
        len(first),
        len(landed),
        len(second),
        lost=sorted(set(produced) - seen.keys()),
        duplicated=sorted(value for value, count in seen.items() if count > 1),
    )


def first_kcl(folder: Path, aws: Aws, producer: Producer, records: int) -> list[str]:
    """Runs it through a split, until it has taken its part of each shard. Answers what its checkpoints cover."""
    with Kcl(folder / "first", aws.endpoints, limit=records // 10) as kcl:
        wait_until("the KCL has made its leases", lambda: len(kcl.began()) == 2)
        producer.put(records)
        aws.split(kcl_recorder.WHOLE, 0.3)
        producer.put(records)

        def has_its_part() -> bool:
            taken = Counter(given.shard for given in kcl.given())
            return (
                len(taken) == 4 and min(taken[shard] for shard in taken if shard != kcl_recorder.WHOLE) >= records // 10
            )

        wait_until("the KCL has taken its part of each shard", has_its_part)
        wait_until("the parent is checkpointed at its end", lambda: aws.checkpoints()[kcl_recorder.WHOLE] == END)
    through = aws.checkpoints()
    covered = [given for given in kcl.given() if given.position <= through[given.shard]]
    assert any(not through[shard].endswith(".00000001") for shard in through if through[shard] != END), (
        "no checkpoint of the KCL lies in an aggregate: the run shows less than it should"
    )
    return [given.value for given in covered]


def takeover(folder: Path, aws: Aws, records: int) -> Verdict:
    aws.create_stream(2)
    producer = Producer(folder, aws)
    print("a KCL 3 reads, through a split ...", flush=True)
    first = first_kcl(folder, aws, producer, records)
    rows = aws.rows()
    (folder / "rows_of_the_kcl.json").write_text(json.dumps(rows, indent=1, sort_keys=True))
    print(f"stopped at {len(first)} records; its rows:", json.dumps(rows, sort_keys=True), flush=True)

    began = time.monotonic()
    with running_streamsvc(folder, config_file(folder, aws, start="committed")):
        wait_until("streamsvc lands something", lambda: bool(lake(folder)))
        print(f"streamsvc has taken over: first object after {time.monotonic() - began:.1f} s", flush=True)
        aws.split("shardId-000000000001", 0.5)
        producer.put(records)
        wait_until("streamsvc lands the rest", lambda: len(first) + len(lake(folder)) >= len(producer.values))
        left_at = _settled(aws)
    landed = lake(folder)
    print(f"streamsvc has landed {len(landed)} records; its checkpoints:", json.dumps(aws.checkpoints()), flush=True)

    began = time.monotonic()
    with Kcl(folder / "second", aws.endpoints, limit=sys.maxsize) as kcl:
        producer.put(records)
        wanted = set(producer.values[-records:])
        wait_until("the KCL takes the last records", lambda: wanted <= {given.value for given in kcl.given()})
        print(f"the KCL has gone on, and ended after {time.monotonic() - began:.1f} s", flush=True)
    for shard, checkpoint in kcl.began().items():
        assert position_of_checkpoint(checkpoint) == left_at[shard], (shard, checkpoint, left_at[shard])
    return audit(producer.values, first, landed, [given.value for given in kcl.given()])


def _settled(aws: Aws) -> dict[str, Position]:
    """The checkpoints, once they no longer move: they are written behind the landing."""
    before: dict[str, Position] = {}
    while (now := aws.checkpoints()) != before:
        before = now
        time.sleep(2.0)
    return now


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=3000, help="put in each of the four parts")
    parser.add_argument("--keep", type=Path, help="a folder for logs, rows and lake; else they are deleted")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="kcl-takeover-") as temporary,
        KinesisLocal() as kinesis,
        DynamoDb() as dynamodb,
    ):
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        verdict = takeover(folder, Aws(kinesis.endpoint_url, dynamodb.endpoint_url), options.records)
    print(verdict)
    for name in ("lost", "duplicated"):
        for value in getattr(verdict, name)[:10]:
            print(f"{name}: {value}")
    return 1 if verdict.lost or verdict.duplicated else 0


if __name__ == "__main__":
    sys.exit(main())
