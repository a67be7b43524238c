"""``streamsvc demo``: the whole thing in one process, against a broker that lives inside it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import duckdb
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from streamsvc.app import WorkerSpec, load, new_worker
from streamsvc.errors import Fatal
from streamsvc.ops import logs
from streamsvc.ops.health import PipelineStatus
from streamsvc.ops.http import serving
from streamsvc.runtime.health import WorkerHealth
from streamsvc.runtime.worker import Worker
from streamsvc.testing.access_logs import AccessLogs
from streamsvc.testing.mock_broker import MockBroker

TOPIC = "access"
REFRESH_S = 0.5
LANDING_PATIENCE_S = 20.0
LOG_LINES_A_SECOND = 200
"""In the log's own time, which goes faster than ours and arrives at about now."""

CONFIGURATION = """\
# The demo's configuration. The broker lived in the demo's process; `streamsvc rejects` and `gc` work without it.
service: demo
state: file://{folder}/state
memory: 256MiB
http: {{listen: "127.0.0.1:0"}}            # the status page, on a free port
pipelines:
  access:                                # every request, by day and response
    source: {{kafka: {{brokers: "{broker}", topics: [{topic}]}}}}
    decode: {{apache: combined}}
    sink:
      path: file://{folder}/lake/access
      partition_by:
        date: strftime(datetime, '%Y-%m-%d')
        response: response
      buffer: {{size: 16MiB, interval: 3s}}
    rejects: {{path: file://{folder}/lake/rejects}}
  not_found:                             # what is asked for and is not there, as JSON lines
    source: {{kafka: {{brokers: "{broker}", topics: [{topic}]}}}}
    decode: {{apache: combined}}
    transform:
      - sql: SELECT datetime, host, path, referer FROM input WHERE response = 404
    sink:
      path: file://{folder}/lake/not_found
      format: json
      compression: gzip
      buffer: {{size: 16MiB, interval: 5s}}
    rejects: {{path: file://{folder}/lake/rejects_of_not_found}}
  per_10s:                               # requests and bytes by response, each ten seconds of the log's own time
    source: {{kafka: {{brokers: "{broker}", topics: [{topic}]}}}}
    decode: {{apache: combined}}
    window:
      tumble: 10s
      time: datetime
      disorder: 5s
      lateness: 0s
      interval: 1s
      group_by: [response]
      aggregate: {{requests: count(*), bytes: sum(bytes), hosts: approx_count_distinct(host)}}
    sink: {{path: file://{folder}/lake/per_10s}}
    rejects: {{path: file://{folder}/lake/rejects_of_per_10s}}
"""

QUERY = """\
SELECT date, response, count(*) AS requests, round(sum(bytes) / 1e6, 1) AS mb,
       count(DISTINCT host) AS hosts, mode(path) AS most_asked_for
FROM read_parquet('{lake}/access/**/*.parquet', hive_partitioning = true)
GROUP BY ALL ORDER BY requests DESC LIMIT 8;"""

REJECTS = """\
SELECT reason, count(*) AS records, min(error) AS for_example
FROM read_json('{lake}/rejects/**/*.json.gz')
GROUP BY reason ORDER BY records DESC"""


LAST_WINDOW = """\
SELECT strftime(window_start, '%H:%M:%S'), sum(requests), sum(bytes) / 1e6,
       coalesce(sum(requests) FILTER (WHERE response >= 400), 0), (SELECT count(DISTINCT window_start) FROM results)
FROM results GROUP BY window_start ORDER BY window_start DESC LIMIT 1"""


def demo(*, seconds: int, lake: Path, rate: int) -> int:
    """Answers the exit code: 0 when everything that was produced has landed.

    ``lake`` is emptied first; a folder that a demo has not made is refused."""
    folder = lake.resolve()
    _empty(folder)
    logs.configure("warning")
    console = Console()
    with MockBroker() as broker:
        broker.make_topic(TOPIC)
        file = folder / "pipeline.yaml"
        file.write_text(CONFIGURATION.format(folder=folder, broker=broker.address, topic=TOPIC))
        console.print(f"A Kafka broker in this process, lifelike access logs for {seconds} s, three pipelines.")
        landed = asyncio.run(_run(console, broker, file, seconds, rate))
    _show_results(console, folder, broker.delivered)
    if landed:
        return 0
    console.print(f"[red]Not everything had landed {LANDING_PATIENCE_S:.0f} s after the last line.[/red]")
    return 1


def _empty(folder: Path) -> None:
    try:
        if folder.exists():
            if any(folder.iterdir()) and not (folder / "pipeline.yaml").exists():
                what = "this folder is not empty, and no demo has made it"
                raise Fatal(what, hint="Give another --lake.", folder=folder)
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        what = f"this folder cannot be made: {error.strerror}"
        raise Fatal(what, hint="Give another --lake.", folder=folder) from None


async def _run(console: Console, broker: MockBroker, file: Path, seconds: int, rate: int) -> bool:
    """Produce and land side by side, and show it to browsers; answers whether all that was produced has landed."""
    service = load(file)
    assert service.http is not None
    worker, health = new_worker(service, WorkerSpec(file, None, until_end=False, slot=0, slots=1))
    async with serving(health, service.http.listen) as address:
        console.print(f"What it is doing, for a browser: {address}\n", highlight=False)
        return await _produce_and_land(console, broker, worker, health, seconds, rate)


async def _produce_and_land(
    console: Console, broker: MockBroker, worker: Worker, health: WorkerHealth, seconds: int, rate: int
) -> bool:
    running = asyncio.create_task(worker.run())
    stopped = asyncio.Event()
    _on_first_signal(stopped.set)
    access_logs = AccessLogs(
        seed=int(datetime.now(UTC).timestamp()),
        start=datetime.now(UTC) - timedelta(seconds=seconds * rate / LOG_LINES_A_SECOND),
        lines_a_second=LOG_LINES_A_SECOND,
    )
    broker.produce(TOPIC, access_logs.lines, rate)
    began = monotonic()
    with _progress(console) as show:
        while not running.done() and not stopped.is_set() and monotonic() - began < seconds:
            show(broker, health, f"{seconds - (monotonic() - began):.0f} s to go")
            await asyncio.wait([running], timeout=REFRESH_S)
        await asyncio.to_thread(broker.stop_producing)
        patient_until = monotonic() + LANDING_PATIENCE_S
        while not running.done() and not _all_landed(health, broker) and monotonic() < patient_until:
            show(broker, health, "landing the rest")
            await asyncio.wait([running], timeout=REFRESH_S)
        landed = _all_landed(health, broker)
        worker.stop()
        await running
        show(broker, health, "done")
    return landed


def _on_first_signal(stop: Callable[[], None]) -> None:
    """It is the last one that is waited for: a second one ends at once, as without a handler."""
    loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)

    def stop_once() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
        stop()

    for number in numbers:
        loop.add_signal_handler(number, stop_once)


def _pipelines(health: WorkerHealth) -> Mapping[str, PipelineStatus]:
    return dict(sorted(health.worker_status()["pipelines"].items()))


def _all_landed(health: WorkerHealth, broker: MockBroker) -> bool:
    return all(
        status["records_read"] >= broker.delivered and status["open_segment"] is None and not status["landing"]
        for status in _pipelines(health).values()
    )


class _progress:  # noqa: N801
    """On a terminal a table that is drawn anew; elsewhere a line now and then."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._said_at = 0.0

    def __enter__(self) -> _progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, broker: MockBroker, health: WorkerHealth, doing: str) -> None:
        pipelines = _pipelines(health)
        if self._live:
            self._live.update(_view(broker, pipelines, doing), refresh=True)
        elif pipelines and (monotonic() - self._said_at > 4 or doing == "done"):
            self._said_at = monotonic()
            parts = [f"{name}: {status['rows_landed']:,} rows landed" for name, status in pipelines.items()]
            print(f"  {doing}: {broker.delivered:,} lines produced; {', '.join(parts)}", flush=True)


def _view(broker: MockBroker, pipelines: Mapping[str, PipelineStatus], doing: str) -> Group:
    """What each pipeline does, and below it the object that each has written last."""
    table = Table(title=f"{broker.delivered:,} lines produced · {doing}", title_justify="left")
    for heading in ("pipeline", "read", "open segment", "rows landed", "rejected"):
        table.add_column(heading, justify="left" if heading == "pipeline" else "right")
    newest: list[Text] = []
    for name, status in pipelines.items():
        segment = status["open_segment"]
        urls = [item["url"] for item in status["last_objects"] if item["kind"] != "rejects"]
        newest += [Text(url.rpartition("/lake/")[2], "dim", overflow="ellipsis", no_wrap=True) for url in urls[:1]]
        table.add_row(
            name,
            f"{status['records_read']:,}",
            f"{segment['records']:,} for {segment['age_s']:.0f} s" if segment else "–",
            f"{status['rows_landed']:,}",
            f"{sum(status['rejects'].values()):,}",
        )
    return Group(table, *newest)


def _show_results(console: Console, folder: Path, produced: int) -> None:
    lake = folder / "lake"
    console.print(f"\n[bold]{produced:,} lines in. Where they are[/bold]")
    for part in ("access", "not_found", "per_10s", "rejects"):
        files = [path for path in (lake / part).rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        example = f", as {_short(max(files))}" if files else ""
        console.print(
            f"  {part:<10} {len(files):>4} files, {size / 1e3:>5,.0f} kB{example}", soft_wrap=True, highlight=False
        )
    with duckdb.connect() as connection:
        if any((lake / "rejects").rglob("*.json.gz")):
            console.print("\n[bold]What was rejected, and why[/bold] (each with its position and bytes)")
            _show(connection.sql(REJECTS.format(lake=lake)))
        if any((lake / "access").rglob("*.parquet")):
            console.print("\n[bold]The lake, asked by DuckDB[/bold] (started in this folder, yours answers the same)")
            console.print(QUERY.format(lake=_short(lake)), highlight=False, style="dim", soft_wrap=True)
            _show(connection.sql(QUERY.format(lake=lake)))
        if any((lake / "per_10s").rglob("*.parquet")):
            _show_last_window(console, connection.read_parquet(f"{lake}/per_10s/*.parquet"))
    file = _short(folder / "pipeline.yaml")
    command = _this_command()
    console.print(f"\nThe pipelines are in {file}. Next: {command} rejects {file}", soft_wrap=True, highlight=False)
    console.print(f"Your own begin with: {command} init", soft_wrap=True, highlight=False)


def _show_last_window(console: Console, results: duckdb.DuckDBPyRelation) -> None:
    answer = results.query("results", LAST_WINDOW)
    assert answer is not None
    [(start, requests, megabytes, errors, closed)] = answer.fetchall()
    found = f"{requests:,} requests, {megabytes:,.1f} MB, {errors:,} errors"
    console.print("\n[bold]Windows in event time[/bold] (ten seconds of the log's own time each)")
    console.print(f"  {closed} are closed; the last, from {start}: {found}", highlight=False)


def _show(answer: duckdb.DuckDBPyRelation) -> None:
    table = Table()
    for name in answer.columns:
        table.add_column(name, overflow="fold")
    for row in answer.fetchall():
        table.add_row(*(Text("–" if value is None else str(value)) for value in row))
    Console(file=sys.stdout).print(table)


def _this_command() -> str:
    """As it can be typed: where it is, unless the shell finds it by its name."""
    return "streamsvc" if shutil.which("streamsvc") else _short(Path(sys.argv[0]).resolve())


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
