"""The stamping producer for Kinesis: access logs into a stream, half of them packed as the KPL packs them.

``python -m loadtest.kinesis_produce --endpoint-url URL --stream access --ledger run.ledger --records 200000``

Records go in chunks, one for each partition key; a chunk is stored before the next one is sent, so the order of a key
is the order of its stamps. Every other chunk is aggregated. With ``--reshard-every N`` the stream is resharded after
that many records, three times: a split, a split, a merge. It ends at ``--records``, or at SIGTERM, and prints what it
did as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from loadtest.kinesis_stage import Servers
from loadtest.ledger import LedgerWriter
from loadtest.reshard import Resharding
from loadtest.stamps import stamped
from streamsvc.app_kinesis import RecordWriter, open_record_writer
from streamsvc.config import Aws
from streamsvc.core.kpl import Put
from streamsvc.errors import StreamsvcError
from streamsvc.testing.access_logs import AccessLogs


@dataclass(frozen=True)
class Order:
    """What is to be produced. ``records``, ``rate`` (records a second) and ``reshard_every``: 0 means never."""

    endpoint_url: str
    stream: str
    ledger: Path
    producer: str = "p0"
    keys: int = 100
    records: int = 0
    rate: float = 0.0
    seed: int = 1
    malformed_share: float = 0.001
    reshard_every: int = 0


@dataclass
class Produced:
    """What was."""

    records: int = 0
    aggregated: int = 0
    malformed: int = 0
    sent_again: int = 0
    splits: int = 0
    merges: int = 0
    seconds: float = 0.0


class KinesisProducer:
    """Fills one order."""

    def __init__(self, order: Order) -> None:
        self._order = order
        start = datetime(2026, 11, 24, 22, 30, tzinfo=UTC)
        self._logs = AccessLogs(order.seed, start, malformed_share=order.malformed_share)
        self._done = Produced()
        self._stopping = False
        self._resharding = Resharding(Servers(order.endpoint_url, "").client(), order.stream, order.reshard_every)

    def stop(self) -> None:
        """Send no more."""
        self._stopping = True

    async def run(self) -> Produced:
        order, began = self._order, time.monotonic()
        aws = Aws.model_validate(Servers(order.endpoint_url, order.endpoint_url).aws())
        about = {"stream": order.stream, "seed": order.seed, "keys": order.keys}
        async with AsyncExitStack() as stack:
            writers = [
                await stack.enter_async_context(open_record_writer(aws, order.stream, aggregate=aggregate))
                for aggregate in (False, True)
            ]
            ledger = stack.enter_context(LedgerWriter(order.ledger, order.producer, about))
            while not self._stopping and self._logs.made != (order.records or -1):
                chunk = self._logs.made // order.keys
                await self._send(writers[chunk % 2], ledger)
                self._done.aggregated += order.keys * (chunk % 2)
                await asyncio.to_thread(self._resharding.look, self._logs.made)
                if order.rate:
                    await asyncio.sleep(max(0.0, began + self._logs.made / order.rate - time.monotonic()))
        done = self._done
        done.records, done.malformed = self._logs.made, len(self._logs.malformed)
        done.sent_again = sum(writer.counts.retries for writer in writers)
        done.splits, done.merges = self._resharding.splits, self._resharding.merges
        done.seconds = round(time.monotonic() - began, 1)
        return done

    async def _send(self, writer: RecordWriter, ledger: LedgerWriter) -> None:
        """One record for each key: record ``n`` of the log is record ``n // keys`` of key ``n % keys``."""
        order, first = self._order, self._logs.made
        seq = first // order.keys
        lines = self._logs.lines(order.keys)
        for number in range(first, first + order.keys):
            if number in self._logs.malformed:
                ledger.malformed(number - first, [seq])
        values = [stamped(line, order.producer, key, seq) for key, line in enumerate(lines)]
        await writer.put([Put(f"key-{key}", None, value) for key, value in enumerate(values)])
        await writer.flush()
        for key in range(order.keys):
            ledger.acked(key, seq)
        ledger.flush()


async def _produce(order: Order) -> Produced:
    producer = KinesisProducer(order)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, producer.stop)
    return await producer.run()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.kinesis_produce", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--endpoint-url", required=True)
    parser.add_argument("--stream", required=True, help="must exist")
    parser.add_argument("--ledger", required=True, type=Path, help="a new file")
    parser.add_argument("--producer", default=Order.producer, help="name in the stamps; one a ledger")
    parser.add_argument("--keys", type=int, default=Order.keys, help="partition keys; records are a multiple of them")
    parser.add_argument("--records", type=int, default=Order.records, help="how many; 0: until stopped")
    parser.add_argument("--rate", type=float, default=Order.rate, help="records a second; 0: as fast as can be")
    parser.add_argument("--seed", type=int, default=Order.seed)
    parser.add_argument("--malformed-share", type=float, default=Order.malformed_share)
    parser.add_argument("--reshard-every", type=int, default=Order.reshard_every, help="records; 0: never")
    try:
        produced = asyncio.run(_produce(Order(**vars(parser.parse_args(arguments)))))
    except StreamsvcError as failure:
        print(failure, file=sys.stderr)
        return 1
    print(json.dumps(asdict(produced)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
