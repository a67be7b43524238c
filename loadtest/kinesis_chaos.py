"""Kinesis to Parquet while the stream is resharded and workers are killed; then the audit, and the order of each key.

``python -m loadtest.kinesis_chaos --kills 20``
    8 shards, half of the records aggregated, two splits and a merge while producing, two workers that share leases in
    DynamoDB and are killed at random (SIGKILL, restarted each time), answers of Kinesis that fail; then ``run
    --until-end``; then the audit, whose exit code this is, unless a key is out of order.

A key is in order if its records lie in the stream as they were stamped (``_position``), and no object holds an earlier
record of it that was published after an object with a later one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import duckdb

from loadtest.chaos import Scenario, TooLong, kill_at_random
from loadtest.kinesis_stage import KinesisStage, kinesis_servers
from loadtest.processes import ProcessFailed
from loadtest.stage import last_json, local_store

_FAULTS = ("throttle=0.02", "internal=0.02", "reset_before=0.01", "expired=0.01")

_OUT_OF_ORDER = """
    WITH landed AS (
        SELECT _key AS key, _position AS position, filename,
               regexp_extract(filename, '([^/]+)[.]parquet$', 1) AS segment,
               regexp_extract(agent, 'stamp/[^/]+/[0-9]+/([0-9]+)/', 1)::BIGINT AS seq
        FROM read_parquet(?, filename = true, union_by_name = true)
    ), published AS (SELECT * FROM landed JOIN times USING (filename)),
    pairs AS (
        SELECT *, lag(position) OVER earlier AS position_before, lag(segment) OVER earlier AS segment_before,
               lag(published_ns) OVER earlier AS published_before
        FROM published WINDOW earlier AS (PARTITION BY key ORDER BY seq)
    )
    SELECT count(*) FILTER (position_before >= position),
           count(*) FILTER (segment_before != segment AND published_before > published_ns),
           count(DISTINCT key)
    FROM pairs
"""


def order_of_keys(lake: str) -> tuple[int, int, int]:
    """How often a key is out of order by position, how often by the time of publishing, and how many keys there are.

    lake: ``file:///folder``"""
    root = Path(urlsplit(lake).path)
    files = [str(path) for path in root.rglob("*.parquet")]
    sql = duckdb.connect()
    sql.execute("CREATE TABLE times (filename VARCHAR, published_ns BIGINT)")
    sql.executemany("INSERT INTO times VALUES (?, ?)", [(name, Path(name).stat().st_mtime_ns) for name in files])
    found = sql.execute(_OUT_OF_ORDER, [files]).fetchall()[0]
    return int(found[0]), int(found[1]), int(found[2])


def chaos(stage: KinesisStage, scenario: Scenario) -> int:
    """The whole run; prints what happened."""
    began = time.monotonic()
    kills = kill_at_random(stage, scenario)
    produced = last_json(stage.directory / "producer.log")
    print(f"kills: {sum(kills.values())} {kills}", flush=True)
    print(f"produced: {produced}", flush=True)
    print(f"finished: {stage.finish(stage.configuration('finish'), scenario.limit_s)}", flush=True)
    print(f"segments: {stage.store.visible.census()}", flush=True)
    print(f"found claimed and undecided, and finished: {stage.said('finishing a segment')}", flush=True)
    code, text = stage.audit()
    print(text, end="")
    by_position, by_time, keys = order_of_keys(stage.store.lake)
    print(f"order of {keys} keys: violations by position {by_position}, by time of publishing {by_time}")
    print(f"{time.monotonic() - began:.0f} s in all", flush=True)
    if (produced["splits"], produced["merges"]) != (2, 1):
        print("VOID: there were not two splits and a merge", flush=True)
        return code or 2
    return code or (1 if by_position or by_time else 0)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.kinesis_chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--records", type=int, default=200_000, help="at least so many are produced")
    parser.add_argument("--rate", type=float, default=2_000.0, help="records a second")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--retrieval", choices=("polling", "fanout"), default="polling")
    parser.add_argument("--failover", default="3s", help="after which the leases of a dead worker are taken")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, help="keep everything here; default: a temporary one")
    given = parser.parse_args(arguments)
    scenario = Scenario(given.kills, given.records, given.rate, seed=given.seed)
    faults = [part for fault in _FAULTS for part in ("--fault", f"GetRecords.{fault}")]
    with tempfile.TemporaryDirectory(prefix="kinesis-chaos-") as temporary:
        directory = given.directory or Path(temporary)
        with (
            kinesis_servers("--unthrottled", "--seed", str(given.seed), *faults) as servers,
            local_store(directory) as store,
        ):
            servers.client().create_stream(StreamName="access", ShardCount=given.shards)
            stage = KinesisStage(
                directory=directory,
                brokers="",
                topic="access",
                store=store,
                include=("_key", "_split", "_position"),
                servers=servers,
                options={"retrieval": given.retrieval, "failover": given.failover},
                reshard_every=given.records // 4,
            )
            try:
                return chaos(stage, scenario)
            except (ProcessFailed, TooLong) as failure:
                print(failure, file=sys.stderr)
                return 1


if __name__ == "__main__":
    sys.exit(main())
