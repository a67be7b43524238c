"""How long a killed worker's shards stand still: from SIGKILL until the first segment of another worker holds each.

``python -m loadtest.kinesis_recovery --kills 10``
    Two workers share 4 shards by leases with a failover interval of 10 s, a producer writes all the time. A worker is
    killed, and started again once the other has landed records of all that it had. The time includes the interval
    of a segment (1 s) and its landing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import boto3
from mypy_boto3_dynamodb import DynamoDBClient

from loadtest.chaos import INSTANCES, Scenario, TooLong, Workers, acked, at_work, wait_until
from loadtest.kinesis_stage import CREDENTIALS, KinesisStage, kinesis_servers
from loadtest.processes import ProcessFailed
from loadtest.stage import PIPELINE, local_store

_STREAM = "access"
_WITHIN_S = 120.0


class Recovery:
    """Kills workers of a stage, and looks when their shards go on."""

    def __init__(self, stage: KinesisStage, leases: DynamoDBClient) -> None:
        self._stage = stage
        self._leases = leases
        self._claims = Path(urlsplit(stage.store.state).path) / PIPELINE / "log"

    def measure(self, workers: Workers, instance: str) -> float:
        """Seconds; the worker runs again afterwards, and both have shards."""
        wait_until("both workers have shards", _WITHIN_S, lambda: all(self._owned_by(each) for each in INSTANCES))
        shards = self._owned_by(instance)
        killed_at = time.time()
        workers[instance].kill()
        others = self._newest_claims(shards)
        wait_until("its shards are read again", _WITHIN_S, lambda: self._all_newer(shards, others), every_s=0.05)
        last = max(self._newest_claims(shards).values())
        workers.start(instance)
        return last - killed_at

    def _owned_by(self, instance: str) -> list[str]:
        """The shards in the lease table that name this worker."""
        rows = self._leases.scan(TableName=f"loadtest-{_STREAM}.{PIPELINE}", ConsistentRead=True)["Items"]
        owned = [row for row in rows if row.get("leaseOwner", {}).get("S", "").startswith(instance)]
        return [row["leaseKey"]["S"] for row in owned if row["checkpoint"]["S"] != "SHARD_END"]

    def _newest_claims(self, shards: Sequence[str]) -> dict[str, float]:
        """When the last claim of each shard was made. A dead worker makes none, so a newer one is another's."""
        newest = dict.fromkeys(shards, 0.0)
        for claim in self._claims.rglob("*~*"):
            shard = unquote(claim.parent.name).partition("@")[2].partition(".")[0]
            if shard in newest:
                newest[shard] = max(newest[shard], claim.stat().st_mtime)
        return newest

    def _all_newer(self, shards: Sequence[str], before: dict[str, float]) -> bool:
        now = self._newest_claims(shards)
        return all(now[shard] > before[shard] for shard in shards)


def run(stage: KinesisStage, kills: int, rate: float) -> list[float]:
    """The seconds of each kill."""
    leases = boto3.client(
        "dynamodb",
        endpoint_url=stage.servers.dynamodb,
        region_name=CREDENTIALS["AWS_REGION"],
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    seconds: list[float] = []
    with at_work(stage, Scenario(rate=rate, interval="1s")) as (workers, producer):
        wait_until("some records are produced", 60.0, lambda: acked(stage) > 0)
        recovery = Recovery(stage, leases)
        wait_until("the leases are shared", _WITHIN_S, lambda: stage.said("leases gained") >= len(INSTANCES))
        for number in range(kills):
            instance = INSTANCES[number % len(INSTANCES)]
            seconds.append(recovery.measure(workers, instance))
            print(f"{number + 1}: {instance} killed, its shards were read again after {seconds[-1]:.1f} s", flush=True)
            producer.check_running()
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.kinesis_recovery", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rate", type=float, default=500.0, help="records a second")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--failover", default="10s")
    given = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="kinesis-recovery-") as temporary,
        kinesis_servers("--unthrottled") as servers,
        local_store(Path(temporary)) as store,
    ):
        servers.client().create_stream(StreamName=_STREAM, ShardCount=given.shards)
        stage = KinesisStage(
            directory=Path(temporary),
            brokers="",
            topic=_STREAM,
            store=store,
            servers=servers,
            options={"failover": given.failover},
        )
        try:
            seconds = run(stage, given.kills, given.rate)
        except (ProcessFailed, TooLong) as failure:
            print(failure, file=sys.stderr)
            return 1
    print(f"kills {len(seconds)}, p50 {statistics.median(seconds):.1f} s, max {max(seconds):.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
