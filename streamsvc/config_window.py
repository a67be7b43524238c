"""The models of windows: ``pipelines.<name>.window`` of a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field

from streamsvc.config_types import Address, Model, Seconds, SqlStep, Whole

ARRIVAL = "arrival"
"""``time:`` of windows over when records arrived, which no column says."""

DAY_US = 86_400_000_000
MAX_SIZE_DAYS = 7
MAX_OVERLAP = 100
MAX_WAIT_DAYS = 3_650
"""Of what is added to times, which must stay far from where int64 ends."""

_OF_SQL = ("tumble", "hop", "time", "group_by", "aggregate", "having")


def microseconds(seconds: float) -> int:
    """As windows count."""
    return round(seconds * 1_000_000)


class EventTime(Model):
    """A column that says when."""

    column: str = Field(min_length=1, description="Its name.")
    unit: Literal["s", "ms", "us"] | None = Field(
        default=None, description="Of a column of whole numbers, since 1970-01-01 UTC; not for one of timestamps."
    )


class Late(Model):
    """Rows that came after their window could wait for them, with the window that they missed."""

    path: Address = Field(description="The prefix of these objects; apart from every other prefix.")


class Window(Model):
    """Windows in event time: rows are aggregated, a result for each window and group. Either `sql`, or the keys from
    `tumble` to `having`."""

    tumble: Seconds | None = Field(
        default=None, description="The length of a window, 1s to 7d. Windows are [start, end), aligned to 1970-01-01."
    )
    hop: Seconds | None = Field(
        default=None,
        description="A window begins this often, each of the length of `tumble`, which is a multiple of it; left out,"
        " one begins where the other ends.",
    )
    time: str | EventTime | None = Field(
        default=None, description="When a row is: a timestamp column; or arrival, when the record came."
    )
    group_by: list[str] | dict[str, str] = Field(
        default_factory=list, description="Columns; or name: SQL expression over the columns."
    )
    aggregate: dict[str, str] = Field(
        default_factory=dict,
        description="name: SQL expression with count, sum, min, max, avg, stddev, variance, first, last (by event"
        " time), approx_count_distinct (within about 1.6 %), approx_quantile(x, q) (within 0.8 %), each with or without"
        " FILTER (WHERE ...). Sums are exact.",
    )
    having: str | None = Field(
        default=None, min_length=1, description="A condition over groups and aggregates; others have no result."
    )
    sql: str | None = Field(
        default=None,
        min_length=1,
        description="All of it as one statement: SELECT window_start, response, count(*) AS requests FROM TUMBLE(input,"
        " datetime, INTERVAL 5 MINUTE) GROUP BY window_start, response; or HOP(input, time, size, every).",
    )
    then: list[SqlStep] = Field(default_factory=list, description="Steps over results, one after another.")
    offset: Seconds = Field(default=0.0, description="Windows begin so much later.")
    timezone: str = Field(
        default="UTC",
        description="Of windows of whole days: from midnight to midnight there, also where a day has 23 or 25 hours.",
    )
    disorder: Seconds = Field(default=10.0, description="The watermark is the newest event time less this.")
    lateness: Seconds = Field(default=30.0, description="How long after that a window still takes rows.")
    max_ahead: Seconds = Field(
        default=3600.0, description="A row further ahead of its arrival than this is a reject: a clock is wrong."
    )
    interval: Seconds = Field(
        default=5.0, gt=0, description="How often what was read is committed; results come that much later at most."
    )
    max_groups: Whole = Field(
        default=100_000,
        description="Pairs of window and group that a split may bring between two commits; a record that would bring"
        " one more is a reject.",
    )
    close_idle_after: Seconds | None = Field(
        default=None, description="Close the last windows after so much silence, by the clock; never, if left out."
    )
    late: Late | None = Field(default=None, description="Where late rows go; `<state>/late/<pipeline>` if left out.")

    @property
    def size_us(self) -> int:
        assert self.tumble is not None, "`sql` was taken apart"
        return microseconds(self.tumble)

    @property
    def hop_us(self) -> int:
        return self.size_us if self.hop is None else microseconds(self.hop)

    @property
    def groups(self) -> Mapping[str, str]:
        """SQL by name."""
        if isinstance(self.group_by, dict):
            return self.group_by
        return {column: f'"{column.replace(chr(34), 2 * chr(34))}"' for column in self.group_by}


def window_faults(window: Window) -> Iterator[tuple[tuple[str, ...], str]]:
    """Keys, and what is wrong with their values although each is right by itself."""
    yield from _zone_faults(window)
    for key, seconds in (("disorder", window.disorder), ("lateness", window.lateness), ("max_ahead", window.max_ahead)):
        if seconds > MAX_WAIT_DAYS * 86_400:
            yield (key,), f"must be at most {MAX_WAIT_DAYS}d"
    if window.sql is not None:
        for key in _OF_SQL:
            if key in window.model_fields_set:
                yield (key,), "the statement in `sql` says this already: write one or the other"
        return
    missing = [key for key in ("tumble", "time", "aggregate") if not getattr(window, key)]
    if missing:
        yield (), f"{' and '.join(f'`{key}`' for key in missing)} missing; or write all of it as `sql`"
    if window.tumble:
        yield from shape_faults(window)


def shape_faults(window: Window) -> Iterator[tuple[tuple[str, ...], str]]:
    """Of a window that has a length."""
    if not 1_000_000 <= window.size_us <= MAX_SIZE_DAYS * DAY_US:
        yield ("tumble",), f"must be from 1s to {MAX_SIZE_DAYS}d"
    elif window.size_us % 1_000:
        yield ("tumble",), "must be whole milliseconds"
    if window.hop is not None and (window.hop_us <= 0 or window.size_us % window.hop_us):
        yield ("hop",), "`tumble` must be a multiple of it: windows are made of whole hops"
    elif window.size_us // window.hop_us > MAX_OVERLAP:
        yield ("hop",), f"every row would be in more than {MAX_OVERLAP} windows: make it longer"
    if window.timezone != "UTC" and (window.size_us % DAY_US or window.hop_us % DAY_US):
        key = "tumble" if window.size_us % DAY_US else "hop"
        yield (key,), "with a `timezone` windows are of whole days: 1d to 7d (shorter ones: move them with `offset`)"
    if microseconds(window.offset) >= window.size_us:
        yield ("offset",), "must be less than the length of a window"


def _zone_faults(window: Window) -> Iterator[tuple[tuple[str, ...], str]]:
    try:
        ZoneInfo(window.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield ("timezone",), "is no zone of the IANA database; write for example Europe/Berlin"
