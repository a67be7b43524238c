"""How fast the service is, beside a bare ``consume`` loop over the same topic in the same run.

``python -m loadtest.bench``: a real broker; topics of 1,000,000 combined lines and of JSON records, 4 partitions;
each part a few times, in turn; medians, as a table and as JSON under ``loadtest/results/``. The parts:

bare-combined, bare-json   a ``consume(20000)`` loop that looks at nothing
combined, json             ``run --until-end`` -> Parquet zstd by date and response, in a local directory
windowed                   ``run --until-end --close-windows``: requests and bytes by response every five minutes
combined-2-workers         combined by two processes
combined-s3                combined into an S3 server on this machine (only when asked for)

A record counts as done when its segment has a committed outcome. CPU-seconds are those of the whole process less
those of a run over an empty topic. The broker, and the S3 server, use the same cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest import machine
from loadtest.kafka_broker import KafkaBroker
from loadtest.processes import REPOSITORY, Child
from loadtest.stage import Stage, last_json, local_store, module, s3_store
from loadtest.window_stage import WindowStage
from streamsvc.testing.access_logs import Form

RESULTS = REPOSITORY / "loadtest" / "results"
AIMS = {"wall": 0.4, "cpu": 0.3, "peak_rss_mb": 500}

_WITHIN_S = 600.0


@dataclass(frozen=True)
class Part:
    """One thing that is measured. ``beside`` is the bare loop over the same topic."""

    form: Form
    beside: str | None = None
    workers: int = 1
    s3: bool = False
    windowed: bool = False


PARTS = {
    "bare-combined": Part("combined"),
    "combined": Part("combined", "bare-combined"),
    "windowed": Part("combined", "bare-combined", windowed=True),
    "combined-2-workers": Part("combined", "bare-combined", workers=2),
    "combined-s3": Part("combined", "bare-combined", s3=True),
    "bare-json": Part("json"),
    "json": Part("json", "bare-json"),
}


@dataclass(frozen=True)
class Measured:
    """One run of a part."""

    records: int
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int

    @property
    def a_second(self) -> float:
        return self.records / self.seconds

    @property
    def a_cpu_second(self) -> float:
        return self.records / self.cpu_seconds


class Bench:
    """Measures parts over the topics of one broker."""

    def __init__(self, directory: Path, brokers: str, records: int) -> None:
        self._directory = directory
        self._brokers = brokers
        self._records = records
        self._runs = 0
        self._startup: dict[tuple[int, bool], float] = {}

    def fill(self, form: Form) -> None:
        """Produce the topic of a form, in a process of its own."""
        options = {"brokers": self._brokers, "topic": form, "form": form, "records": self._records}
        filling = Child(module("fill", options), self._directory / f"{form}.log")
        filling.wait(_WITHIN_S)
        print(f"topic {form}: {last_json(filling.output)}", flush=True)

    def measure(self, part: Part) -> Measured:
        return self._serve(part) if part.beside else self._consume(part)

    def _consume(self, part: Part) -> Measured:
        options = {"brokers": self._brokers, "topic": part.form, "records": self._records}
        child = Child(module("bare_consumer", options), self._directory / "bare_consumer.log")
        child.wait(_WITHIN_S)
        return Measured(**last_json(child.output))

    def _serve(self, part: Part) -> Measured:
        kind = (part.workers, part.windowed)
        if kind not in self._startup:
            self._startup[kind] = self._run(part, "empty")["cpu_seconds"]
        done = self._run(part, part.form)
        if done["records"] != self._records:
            raise RuntimeError(f"{done['records']} records were landed, {self._records} produced")
        return Measured(
            records=done["records"],
            seconds=done["last_outcome"] - done["first_read"],
            cpu_seconds=done["cpu_seconds"] - self._startup[kind],
            peak_rss_bytes=done["peak_rss_bytes"],
        )

    def _run(self, part: Part, topic: str) -> dict[str, Any]:
        self._runs += 1
        directory = self._directory / f"run-{self._runs}"
        directory.mkdir()
        with s3_store(directory) if part.s3 else local_store(directory) as store:
            place: dict[str, Any] = {"directory": directory, "brokers": self._brokers, "topic": topic, "store": store}
            stage = WindowStage(**place) if part.windowed else Stage(**place, form=part.form)
            flags = ["--close-windows"] if part.windowed else []
            return stage.finish(stage.configuration("service", workers=part.workers), _WITHIN_S, *flags)


def table(medians: dict[str, Measured], calibration: float | None) -> str:
    """For people; aims beside figures."""
    lines = [
        f"{'':20}{'records/s':>12}{'of bare':>9}{'a CPU-second':>14}{'of bare':>9}{'peak RSS MB':>13}",
    ]
    for name, measured in medians.items():
        beside = medians.get(PARTS[name].beside or "")
        wall = f"{measured.a_second / beside.a_second:9.2f}" if beside else " " * 9
        cpu = f"{measured.a_cpu_second / beside.a_cpu_second:9.2f}" if beside else " " * 9
        rss = measured.peak_rss_bytes / 1e6
        lines.append(f"{name:20}{measured.a_second:12,.0f}{wall}{measured.a_cpu_second:14,.0f}{cpu}{rss:13,.0f}")
    lines.append(f"{'aim, one process':20}{'':12}{AIMS['wall']:9.2f}{'':14}{AIMS['cpu']:9.2f}{AIMS['peak_rss_mb']:13,}")
    speed = "one core only" if calibration is None else f"{calibration:.2f} times one alone"
    lines.append(f"two pinned loops at once: {speed}")
    return "\n".join(lines)


def median_of(runs: Sequence[Measured]) -> Measured:
    """Of each quantity by itself."""
    return Measured(
        records=runs[0].records,
        seconds=statistics.median(run.seconds for run in runs),
        cpu_seconds=statistics.median(run.cpu_seconds for run in runs),
        peak_rss_bytes=int(statistics.median(run.peak_rss_bytes for run in runs)),
    )


@contextmanager
def bench_at(directory: Path, records: int, forms: set[Form], partitions: int) -> Iterator[Bench]:
    """A broker with the topics of these forms, and an empty one."""
    with KafkaBroker(heap_mb=1024) as broker:
        bench = Bench(directory, broker.bootstrap, records)
        broker.create_topic("empty", partitions)
        for form in sorted(forms):
            broker.create_topic(form, partitions)
            bench.fill(form)
        yield bench


def measure_all(bench: Bench, names: Sequence[str], repetitions: int) -> dict[str, list[Measured]]:
    """Every part once, then every part again: what slows the machine down for a while slows all of them."""
    runs: dict[str, list[Measured]] = {name: [] for name in names}
    for repetition in range(repetitions):
        for name in names:
            measured = bench.measure(PARTS[name])
            runs[name].append(measured)
            print(f"{repetition + 1}/{repetitions} {name}: {measured.a_second:,.0f} records/s", flush=True)
    return runs


def save(runs: dict[str, list[Measured]], about: dict[str, Any]) -> Path:
    """One file a run, named by its time."""
    now = datetime.now(UTC)
    measured = {name: [asdict(run) for run in some] for name, some in runs.items()}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"bench-{now:%Y-%m-%dT%H%M%SZ}.json"
    whole = {"at": now.isoformat(), **about, "aims": AIMS, "runs": measured}
    path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=3)
    usual = [name for name, part in PARTS.items() if not part.s3]
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=usual, help="default: all but S3")
    parser.add_argument("--no-save", action="store_true", help="print only")
    given = parser.parse_args(arguments)
    names = [name for name in PARTS if name in {*given.parts, *(PARTS[part].beside for part in given.parts)}]
    about = {"machine": machine.describe(), "records": given.records, "partitions": given.partitions}
    print(json.dumps(about["machine"]), flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        forms = {PARTS[name].form for name in names}
        with bench_at(Path(directory), given.records, forms, given.partitions) as bench:
            before = machine.two_process_speed()
            runs = measure_all(bench, names, given.repetitions)
            after = machine.two_process_speed()
    calibration = None if before is None or after is None else (before + after) / 2
    print(table({name: median_of(some) for name, some in runs.items()}, calibration))
    if not given.no_save:
        saved = save(runs, {**about, "two_process_speed": [before, after]})
        print(f"saved: {os.path.relpath(saved)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
