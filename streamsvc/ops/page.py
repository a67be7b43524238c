"""The live page: what the service is doing, for people. No script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape

from streamsvc.core.offsets import offset_of
from streamsvc.ops.health import (
    ObjectStatus,
    PipelineStatus,
    Problems,
    ServiceStatus,
    SplitStatus,
    WindowsStatus,
    WindowStatus,
    WorkerStatus,
)

REFRESH_S = 2
SPLITS_SHOWN = 64
OBJECTS_SHOWN = 12
POSITION_SHOWN = 20
WINDOWS_SHOWN = 2
RESULTS_SHOWN = 12

_BOUNDS = ("window_start", "window_end")
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def html(template: str, **values: object) -> Html:
    """The template with every value escaped that is not ``Html``."""
    safe = {name: value if isinstance(value, Html) else escape(str(value)) for name, value in values.items()}
    return Html(template.format_map(safe))


def joined(parts: Iterable[Html]) -> Html:
    return Html("".join(parts))


def status_page(status: ServiceStatus, problems: Problems, now: datetime) -> str:
    workers = status["workers"]
    names = sorted({name for worker in workers for name in worker["pipelines"]})
    return html(
        _PAGE,
        style=Html(_STYLE),
        refresh_s=REFRESH_S,
        service=status["service"],
        version=status["version"],
        started=_short_time(status["started"]),
        state=html('<b class="bad">not ready</b>') if problems else html('<b class="good">ready</b>'),
        problems=_problems(problems),
        workers=joined(map(_worker, workers)),
        pipelines=joined(
            _pipeline(name, [worker["pipelines"][name] for worker in workers if name in worker["pipelines"]], now)
            for name in names
        ),
    )


def _problems(problems: Problems) -> Html:
    if not problems:
        return Html("")
    items = joined(html("<li><b>{part}</b> {what}</li>", part=part, what=what) for part, what in problems.items())
    return html('<ul class="problems">{items}</ul>', items=items)


def _worker(worker: WorkerStatus) -> Html:
    used, budget = worker["memory_used_bytes"], worker["memory_budget_bytes"]
    return html(
        _WORKER,
        worker=worker["worker"],
        pid=worker["pid"],
        restarts=html(" · {n} restarts", n=worker["restarts"]) if worker["restarts"] else "",
        used=_size(used),
        budget=_size(budget),
        share=min(1.0, used / budget) if budget else 0,
    )


def _pipeline(name: str, parts: list[PipelineStatus], now: datetime) -> Html:
    """One pipeline, from what each worker says of its share."""
    rejects = sum((Counter(part["rejects"]) for part in parts), Counter[str]())
    splits = sorted((split for part in parts for split in part["splits"]), key=lambda split: split["split"])
    commits = [part["last_commit"] for part in parts if part["last_commit"]]
    return html(
        _PIPELINE,
        name=name,
        source=parts[0]["source"],
        sink=parts[0]["sink"],
        read=_count(sum(part["records_read"] for part in parts)),
        landed=_count(sum(part["rows_landed"] for part in parts)),
        rejected=_count(rejects.total()),
        rejected_class="bad" if rejects else "",
        lag=_lag_of_all(splits),
        commit=_ago(max(commits), now) if commits else "–",
        filling=joined(map(_filling, parts)),
        reasons=_reasons(rejects),
        windows=_windows([part["windows"] for part in parts if part["windows"]]),
        splits=_splits(splits),
        objects=_objects([item for part in parts for item in part["last_objects"]][:OBJECTS_SHOWN], parts[0]["sink"]),
    )


def _filling(part: PipelineStatus) -> Html:
    landing = " One before it is landing." if part["landing"] else ""
    filling = part["open_segment"]
    if filling is None:
        return html("<p>No open segment.{landing}</p>", landing=landing)
    return html(
        "<p>Open segment: {records} records, {size}, {age} s old.{landing}</p>",
        records=_count(filling["records"]),
        size=_size(filling["nbytes"]),
        age=round(filling["age_s"]),
        landing=landing,
    )


def _reasons(rejects: Counter[str]) -> Html:
    if not rejects:
        return Html("")
    text = ", ".join(f"{reason} {_count(n)}" for reason, n in rejects.most_common())
    return html("<p>Rejects by reason: {text}.</p>", text=text)


def _windows(parts: list[WindowsStatus]) -> Html:
    """What the worker says that has looked last: each has looked at the same windows."""
    if not parts:
        return Html("")
    status = max(parts, key=lambda part: part["as_of"])
    return html(
        _WINDOWS,
        open=_open(status),
        groups=_count(status["groups"]),
        watermark=_short_time(status["watermark"]) if status["watermark"] else "–",
        held=_held(status),
        tables=joined(map(_window, status["windows"][:WINDOWS_SHOWN])),
    )


def _open(status: WindowsStatus) -> str:
    waiting = f", {_count(status['unfinished'])} closed without results" if status["unfinished"] else ""
    return f"{_count(status['open'])} open{waiting}"


def _held(status: WindowsStatus) -> str:
    """Which split all others wait for."""
    if status["held_by"] is None:
        return ""
    since = f" since {_short_time(status['held_since'])}" if status["held_since"] else ""
    return f", of {status['held_by']}{since}"


def _window(window: WindowStatus) -> Html:
    shown = window["rows"][:RESULTS_SHOWN]
    sides = {name: _side(row[name] for row in shown) for name in (shown[0] if shown else {}) if name not in _BOUNDS}
    return html(
        _WINDOW,
        start=_short_time(window["window_start"]),
        end=_short_time(window["window_end"]),
        heads=joined(html("<th{side}>{name}", side=side, name=name) for name, side in sides.items()),
        rows=joined(_result(row, sides) for row in shown),
        more=_left_out(window["rows_left_out"] + len(window["rows"]) - len(shown)),
    )


def _result(row: Mapping[str, object], sides: Mapping[str, Html]) -> Html:
    cells = joined(html("<td{side}>{value}", side=side, value=_value(row[name])) for name, side in sides.items())
    return html("<tr>{cells}", cells=cells)


def _side(values: Iterable[object]) -> Html:
    """Of a column: numbers stand on the right."""
    return Html(" class=n") if any(isinstance(value, int | float) for value in values) else Html("")


def _value(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _left_out(rows: int) -> str:
    return f"and {rows:,} more; /windows has some" if rows else ""


def _splits(splits: list[SplitStatus]) -> Html:
    if not splits:
        return html("<p>No splits assigned.</p>")
    rows = joined(
        html(
            "<tr><td>{split}{origin}<td class=n>{position}<td class=n>{lag}",
            split=item["split"],
            origin=_origin(item),
            position=_short_position(item["position"]),
            lag=_lag(item["lag_records"], item["lag_milliseconds"]),
        )
        for item in splits[:SPLITS_SHOWN]
    )
    more = f"and {len(splits) - SPLITS_SHOWN} more; all are in /status" if len(splits) > SPLITS_SHOWN else ""
    return html(_SPLITS, rows=rows, more=more)


def _origin(item: SplitStatus) -> Html:
    parents = item.get("parents")
    return html("<br><small>from {parents}</small>", parents=", ".join(parents)) if parents else Html("")


def _short_position(position: str) -> Html:
    """Kafka's are offsets. Those of Kinesis have 68 characters, of which the last tell one from its neighbours."""
    if position.isdecimal():
        return html("{offset}", offset=_count(offset_of(position)))
    if len(position) <= POSITION_SHOWN:
        return html("{position}", position=position)
    return html('<span title="{position}">…{tail}</span>', position=position, tail=position[-POSITION_SHOWN:])


def _lag_of_all(splits: list[SplitStatus]) -> str:
    """Records add up; of times, the longest counts."""
    records = [split["lag_records"] for split in splits if split["lag_records"] is not None]
    milliseconds = [split["lag_milliseconds"] for split in splits if split["lag_milliseconds"] is not None]
    return _lag(sum(records) if records else None, max(milliseconds, default=None))


def _lag(records: int | None, milliseconds: int | None) -> str:
    if records is not None:
        return _count(records)
    return "–" if milliseconds is None else f"{milliseconds / 1000:,.1f} s"


def _objects(objects: list[ObjectStatus], sink: str) -> Html:
    """Below the sink, their addresses begin behind it."""
    if not objects:
        return Html("")
    rows = joined(
        html(
            '<tr><td class=url title="{url}">{name}<td>{kind}<td class=n>{rows}<td class=n>{size}',
            url=item["url"],
            name=item["url"].removeprefix(f"{sink.rstrip('/')}/"),
            kind=item["kind"],
            rows=_count(item["rows"]),
            size=_size(item["nbytes"]),
        )
        for item in objects
    )
    return html(_OBJECTS, rows=rows)


def _count(number: int) -> str:
    return f"{number:,}"


def _size(nbytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"


def _ago(iso: str, now: datetime) -> Html:
    """How long ago, in the largest unit that fits; when exactly, for who points at it."""
    seconds = max(0, int((now - datetime.fromisoformat(iso)).total_seconds()))
    unit, size = next((unit, size) for unit, size in _UNITS if seconds >= 2 * size or size == 1)
    return html('<span title="{at}">{number} {unit} ago</span>', at=_short_time(iso), number=seconds // size, unit=unit)


def _short_time(iso: str) -> str:
    return iso[:19].replace("T", " ") + " UTC"


_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{refresh_s}">
<title>{service}</title>
<style>{style}</style>
<header><h1>{service}</h1>{state}<small>streamsvc {version} · since {started}</small></header>
{problems}
{workers}
{pipelines}
<footer><a href="/status">status</a> <a href="/windows">windows</a> <a href="/metrics">metrics</a>
<a href="/livez">livez</a> <a href="/readyz">readyz</a></footer>
</html>
"""

_WORKER = """\
<p class="worker"><span>worker {worker} · pid {pid}{restarts}</span>
<meter value="{share}" high="0.9"></meter> <span>{used} of {budget} buffered</span></p>
"""

_PIPELINE = """\
<section><h2>{name}</h2><p class="path">{source} → {sink}</p>
<dl><div><dt>read<dd>{read}</div><div><dt>landed<dd>{landed}</div>
<div><dt>rejected<dd class="{rejected_class}">{rejected}</div><div><dt>lag<dd>{lag}</div>
<div><dt>last commit<dd>{commit}</div></dl>
{filling}{reasons}{windows}{splits}{objects}</section>
"""

_SPLITS = """\
<table><thead><tr><th>split<th class=n>landed up to<th class=n>lag<tbody>{rows}</table><p>{more}</p>
"""

_WINDOWS = """\
<h3>Open windows <small>provisional · {open}, {groups} groups · watermark {watermark}{held}</small></h3>
{tables}
"""

_WINDOW = """\
<table><caption>{start} – {end}</caption><thead><tr>{heads}<tbody>{rows}</table><p>{more}</p>
"""

_OBJECTS = """\
<table class=objects><thead><tr><th>last objects<th>kind<th class=n>rows<th class=n>size<tbody>{rows}</table>
"""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; --good: #1a7f37; --bad: #c62f2f }
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --bad: #ff7b72 } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: .75rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.15rem; margin: 0 }
h3 { font-size: 1rem; margin: 1rem 0 0 } caption { text-align: left }
small, caption, .path, dt, th, footer, .worker { color: var(--soft); font-weight: 400 }
.good { color: var(--good) } .bad { color: var(--bad) }
.problems { border-left: 3px solid var(--bad); padding: .3rem .3rem .3rem 1.5rem }
.worker { display: flex; align-items: center; gap: .75rem; margin: .3rem 0 } meter { width: 10rem }
section { border: 1px solid var(--line); border-radius: 8px; padding: 1rem 1.25rem; margin: 1rem 0 }
section p { margin: .4rem 0 } .path, .url { overflow-wrap: anywhere }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; margin: .8rem 0 } dd { margin: 0; font-size: 1.25rem }
table { width: 100%; border-collapse: collapse; margin-top: .8rem; font-size: .87rem }
th { text-align: left }
td, th { padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td:last-child, th:last-child { padding-right: 0 }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td { font-family: ui-monospace, monospace }
footer { display: flex; gap: 1rem }
@media (max-width: 36rem) {
  section { padding: .8rem } .objects thead { display: none } .objects td { border: 0 } .objects .url { width: 100% }
  .objects tr { display: flex; flex-wrap: wrap; justify-content: space-between; border-bottom: 1px solid var(--line) }
}
"""
