"""A Kinesis server in a process of its own: prints its address, ends on SIGTERM.

python -m streamsvc.testing.kinesis_server --port 4567 --unthrottled --fault PutRecords.partial=0.1 --seed 3
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields

import msgspec

from streamsvc.testing.kinesis_server.faults import Fault, random_faults
from streamsvc.testing.kinesis_server.limits import Limits
from streamsvc.testing.kinesis_server.operations import OPERATIONS
from streamsvc.testing.kinesis_server.server import KinesisServer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m streamsvc.testing.kinesis_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default, is a free one")
    parser.add_argument("--unthrottled", action="store_true", help="no limits on throughput")
    parser.add_argument("--limit", action="append", default=[], metavar="NAME=VALUE", help="a field of Limits")
    parser.add_argument("--fault", action="append", default=[], metavar="OPERATION.FAULT=RATE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--with-parent", action="store_true", help="end when standard input is closed")
    options = parser.parse_args()
    try:
        asyncio.run(_serve(options))
    except ValueError as error:
        parser.error(str(error))


async def _serve(options: argparse.Namespace) -> None:
    limits = _limits(options.limit, unthrottled=options.unthrottled)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.with_parent:
        loop.add_reader(sys.stdin, lambda: None if os.read(sys.stdin.fileno(), 4096) else stop.set())
    async with KinesisServer(
        limits=limits, faults=_faults(options.fault, options.seed), port=options.port, seed=options.seed
    ) as server:
        sys.stdout.write(f"{server.endpoint_url}\n")
        sys.stdout.flush()
        await stop.wait()


def _limits(settings: list[str], *, unthrottled: bool) -> Limits:
    """``name=value`` of the fields of ``Limits``; ``none`` is without limit. Raises ``ValueError``."""
    base = Limits().unthrottled() if unthrottled else Limits()
    document = msgspec.to_builtins(base) | {
        name: None if value == "none" else value for name, _, value in (setting.partition("=") for setting in settings)
    }
    unknown = document.keys() - {field.name for field in fields(Limits)}
    if unknown:
        raise ValueError(f"--limit: there is no {', '.join(sorted(unknown))}")
    return msgspec.convert(document, Limits, strict=False)


def _faults(settings: list[str], seed: int) -> dict[str, Iterator[Fault | None]]:
    rates: dict[str, dict[Fault, float]] = defaultdict(dict)
    for setting in settings:
        name, _, rate = setting.partition("=")
        operation, _, fault = name.partition(".")
        if operation not in OPERATIONS:
            raise ValueError(f"--fault {setting}: there is no operation {operation!r}")
        rates[operation][Fault(fault)] = float(rate)
    return {operation: random_faults(seed, chosen) for operation, chosen in rates.items()}


if __name__ == "__main__":
    main()
