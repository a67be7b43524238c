"""Windows against an oracle: requests and bytes by response in five minutes, beside DuckDB's answer over the same file.

``python -m loadtest.windows --workers 1 2 4``
    1,000,000 access-log lines, shuffled within 60 s of event time, in a topic of 4 partitions; ``run --until-end
    --close-windows`` with so many workers each; every result row must be DuckDB's, to the last byte counted.
``python -m loadtest.windows --kills 20``
    The same while the lines are produced, two workers are killed at random (SIGKILL, restarted each time), and another
    member joins the consumer group, and leaves it, every 2 s.
``python -m loadtest.windows --latency``
    Lines of now, windows of ten seconds: from when the watermark passed the end of a window (the last partition's first
    line that lets it is acknowledged) until its result is visible.

Exit code 0: every answer was right. Window rows + late rows = lines - rejects is checked as well.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from loadtest.chaos import TooLong
from loadtest.kafka_broker import KafkaBroker
from loadtest.processes import ProcessFailed
from loadtest.window_answers import Answers, answers_of, oracle
from loadtest.window_latency import measure_latency
from loadtest.window_stage import Storm, WindowStage, produce, window_stage
from streamsvc.testing.access_logs import AccessLogs

SHUFFLED_WITHIN_S = 60
_START = datetime(2026, 11, 24, 22, 30, tzinfo=UTC)
_WITHIN_S = 900.0
_TIME = re.compile(rb"\[(\d\d/\w\w\w/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\]")


@dataclass(frozen=True)
class Given:
    """The lines, in the order in which they are produced, and what DuckDB makes of them."""

    lines: list[bytes]
    expected: Answers


def shuffled_lines(count: int, seed: int, directory: Path) -> Given:
    """Lines that stand at most ``SHUFFLED_WITHIN_S`` of event time from where they belong."""
    logs = AccessLogs(seed, _START, malformed_share=0.001)
    lines = logs.lines(count)
    chance = random.Random(seed)
    places: list[float] = []
    at = 0.0
    for number, line in enumerate(lines):
        found = None if number in logs.malformed else _TIME.search(line)
        at = _seconds(found[1]) if found else at
        places.append(at + chance.uniform(0, SHUFFLED_WITHIN_S - 1))
    shuffled = [lines[number] for number in sorted(range(count), key=places.__getitem__)]
    file = directory / "access.log"
    file.write_bytes(b"\n".join(lines) + b"\n")
    sound = count - len(logs.malformed)
    expected = oracle(file)
    if expected.rows != sound:
        raise ValueError(f"DuckDB reads {expected.rows} sound lines, the generator made {sound}")
    return Given(shuffled, expected)


@lru_cache(maxsize=10_000)
def _seconds(time: bytes) -> float:
    return datetime.strptime(time.decode(), "%d/%b/%Y:%H:%M:%S %z").timestamp()


def compare(stage: WindowStage, expected: Answers, label: str) -> bool:
    """Print how the answer differs, or that it does not."""
    found = answers_of(stage.store)
    differences = expected.differences(found)
    print(
        f"{label}: {len(found.values)} result rows of {len(found.windows)} windows, {found.rows} lines in windows, "
        f"{found.late} late, {found.rejected} rejected; expected {len(expected.values)} rows, {expected.rows} lines; "
        f"result objects that say a window twice: {found.repeated}; differences: {len(differences)}",
        flush=True,
    )
    for difference in differences[:5]:
        print(f"  {difference}", flush=True)
    return not differences and not found.repeated and found.rows + found.late == expected.rows


def run_workers(stage: WindowStage, given: Given, workers: int) -> bool:
    """All lines are there before the first worker starts."""
    landed = stage.finish(stage.configuration("service", workers=workers), _WITHIN_S, "--close-windows")
    print(f"{workers} workers: {landed}", flush=True)
    return compare(stage, given.expected, f"{workers} workers")


def run_chaos(stage: WindowStage, given: Given, kills: int, rate: float, seed: int) -> bool:
    """Kills and a rebalance storm while the lines come."""
    with Storm(stage, given.lines, rate, seed) as storm:
        counted = storm.kill(kills)
        storm.wait_until_produced(_WITHIN_S)
        storm.drain()
    print(f"kills: {sum(counted.values())} {counted}; joined or left: {storm.joins + storm.leaves} times", flush=True)
    print(f"finished: {stage.finish(stage.configuration('finish'), _WITHIN_S, '--close-windows')}", flush=True)
    print(f"segments: {stage.store.visible.census()}", flush=True)
    return compare(stage, given.expected, "after the kills")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.windows", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, nargs="*", default=[])
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--rate", type=float, default=8_000.0, help="lines a second while workers are killed")
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--seconds", type=int, default=180, help="how long the latency is measured")
    parser.add_argument("--interval", default="5s", help="of commits, for the latency")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    try:
        return 0 if _run(given) else 1
    except (ProcessFailed, TooLong) as failure:
        print(failure, file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> bool:
    right = True
    with tempfile.TemporaryDirectory(prefix="windows-") as temporary, KafkaBroker() as broker:
        directory = Path(temporary)
        asked = bool(options.workers or options.kills)
        given = shuffled_lines(options.records if asked else 0, options.seed, directory)
        for number in options.workers:
            topic = f"access-{number}"
            broker.create_topic(topic, 4)
            produce(broker.bootstrap, topic, given.lines)
            with window_stage(directory / topic, broker.bootstrap, topic) as stage:
                right &= run_workers(stage, given, number)
        if options.kills:
            broker.create_topic("storm", 4)
            with window_stage(directory / "storm", broker.bootstrap, "storm", interval="1s") as stage:
                right &= run_chaos(stage, given, options.kills, options.rate, options.seed)
        if options.latency:
            broker.create_topic("latency", 4)
            window = {"tumble": "10s", "disorder": "1s", "lateness": "0s"}
            interval = options.interval
            with window_stage(directory / "latency", broker.bootstrap, "latency", interval, **window) as stage:
                measured = measure_latency(stage, timedelta(seconds=options.seconds))
                print(f"interval of commits {interval}: {measured}", flush=True)
    return right


if __name__ == "__main__":
    sys.exit(main())
