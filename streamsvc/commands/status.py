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
    owner: str | None
    parents: list[str]


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
    owners, parents = await inspected.source.owners(), inspected.source.parents()
    rows = [
        SplitRow(
            split=split,
            epoch=standing.cursor.epoch,
            committed=standing.cursor.position,
            end=ends[split],
            lag_records=lags[split].records if split in lags else None,
            lag_milliseconds=lags[split].milliseconds if split in lags else None,
            pending_segment=standing.pending.segment if standing.pending else None,
            owner=owners.get(split),
            parents=sorted(parents.get(split, ())),
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
        console.print(_table(pipeline["splits"]))
        for outcome in pipeline["last_segments"]:
            rows = sum(item["rows"] for item in outcome["objects"])
            detail = outcome["reason"] or f"{len(outcome['objects'])} objects, {rows:,} rows"
            console.print(f"  {outcome['segment']}  {outcome['state']}  {detail}", highlight=False, markup=False)


def _table(rows: list[SplitRow]) -> Table:
    """Owners and parents are shown where there are any."""
    table = Table()
    for heading in ("split", "committed up to", "end", "lag", "pending segment"):
        table.add_column(heading, justify="right" if heading in {"committed up to", "end", "lag"} else "left")
    has_owners, has_parents = any(row["owner"] for row in rows), any(row["parents"] for row in rows)
    for heading in ["owner"] * has_owners + ["parents"] * has_parents:
        table.add_column(heading)
    for row in rows:
        table.add_row(
            Text(row["split"]),
            place_text(row["committed"]),
            place_text(row["end"]),
            _lag(row),
            row["pending_segment"] or "–",
            *([Text(row["owner"] or "–")] if has_owners else []),
            *([Text(", ".join(row["parents"]) or "–")] if has_parents else []),
        )
    return table


def place_text(position: Position) -> str:
    """Kafka's offsets as numbers; other positions as they are."""
    return f"{offset_of(position):,}" if position.isdecimal() else position


def _lag(row: SplitRow) -> str:
    if row["lag_records"] is not None:
        return f"{row['lag_records']:,}"
    return "–" if row["lag_milliseconds"] is None else f"{row['lag_milliseconds'] / 1000:,.1f} s"
