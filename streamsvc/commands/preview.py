"""``streamsvc preview``: the newest records of each pipeline, decoded and placed, and nothing written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamsvc.app import Inspected, inspect, load, new_segment, selected
from streamsvc.core.offsets import offset_of, position_of
from streamsvc.ops import logs
from streamsvc.records import ROW, Batch
from streamsvc.runtime.segment import OpenSegment


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
    ends = await inspected.source.ends()
    begins = await inspected.positions_at("earliest")
    share = max(1, records // max(1, len(ends)))
    ranges = {
        split: (position_of(max(offset_of(begins[split]), offset_of(end) - share)), end)
        for split, end in ends.items()
        if end > begins[split]
    }
    console.print(f"[bold]{inspected.name}[/bold]  the last {share} records of each of {len(ends)} splits")
    segment = OpenSegment(inspected.recipe)
    shown = 0
    async for batch in inspected.source.read_range(ranges) if ranges else _nothing():
        if shown == 0 and len(batch):
            _show_rows(console, inspected.recipe.sift(batch)[0], show)
            shown = 1
        segment.add(batch)
    encoded = segment.close(new_segment())
    tally = segment.tally
    console.print(
        f"{tally.records:,} records: {sum(item.rows for item in encoded.objects):,} rows; rejected: "
        f"{dict(tally.rejects) or 'none'}",
        highlight=False,
    )
    for item in encoded.objects[:show]:
        console.print(f"  {item.key}  {item.rows:,} rows, {item.nbytes:,} bytes", highlight=False, markup=False)
    if len(encoded.objects) > show:
        console.print(f"  and {len(encoded.objects) - show} more")


async def _nothing() -> AsyncIterator[Batch]:
    return
    yield


def _show_rows(console: Console, rows: pa.RecordBatch, show: int) -> None:
    table = Table(title="rows", title_justify="left")
    names = [name for name in rows.schema.names if name != ROW]
    for name in names:
        table.add_column(f"{name}\n{rows.schema.field(name).type}", overflow="fold")
    for row in rows.slice(0, show).select(names).to_pylist():
        table.add_row(*(Text("null", style="dim") if row[name] is None else Text(str(row[name])) for name in names))
    console.print(table)
