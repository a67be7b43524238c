"""Which windows an event belongs to. Times are int64 microseconds since the epoch, of the years 1 to 9999; arrays are
numpy's. A window is ``[start, end)`` and named by its start."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from streamsvc.records import Window

Ints: TypeAlias = npt.NDArray[np.int64]

SECOND = 1_000_000
DAY = 86_400 * SECOND
FIRST_TIME = -62_135_596_800 * SECOND
"""The first instant of the year 1."""
LAST_TIME = 253_402_300_800 * SECOND - 1
"""The last microsecond of the year 9999."""

_EPOCH = datetime(1970, 1, 1)


class Memberships(NamedTuple):
    """Pairs of an event and one of its windows, by event, then by start.

    members: the event of each pair; ``None``: pair i is event i
    """

    members: Ints | None
    starts: Ints
    ends: Ints


class Windows(Protocol):
    """How time is divided."""

    def assign(self, times: Ints) -> Memberships:
        """Every event is in one window at least."""
        ...

    def window(self, start: int) -> Window:
        """The window that begins there."""
        ...


@dataclass(frozen=True, slots=True)
class FixedWindows:
    """Windows of one length, one every ``hop_us``, aligned to the epoch plus ``offset_us``.

    Tumbling if ``hop_us`` is ``size_us``; otherwise ``size_us`` is a multiple of it.
    """

    size_us: int
    hop_us: int
    offset_us: int = 0

    def assign(self, times: Ints) -> Memberships:
        last = times - (times - self.offset_us) % self.hop_us
        overlap = self.size_us // self.hop_us
        if overlap == 1:
            return Memberships(None, last, last + self.size_us)
        starts = (last[:, None] - self.hop_us * np.arange(overlap - 1, -1, -1)).ravel()
        return Memberships(np.repeat(np.arange(len(times)), overlap), starts, starts + self.size_us)

    def window(self, start: int) -> Window:
        return Window(start, start + self.size_us)


class DayWindows:
    """Windows of whole days of a time zone: from local midnight, or ``offset_us`` after it, to local midnight.

    So the day on which clocks are put forward has 23 hours. A midnight that does not exist is the instant at which
    the clock passed it; of a midnight that occurs twice it is the first. A day that a zone left out (Samoa,
    2011-12-30) begins no window.

    zone: loaded; this module reads no files
    """

    def __init__(self, days: int, hop_days: int, offset_us: int, zone: tzinfo) -> None:
        self._days = days
        self._hop_days = hop_days
        self._offset_days, offset_us = divmod(offset_us, DAY)
        self._calendar = _Calendar(zone, offset_us)

    def assign(self, times: Ints) -> Memberships:
        today, place = np.unique(self._first_days(times), return_inverse=True)
        days = [today - back * self._hop_days for back in range(self._days // self._hop_days - 1, -1, -1)]
        starts = np.stack([self._calendar.begin(day) for day in days], axis=1)[place]
        ends = np.stack([self._calendar.begin(day + self._days) for day in days], axis=1)[place]
        if len(days) == 1:
            return Memberships(None, starts[:, 0], ends[:, 0])
        next_starts = np.stack([self._calendar.begin(day + self._hop_days) for day in days], axis=1)[place]
        exists = starts < next_starts
        members = np.broadcast_to(np.arange(len(times))[:, None], exists.shape)
        return Memberships(members[exists], starts[exists], ends[exists])

    def window(self, start: int) -> Window:
        day = self._first_days(np.array([start], np.int64))
        return Window(start, int(self._calendar.begin(day + self._days)[0]))

    def _first_days(self, times: Ints) -> Ints:
        """The day on which the last of the event's windows begins."""
        days = self._calendar.day_of(times)
        return days - (days - self._offset_days) % self._hop_days


class _Calendar:
    """When the days of a zone begin, ``offset_us`` after midnight. Days are numbered from 1970-01-01."""

    def __init__(self, zone: tzinfo, offset_us: int) -> None:
        self._zone = zone
        self._offset_us = offset_us
        self._begins: dict[int, int] = {}

    def day_of(self, times: Ints) -> Ints:
        """The last day that has begun. A zone is less than a day from UTC, and has left out or repeated one at most."""
        near, place = np.unique(times // DAY, return_inverse=True)
        begins = np.stack([self.begin(near + away) for away in range(-3, 3)], axis=1)
        return np.asarray(near[place] - 4 + (begins[place] <= times[:, None]).sum(axis=1), np.int64)

    def begin(self, days: Ints) -> Ints:
        if len(self._begins) > 100_000:
            self._begins.clear()
        return np.array([self._begin(day) for day in days.tolist()], np.int64)

    def _begin(self, day: int) -> int:
        known = self._begins.get(day)
        if known is None:
            known = self._begins[day] = self._first_instant(day * DAY + self._offset_us)
        return known

    def _first_instant(self, wall: int) -> int:
        """When a clock there first shows this or more."""
        before, after = (self._offset_at_wall(wall, fold) for fold in (0, 1))
        if before >= after:
            return wall - before
        early, late = wall - after, wall - before  # clocks were put forward past it, somewhere between these two
        while early < late:
            middle = (early + late) // 2
            if middle + self._offset_at(middle) >= wall:
                late = middle
            else:
                early = middle + 1
        return late

    def _offset_at_wall(self, wall: int, fold: int) -> int:
        shown = _EPOCH + timedelta(microseconds=min(max(wall, FIRST_TIME), LAST_TIME))
        return _microseconds(shown.replace(tzinfo=self._zone, fold=fold))

    def _offset_at(self, instant: int) -> int:
        return _microseconds((_EPOCH.replace(tzinfo=UTC) + timedelta(microseconds=instant)).astimezone(self._zone))


def _microseconds(shown: datetime) -> int:
    offset = shown.utcoffset()
    assert offset is not None, "a zone knows its offset"
    return offset // timedelta(microseconds=1)


def window_name(start: int) -> str:
    """``20261124T000500Z``, in text order of time as far as seconds are whole; for names of objects."""
    whole, fraction = divmod(start, SECOND)
    text = str(np.datetime64(whole, "s")).replace("-", "").replace(":", "")
    return f"{text}.{fraction:06d}Z" if fraction else f"{text}Z"


def in_range(times: Ints) -> npt.NDArray[np.bool_]:
    """The years 1 to 9999, for which nothing here overflows."""
    return (times >= FIRST_TIME) & (times <= LAST_TIME)


def windows_of(size_us: int, hop_us: int, offset_us: int, zone: tzinfo | None) -> Windows:
    """With a zone, sizes are whole days of it."""
    if zone is None:
        return FixedWindows(size_us, hop_us, offset_us)
    return DayWindows(size_us // DAY, hop_us // DAY, offset_us, zone)
