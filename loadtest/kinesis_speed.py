"""How quick and how fast the Kinesis source is, against the in-process server in a process of its own.

``python -m loadtest.kinesis_speed``
    latency      from the call that puts a record to its decoded batch in hand, a record at a time, p50 and p99, by
                 polling and by fan-out
    throughput   of one reading process over a full stream, plain and packed as the KPL packs: records/s and MB/s (of
                 the stream's records) by wall clock and by CPU-second, read alone and with decoding; and for how many
                 shards at the 2 MiB/s that AWS allows each to give, one core would do
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from loadtest.kinesis_stage import Servers, kinesis_servers
from streamsvc.app_kinesis import open_record_writer
from streamsvc.config import Aws
from streamsvc.config_sources import KinesisSource as Options
from streamsvc.contracts import Assigned
from streamsvc.core.kpl import Put
from streamsvc.decoders.apache import apache_decoder
from streamsvc.ops.metrics import Metrics
from streamsvc.sources.kinesis.counts import Counts
from streamsvc.sources.kinesis.source import KinesisSource
from streamsvc.testing.access_logs import AccessLogs

Kind: TypeAlias = Literal["polling", "fanout"]

_SHARD_BYTES_A_SECOND = 2 * 1024 * 1024
"""What a shard gives to all who poll it, together (Developer Guide, "Quotas and limits")."""

_QUEUE_BYTES = 32 * 1024 * 1024
_CHUNK = 5_000


@dataclass(frozen=True)
class Throughput:
    """Of one pass over the stream."""

    records: int
    nbytes: int
    seconds: float
    cpu_seconds: float

    def __str__(self) -> str:
        megabytes = self.nbytes / 1e6
        shards = self.nbytes / self.cpu_seconds / _SHARD_BYTES_A_SECOND
        return (
            f"{self.records / self.seconds:,.0f} records/s, {megabytes / self.seconds:,.1f} MB/s; a CPU-second: "
            f"{self.records / self.cpu_seconds:,.0f} records, {megabytes / self.cpu_seconds:,.1f} MB, "
            f"{shards:.1f} shards at 2 MiB/s"
        )


@asynccontextmanager
async def reading(servers: Servers, stream: str, retrieval: Kind) -> AsyncIterator[KinesisSource]:
    """Every shard of the stream, from its beginning."""
    options = Options(stream=stream, leases="none", retrieval=retrieval, consumer_name=f"{stream}-{retrieval}")
    aws = Aws.model_validate(servers.aws())
    source = KinesisSource(
        options,
        application=f"speed.{stream}",
        worker="w",
        queue_bytes=_QUEUE_BYTES,
        aws=aws,
        counts=Counts(Metrics("speed"), stream),
    )
    async with source:
        assignments = aiter(source.assignments())
        expected = set(await source.splits())
        while expected:
            event = await anext(assignments)
            if isinstance(event, Assigned):
                source.start_at(dict.fromkeys(event.splits, source.first_position))
                expected -= set(event.splits)
        yield source


async def latency(servers: Servers, retrieval: Kind, records: int, pause_s: float) -> list[float]:
    """Seconds of each record."""
    stream = f"latency-{retrieval}"
    servers.client().create_stream(StreamName=stream, ShardCount=2)
    decoder = apache_decoder("combined")
    lines = AccessLogs(1, datetime.now(UTC), malformed_share=0.0).lines(records)
    aws = Aws.model_validate(servers.aws())
    put_at: list[float] = []
    took: list[float] = []
    async with (
        reading(servers, stream, retrieval) as source,
        open_record_writer(aws, stream, aggregate=False) as writer,
    ):

        async def put() -> None:
            for line in lines:
                put_at.append(time.monotonic())
                await writer.put([Put("one key, so one shard, so in order", None, line)])
                await asyncio.sleep(pause_s)

        putting = asyncio.create_task(put())
        while len(took) < records:
            batch = await source.read()
            rows = await asyncio.to_thread(decoder.decode, batch.values)
            assert rows.rows.num_rows == len(batch)
            now = time.monotonic()
            took += [now - at for at in put_at[len(took) : len(took) + len(batch)]]
        await putting
    return took


async def fill(servers: Servers, stream: str, records: int, shards: int, *, aggregate: bool) -> int:
    """How many bytes the records of the stream count for."""
    servers.client().create_stream(StreamName=stream, ShardCount=shards)
    logs = AccessLogs(1, datetime(2026, 11, 24, tzinfo=UTC), malformed_share=0.0)
    async with open_record_writer(Aws.model_validate(servers.aws()), stream, aggregate=aggregate) as writer:
        for first in range(0, records, _CHUNK):
            lines = logs.lines(min(_CHUNK, records - first))
            await writer.put([Put(f"key-{first + number}", None, line) for number, line in enumerate(lines)])
        await writer.flush()
        return writer.counts.nbytes


async def throughput(servers: Servers, stream: str, nbytes: int, records: int, *, decode: bool) -> Throughput:
    """Read all of it once, by polling."""
    decoder = apache_decoder("combined")
    async with reading(servers, stream, "polling") as source:
        began, cpu, seen = time.monotonic(), time.process_time(), 0
        while seen < records:
            batch = await source.read()
            seen += len(batch)
            if decode:
                await asyncio.to_thread(decoder.decode, batch.values)
        return Throughput(seen, nbytes, time.monotonic() - began, time.process_time() - cpu)


async def measure(records: int, shards: int, latency_records: int, pause_s: float) -> None:
    with kinesis_servers() as servers:
        kinds: tuple[Kind, ...] = ("polling", "fanout")
        for retrieval in kinds:
            took = sorted(await latency(servers, retrieval, latency_records, pause_s))
            p50, p99 = statistics.median(took), took[len(took) * 99 // 100]
            print(
                f"latency, {retrieval}: {len(took)} records, p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms", flush=True
            )
    with kinesis_servers("--unthrottled") as servers:
        for stream, aggregate in (("plain", False), ("aggregated", True)):
            nbytes = await fill(servers, stream, records, shards, aggregate=aggregate)
            for decode in (False, True):
                done = await throughput(servers, stream, nbytes, records, decode=decode)
                print(f"{stream}, {'read and decoded' if decode else 'read'}: {done}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.kinesis_speed", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--records", type=int, default=400_000, help="for throughput")
    parser.add_argument("--shards", type=int, default=8, help="for throughput")
    parser.add_argument("--latency-records", type=int, default=600)
    parser.add_argument("--pause-s", type=float, default=0.05, help="between two records, for latency")
    given = parser.parse_args(arguments)
    asyncio.run(measure(given.records, given.shards, given.latency_records, given.pause_s))
    return 0


if __name__ == "__main__":
    sys.exit(main())
