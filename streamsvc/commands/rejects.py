"""``streamsvc rejects``: what could not be decoded or placed, why, and, with ``--replay``, another try."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamsvc.app import RejectsOf, load, rejects_of, replay_of, selected
from streamsvc.commands.status import place_text
from streamsvc.config import Service
from streamsvc.ops import logs
from streamsvc.runtime.replay import split_of

SHOWN_BYTES = 120


def rejects(file: Path, pipeline: str | None, *, replay: bool, limit: int, as_json: bool) -> int:
    """Answers the exit code."""
    service = load(file)
    logs.configure("warning")
    for name in selected(service, pipeline):
        if replay:
            asyncio.run(_replay(service, name, as_json=as_json))
        else:
            asyncio.run(_list(service, name, limit, as_json=as_json))
    return 0


async def _replay(service: Service, name: str, *, as_json: bool) -> None:
    report = await (await replay_of(service, name)).run()
    answer = {
        "pipeline": name,
        "objects": report.objects,
        "records": report.records,
        "landed_before": report.landed_before,
        "landed": report.landed,
        "still_rejected": dict(report.still_rejected),
    }
    if as_json:
        print(orjson.dumps(answer).decode())
    else:
        print(
            f"{name}: {report.records:,} rejects in {report.objects:,} objects; landed now {report.landed:,}, "
            f"before {report.landed_before:,}; still rejected: {in_words(report.still_rejected)}"
        )


async def _list(service: Service, name: str, limit: int, *, as_json: bool) -> None:
    found = rejects_of(service, name)
    reasons: Counter[str] = Counter()
    newest: list[dict[str, Any]] = []
    objects = replayed = 0
    async for key, records, landed in _objects(found):
        objects += 1
        replayed += len(landed)
        rows = records.to_pylist()
        for number, row in enumerate(rows):
            if number not in landed:
                reasons[row["reason"]] += 1
                newest.append({**row, "object": key})
        newest = newest[-limit:] if limit else []
    if as_json:
        answer = {"pipeline": name, "objects": objects, "replayed": replayed, "reasons": dict(reasons)}
        print(orjson.dumps(answer).decode())
        for row in newest:
            print(orjson.dumps({part: _plain(value) for part, value in row.items()}).decode())
        return
    _show(Console(), f"{name}: {reasons.total():,} rejects in {objects:,} objects", reasons, newest)
    if replayed:
        print(f"{replayed:,} more were landed by replays")


async def _objects(found: RejectsOf) -> AsyncIterator[tuple[str, pa.Table, frozenset[int]]]:
    async for entry in found.store.list(""):
        body = await found.store.get(entry.key)
        if body is not None:
            standing = await found.log.standing(split_of(entry.key))
            yield entry.key, pa.Table.from_batches(list(found.read(body))), standing.landed


def in_words(reasons: Mapping[str, int]) -> str:
    """How many, and for which reasons."""
    return ", ".join(f"{reason} {count:,}" for reason, count in reasons.items()) or "none"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, list):
        return [[part, _plain(inner)] for part, inner in value]
    return value


def _show(console: Console, title: str, reasons: Counter[str], newest: list[dict[str, Any]]) -> None:
    console.print(f"[bold]{title}[/bold]", highlight=False)
    for reason, count in reasons.most_common():
        console.print(f"  {reason:<28} {count:>10,}", highlight=False, markup=False)
    show_records(console, "the last of them", newest)


def show_records(console: Console, title: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Rejects as a table; nothing where there are none."""
    if not records:
        return
    table = Table(title=title, title_justify="left", show_lines=True)
    for heading in ("split, position", "reason", "error", "value"):
        table.add_column(heading, overflow="fold", no_wrap=heading in {"split, position", "reason"})
    for row in records:
        value = _plain(row["value"])
        shown = "(none)" if value is None else value[:SHOWN_BYTES] + ("…" if len(value) > SHOWN_BYTES else "")
        place = f"{row['split']}\n{place_text(row['position'])}"
        table.add_row(Text(place), Text(row["reason"]), Text(row["error"]), Text(shown))
    console.print(table)
