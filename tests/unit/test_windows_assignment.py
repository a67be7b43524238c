"""Which windows an event belongs to, against zoneinfo's own reckoning."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.windows.assignment import (
    DAY,
    FIRST_TIME,
    LAST_TIME,
    SECOND,
    DayWindows,
    FixedWindows,
    Windows,
    in_range,
    window_name,
)

HOUR = 3600 * SECOND
times = st.integers(FIRST_TIME, LAST_TIME)
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/Sao_Paulo",
    "America/Havana",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "Asia/Beirut",
    "Africa/Cairo",
    "Asia/Kathmandu",
    "America/Toronto",
    "Asia/Manila",
    "America/Juneau",
    "Australia/Lord_Howe",
]


def at(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


def pairs(windows: Windows, *instants: int) -> list[tuple[int, int, int]]:
    """Number of the event, start and end of each membership."""
    members, starts, ends = windows.assign(np.array(instants, np.int64))
    rows = range(len(instants)) if members is None else members.tolist()
    return list(zip(rows, starts.tolist(), ends.tolist(), strict=True))


@given(times, st.integers(1, 7 * DAY // SECOND), st.integers(-10 * DAY, 10 * DAY))
def test_an_event_is_in_one_tumbling_window(time: int, size_s: int, offset: int) -> None:
    windows = FixedWindows(size_s * SECOND, size_s * SECOND, offset)
    [(_, start, end)] = pairs(windows, time)
    assert start <= time < end == start + size_s * SECOND
    assert (start - offset) % (size_s * SECOND) == 0
    assert windows.window(start).end_us == end


@given(st.lists(times, min_size=1, max_size=5), st.integers(1, 3600), st.integers(1, 12), st.integers(0, DAY))
def test_an_event_is_in_as_many_hopping_windows_as_overlap(
    instants: list[int], hop_s: int, overlap: int, offset: int
) -> None:
    hop = hop_s * SECOND
    found = pairs(FixedWindows(hop * overlap, hop, offset), *instants)
    assert len(found) == len(instants) * overlap
    assert sorted(found) == found
    assert all(start <= instants[row] < end and (start - offset) % hop == 0 for row, start, end in found)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("Europe/Berlin", "2026-06-01", 24),
        ("America/Sao_Paulo", "2018-11-04", 23),  # 00:00 does not exist
        ("America/Sao_Paulo", "2018-02-17", 25),  # 00:00 goes back to 23:00 of the same day
        ("America/Havana", "2026-11-01", 25),  # 01:00 goes back to 00:00, which occurs twice
        ("America/Havana", "2026-03-08", 23),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
    ],
)
def test_days_have_the_length_that_clocks_give_them(zone: str, day: str, hours: float) -> None:
    windows = DayWindows(1, 1, 0, ZoneInfo(zone))
    [(_, start, end)] = pairs(windows, at(f"{day}T12:00:00", zone))
    assert end - start == hours * HOUR
    assert windows.window(start).end_us == end
    [(_, before, _)] = pairs(windows, start - 1)
    [(_, after, _)] = pairs(windows, end)
    assert (before < start, after) == (True, end)


def test_a_midnight_that_occurs_twice_begins_the_day_once() -> None:
    windows = DayWindows(1, 1, 0, ZoneInfo("America/Havana"))
    first = at("2026-11-01T04:00:00")
    assert pairs(windows, first - 1, first, first + HOUR)[1:] == [
        (1, first, first + 25 * HOUR),
        (2, first, first + 25 * HOUR),
    ]


def test_a_midnight_that_does_not_exist_begins_the_day_at_one() -> None:
    start = at("2018-11-04T03:00:00")
    assert datetime.fromtimestamp(start // SECOND, ZoneInfo("America/Sao_Paulo")).hour == 1
    assert pairs(DayWindows(1, 1, 0, ZoneInfo("America/Sao_Paulo")), start - 1, start)[1][1] == start


def test_a_day_that_a_zone_left_out_begins_no_window() -> None:
    """Samoa went from 2011-12-29 to 2011-12-31."""
    night = at("2011-12-30T10:00:00")
    days = DayWindows(1, 1, 0, ZoneInfo("Pacific/Apia"))
    [(_, _, end), (_, start, _)] = pairs(days, night - 1, night)
    assert end == start == night
    two_days = DayWindows(2, 1, 0, ZoneInfo("Pacific/Apia"))
    starts = [start for _, start, _ in pairs(two_days, night + HOUR)]
    assert starts == [night]


def test_an_offset_begins_the_day_later() -> None:
    windows = DayWindows(1, 1, 6 * HOUR, ZoneInfo("Europe/Berlin"))
    [(_, start, end)] = pairs(windows, at("2026-03-29T05:59:00", "Europe/Berlin"))
    assert (start, end) == (at("2026-03-28T06:00:00", "Europe/Berlin"), at("2026-03-29T06:00:00", "Europe/Berlin"))


def test_an_offset_of_days_chooses_the_weekday() -> None:
    """1970-01-01 was a Thursday; weeks from Monday on are four days later."""
    windows = DayWindows(7, 7, 4 * DAY, ZoneInfo("Europe/Berlin"))
    [(_, start, end)] = pairs(windows, at("2026-10-25T12:00:00", "Europe/Berlin"))
    assert (start, end) == (at("2026-10-19T00:00:00", "Europe/Berlin"), at("2026-10-26T00:00:00", "Europe/Berlin"))


@given(st.sampled_from(ZONES), times, st.sampled_from([(1, 1), (7, 7), (7, 1), (4, 2)]), st.integers(-DAY, 2 * DAY))
def test_windows_of_days_hold_their_events(zone: str, time: int, shape: tuple[int, int], offset: int) -> None:
    windows = DayWindows(*shape, offset, ZoneInfo(zone))
    found = pairs(windows, time)
    starts = [start for _, start, _ in found]
    assert found
    assert all(one < other for one, other in pairwise(starts))
    for _, start, end in found:
        assert start <= time < end
        assert windows.window(start).end_us == end
        inside = [pair[1:] for pair in pairs(windows, start)]
        assert (start, end) in inside


@pytest.mark.parametrize(
    ("zone", "year"),
    [
        ("Asia/Manila", 1844),
        ("America/Juneau", 1867),
        ("Pacific/Kwajalein", 1993),
        ("Pacific/Apia", 2011),
        ("America/Sao_Paulo", 2018),
        ("America/Havana", 2026),
        ("Europe/Berlin", 2026),
        ("Africa/Cairo", 2014),
    ],
)
def test_days_follow_one_another_without_a_gap(zone: str, year: int) -> None:
    """As python's zoneinfo says which date it is, hour by hour; a date that comes twice is one day."""
    place = ZoneInfo(zone)
    begin = at(f"{year}-01-01T00:00:00")
    instants = list(range(begin, begin + 366 * DAY, HOUR))
    latest: list[date] = []
    for instant in instants:
        shown = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant)).astimezone(place).date()
        latest.append(max(shown, latest[-1]) if latest else shown)
    starts = [start for _, start, _ in pairs(DayWindows(1, 1, 0, place), *instants)]
    assert [one != other for one, other in pairwise(starts)] == [one != other for one, other in pairwise(latest)]


def test_names_of_windows_are_in_order_of_time() -> None:
    starts = [FIRST_TIME - 7 * DAY, FIRST_TIME, -SECOND, 0, at("2026-11-24T00:05:00"), LAST_TIME // SECOND * SECOND]
    names = [window_name(start) for start in starts]
    assert names == sorted(names)
    assert names[3:5] == ["19700101T000000Z", "20261124T000500Z"]
    assert window_name(500_000) == "19700101T000000.500000Z"


def test_the_first_and_the_last_years_do_not_overflow() -> None:
    edges = np.array([FIRST_TIME - 1, FIRST_TIME, LAST_TIME, LAST_TIME + 1], np.int64)
    assert in_range(edges).tolist() == [False, True, True, False]
    for windows in (
        FixedWindows(7 * DAY, DAY),
        DayWindows(7, 1, 0, ZoneInfo("Pacific/Apia")),
        DayWindows(7, 1, 0, ZoneInfo("America/Juneau")),
    ):
        assert all(start <= edges[1 + row] < end for row, start, end in pairs(windows, FIRST_TIME, LAST_TIME))
