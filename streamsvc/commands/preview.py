"""``streamsvc preview``: the newest records of each pipeline, decoded and placed, and nothing written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from streamsvc.app import Inspected, inspect, load, new_segment, selected
from streamsvc.commands.rejects import in_words, show_records
from streamsvc.ops import logs
from streamsvc.records import ROW, Batch, DataObject, Partials
from streamsvc.runtime.window_recipe import WindowRecipe
from streamsvc.runtime.windowing import open_segment
from streamsvc.sinks.rejects import read_rejects

WIDEST_TABLE = 10_000


def preview(file: Path, pipeline: str | None, *, rows: int, show: int) -> int:
    """Answers the exit code."""
    logs.configure("warning")
    service = load(file)
    console = Console()

    async def show_all() -> None:
        async with AsyncExitStack() as stack:
            for name in selected(service, pipeline):
                await _preview(console, await inspect(service, name, stack), rows, show)

    asyncio.run(show_all())
    return 0


async def _preview(console: Console, inspected: Inspected, records: int, show: int) -> None:
    splits = len(await inspected.source.splits())
    share = max(1, records // max(1, splits))
    ranges = await inspected.source.recent(share)
    console.print(f"[bold]{inspected.name}[/bold]  the last {share} records of each of {splits} splits")
    segment = open_segment(inspected.recipe, {})
    shown = 0
    async for batch in inspected.source.read_range(ranges) if ranges else _nothing():
        if shown == 0 and len(batch):
            _show_rows(console, inspected.recipe.sift(batch)[0], show)
            shown = 1
        segment.add(batch)
    encoded = segment.close(new_segment())
    tally = segment.tally
    window = inspected.recipe.window
    made = f"{sum(item.rows for item in encoded.objects):,} rows" if window is None else f"{tally.late:,} late rows"
    console.print(f"{tally.records:,} records: {made}; rejected: {in_words(tally.rejects)}", highlight=False)
    if window is not None and encoded.partials is not None:
        _show_results(console, window, Partials.from_ipc(encoded.partials), show)
    _show_rejects(console, encoded.rejects, show)
    for item in encoded.objects[:show]:
        text = f"  {item.key}  {item.rows:,} rows, {item.nbytes:,} bytes"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    if len(encoded.objects) > show:
        console.print(f"  and {len(encoded.objects) - show} more")


async def _nothing() -> AsyncIterator[Batch]:
    return
    yield


def _show_results(console: Console, window: WindowRecipe, partials: Partials, show: int) -> None:
    """Of the newest window, as if it were closed now, and of nothing but the sample."""
    if not partials.starts:
        return
    newest = window.windows.window(partials.starts[-1])
    finished = window.aggregation.finish(partials, [newest])
    console.print(f"{len(partials.starts):,} windows, {partials.groups:,} results; of the newest:", highlight=False)
    for batch in finished.rows.to_batches()[:1]:
        _show_rows(console, batch, show, "results")
    for fault in finished.faults[:show]:
        console.print(f"  no result: {fault}", highlight=False, markup=False)


def _show_rows(console: Console, rows: pa.RecordBatch, show: int, title: str = "rows") -> None:
    """As a table if it fits the terminal, else one row below the other."""
    names = [name for name in rows.schema.names if name != ROW]
    kinds = [str(rows.schema.field(name).type) for name in names]
    shown = [[_text(value) for value in row.values()] for row in rows.slice(0, show).select(names).to_pylist()]
    table = Table(title=title, title_justify="left")
    for name, kind in zip(names, kinds, strict=True):
        table.add_column(f"{name}\n{kind}", overflow="fold")
    for row in shown:
        table.add_row(*row)
    whole = Measurement.get(console, console.options.update(max_width=WIDEST_TABLE), table).maximum
    if whole <= console.width:
        console.print(table)
        return
    for number, row in enumerate(shown, 1):
        one = Table.grid(padding=(0, 2))
        for name, kind, value in zip(names, kinds, row, strict=True):
            one.add_row(f"  {name}", Text(kind, style="dim"), value)
        console.print(f"row {number}", one)


def _text(value: object) -> Text:
    return Text("null", style="dim") if value is None else Text(str(value), overflow="fold")


def _show_rejects(console: Console, objects: list[DataObject], show: int) -> None:
    bodies = [b"".join(bytes(part) for part in item.body) for item in objects]
    rows = [row for body in bodies for batch in read_rejects(body) for row in batch.to_pylist()]
    show_records(console, "some of the rejects", rows[:show])
