"""``streamsvc status``: what the log and the source say, whether or not the service runs, or the source answers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamsvc.app import load, log_of, onlooker_of, open_windows, selected, state_url
from streamsvc.commands.shard_tree import Shard, children_of, is_shard, shard_tree, state_of
from streamsvc.config import Service
from streamsvc.contracts import Inspectable, Lag
from streamsvc.core.offsets import offset_of
from streamsvc.core.segments import Standing
from streamsvc.errors import PositionLost, SourceRefused, SourceUnavailable, StreamsvcError, WindowsChanged
from streamsvc.log.segment_log import SegmentLog
from streamsvc.ops import logs
from streamsvc.ops.health import WindowsStatus
from streamsvc.ops.metrics import Metrics
from streamsvc.records import Position, Split
from streamsvc.runtime.replay import is_reject_object

T = TypeVar("T")

LAST_OUTCOMES = 5
RESULTS_SHOWN = 10
SOURCE_PATIENCE_S = 10.0
"""For each question to a source. One that cannot be reached says so sooner."""


class SplitRow(TypedDict):
    split: str
    epoch: int
    committed: str
    end: str | None
    lag_records: int | None
    lag_milliseconds: int | None
    pending_segment: str | None
    owner: str | None
    parents: list[str]
    children: list[str]
    state: str | None
    """Of a shard: ``open``, ``closed``, ``waiting`` (for its parents) or ``landed``."""


@dataclass(slots=True)
class Told:
    """What a source has said, and why it says no more."""

    problem: str | None = None
    ends: Mapping[Split, Position] = field(default_factory=dict)
    lags: Mapping[Split, Lag] = field(default_factory=dict)
    owners: Mapping[Split, str] = field(default_factory=dict)
    parents: Mapping[Split, frozenset[Split]] = field(default_factory=dict)


def status(file: Path, pipeline: str | None, *, as_json: bool) -> int:
    """Answers the exit code: 1 if a source does not answer. Raises what the store raises."""
    logs.configure("error")
    service = load(file)
    answer = asyncio.run(_ask(service, selected(service, pipeline)))
    if as_json:
        print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
    else:
        _show(Console(), answer)
    return 1 if any(told["source_problem"] for told in answer.values()) else 0


async def _ask(service: Service, pipelines: list[str]) -> dict[str, Any]:
    return {name: await _ask_one(service, name) for name in pipelines}


async def _ask_one(service: Service, name: str) -> dict[str, Any]:
    log = log_of(service, name)
    outcomes = await log.history(LAST_OUTCOMES)
    told, standings = await _ask_source(onlooker_of(service, name, Metrics(service.service)), log)
    return {
        "state": state_url(service, name),
        "source_problem": told.problem,
        **await _windows(service, name),
        "splits": _related([_row(split, standing, told) for split, standing in sorted(standings.items())]),
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


async def _windows(service: Service, name: str) -> dict[str, Any]:
    """Of a windowed pipeline."""
    if service.pipelines[name].window is None:
        return {}
    try:
        return {"windows": await open_windows(service, name)}
    except WindowsChanged as changed:
        return {"windows": None, "windows_problem": _in_a_line(changed)}


async def _ask_source(source: Inspectable, log: SegmentLog) -> tuple[Told, dict[Split, Standing]]:
    """Of the splits that there are; if the source does not answer, of those that the log knows."""
    told = Told()
    standings: dict[Split, Standing] = {}
    try:
        async with AsyncExitStack() as stack:
            await _in_time(stack.enter_async_context(source))
            told.ends = await _in_time(source.ends())
            standings = await log.standings(sorted(told.ends))
            places = {split: standing.cursor.position for split, standing in standings.items()}
            told.lags = await _in_time(source.lag(places))
            told.owners, told.parents = await _in_time(source.owners()), source.parents()
    except TimeoutError:
        told.problem = f"the source has not answered within {SOURCE_PATIENCE_S:.0f} s"
    except (SourceUnavailable, SourceRefused, PositionLost) as error:
        told.problem = _in_a_line(error)
    if not standings:
        known = [split for split in await log.known_splits() if not is_reject_object(split)]
        standings = await log.standings(known)
    return told, standings


async def _in_time(answer: Coroutine[Any, Any, T]) -> T:
    return await asyncio.wait_for(answer, SOURCE_PATIENCE_S)


def _row(split: Split, standing: Standing, told: Told) -> SplitRow:
    lag = told.lags.get(split, Lag())
    return SplitRow(
        split=split,
        epoch=standing.cursor.epoch,
        committed=standing.cursor.position,
        end=told.ends.get(split),
        lag_records=lag.records,
        lag_milliseconds=lag.milliseconds,
        pending_segment=standing.pending.segment if standing.pending else None,
        owner=told.owners.get(split),
        parents=sorted(told.parents.get(split, ())),
        children=[],
        state=None,
    )


def _related(rows: list[SplitRow]) -> list[SplitRow]:
    """What hangs on the rows of others."""
    shards = _shards(rows)
    for row in rows:
        if row["split"] in shards:
            row["children"] = children_of(row["split"], shards)
            row["state"] = state_of(row["split"], shards)
    return rows


def _shards(rows: list[SplitRow]) -> dict[Split, Shard]:
    """Those of Kinesis."""
    return {
        row["split"]: Shard(
            row["committed"],
            row["end"],
            row["lag_milliseconds"],
            row["owner"],
            row["pending_segment"],
            row["parents"],
        )
        for row in rows
        if is_shard(row["split"], row["committed"])
    }


def _in_a_line(error: StreamsvcError) -> str:
    return " ".join(str(error).split())


def _show(console: Console, answer: dict[str, Any]) -> None:
    for name, pipeline in answer.items():
        console.print(f"[bold]{name}[/bold]  log in {pipeline['state']}", highlight=False)
        if pipeline["source_problem"]:
            console.print(Text(f"the source: {pipeline['source_problem']}", style="red"), soft_wrap=True)
        if shards := _shards(pipeline["splits"]):
            console.print(shard_tree(shards), soft_wrap=True)
        elif pipeline["splits"]:
            console.print(_table(pipeline["splits"]))
        else:
            console.print("  nothing has landed yet, and no split is known")
        _show_windows(console, pipeline)
        for outcome in pipeline["last_segments"]:
            rows = sum(item["rows"] for item in outcome["objects"])
            detail = outcome["reason"] or f"{len(outcome['objects'])} objects, {rows:,} rows"
            console.print(f"  {outcome['segment']}  {outcome['state']}  {detail}", highlight=False, markup=False)


def _held(windows: WindowsStatus) -> str:
    """Why no window closes."""
    if windows["held_by"] is None:
        return ""
    return f", which is that of {windows['held_by']} since {windows['held_since'] or 'it began'}"


def _show_windows(console: Console, pipeline: dict[str, Any]) -> None:
    if "windows_problem" in pipeline:
        console.print(Text(pipeline["windows_problem"], style="red"), soft_wrap=True)
    windows: WindowsStatus | None = pipeline.get("windows")
    if windows is None:
        return
    console.print(
        f"  {windows['open']:,} windows are open with {windows['groups']:,} groups, as far as committed: provisional;"
        f" watermark {windows['watermark'] or '–'}{_held(windows)}",
        highlight=False,
        soft_wrap=True,
    )
    if windows["unfinished"]:
        console.print(f"  {windows['unfinished']:,} windows are closed, and their results not written", style="red")
    for window in windows["windows"]:
        console.print(f"  {window['window_start']} to {window['window_end']}", highlight=False)
        for row in window["rows"][:RESULTS_SHOWN]:
            values = [
                f"{name} {'–' if value is None else value}"
                for name, value in row.items()
                if name not in ("window_start", "window_end")
            ]
            console.print(f"    {', '.join(values)}", highlight=False, markup=False, soft_wrap=True)
        more = window["rows_left_out"] + max(0, len(window["rows"]) - RESULTS_SHOWN)
        if more:
            console.print(f"    and {more:,} more", highlight=False)


def _table(rows: list[SplitRow]) -> Table:
    table = Table()
    for heading in ("split", "committed up to", "end", "lag", "pending segment"):
        table.add_column(heading, justify="right" if heading in {"committed up to", "end", "lag"} else "left")
    for row in rows:
        table.add_row(
            Text(row["split"]),
            place_text(row["committed"]),
            place_text(row["end"]) if row["end"] is not None else "?",
            _lag(row),
            row["pending_segment"] or "–",
        )
    return table


def place_text(position: Position) -> str:
    """Kafka's offsets as numbers; other positions as they are."""
    return f"{offset_of(position):,}" if position.isdecimal() else position


def _lag(row: SplitRow) -> str:
    if row["lag_records"] is not None:
        return f"{row['lag_records']:,}"
    return "–" if row["lag_milliseconds"] is None else f"{row['lag_milliseconds'] / 1000:,.1f} s"
