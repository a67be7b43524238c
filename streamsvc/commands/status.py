"""``streamsvc status``: what the log and the source say, whether or not the service runs."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypedDict

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamsvc.app import Inspected, inspect, load, selected
from streamsvc.config import Service
from streamsvc.core.offsets import offset_of
from streamsvc.ops import logs
from streamsvc.records import Position

LAST_OUTCOMES = 5


class SplitRow(TypedDict):
    split: str
    epoch: int
    committed: str
    end: str
    lag_records: int | None
    lag_milliseconds: int | None
    pending_segment: str | None


def status(file: Path, pipeline: str | None, *, as_json: bool) -> int:
    """Answers the exit code. Raises what the store or the source raise."""
    logs.configure("error")
    service = load(file)
    answer = asyncio.run(_ask(service, selected(service, pipeline)))
    if as_json:
        print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
    else:
        _show(Console(), answer)
    return 0


async def _ask(service: Service, pipelines: list[str]) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        return {name: await _ask_one(await inspect(service, name, stack)) for name in pipelines}


async def _ask_one(inspected: Inspected) -> dict[str, Any]:
    ends = await inspected.source.ends()
    standings = await inspected.log.standings(sorted(ends))
    outcomes = await inspected.log.history(LAST_OUTCOMES)
    lags = await inspected.source.lag({split: standing.cursor.position for split, standing in standings.items()})
    rows = [
        SplitRow(
            split=split,
            epoch=standing.cursor.epoch,
            committed=standing.cursor.position,
            end=ends[split],
            lag_records=lags[split].records if split in lags else None,
            lag_milliseconds=lags[split].milliseconds if split in lags else None,
            pending_segment=standing.pending.segment if standing.pending else None,
        )
        for split, standing in standings.items()
    ]
    return {
        "state": inspected.state,
        "splits": rows,
        "last_segments": [
            {
                "segment": outcome.segment,
                "state": outcome.state,
                "worker": outcome.worker,
                "reason": outcome.reason,
                "objects": [{"url": item.url, "rows": item.rows, "nbytes": item.nbytes} for item in outcome.objects],
            }
            for outcome in outcomes
        ],
    }


def _show(console: Console, answer: dict[str, Any]) -> None:
    for name, pipeline in answer.items():
        console.print(f"[bold]{name}[/bold]  log in {pipeline['state']}", highlight=False)
        table = Table()
        for heading in ("split", "committed up to", "end", "lag", "pending segment"):
            table.add_column(heading, justify="right" if heading in {"committed up to", "end", "lag"} else "left")
        for row in pipeline["splits"]:
            table.add_row(
                Text(row["split"]),
                _place(row["committed"]),
                _place(row["end"]),
                _lag(row),
                row["pending_segment"] or "–",
            )
        console.print(table)
        for outcome in pipeline["last_segments"]:
            rows = sum(item["rows"] for item in outcome["objects"])
            detail = outcome["reason"] or f"{len(outcome['objects'])} objects, {rows:,} rows"
            console.print(f"  {outcome['segment']}  {outcome['state']}  {detail}", highlight=False, markup=False)


def _place(position: Position) -> str:
    """Kafka's offsets as numbers; other positions as they are."""
    return f"{offset_of(position):,}" if position.isdecimal() else position


def _lag(row: SplitRow) -> str:
    if row["lag_records"] is not None:
        return f"{row['lag_records']:,}"
    return "–" if row["lag_milliseconds"] is None else f"{row['lag_milliseconds'] / 1000:,.1f} s"
