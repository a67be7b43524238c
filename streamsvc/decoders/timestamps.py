"""Text to ``timestamp[us, UTC]``, strictly: a date that does not exist is null, never another date.

Arrow's ``strptime`` turns the 31st of February into the 2nd of March, so it is not used here.
"""

from __future__ import annotations

import re
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

UTC = pa.timestamp("us", tz="UTC")

_NAIVE = pa.timestamp("us")
_FIRST, _LAST = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999)
_MINUTE_US = 60_000_000
_SAMPLE = 256

_MONTHS = pa.array(["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"])
_MONTH_NUMBERS = pa.array([f"{number:02}" for number in range(1, 13)])

_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_DAY = r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_STAMP = rf"{_DAY}[T ]{_CLOCK}(?::[0-5][0-9](?:\.[0-9]{{1,6}})?)?"
_ZONE = r"(?:Z|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)"
ISO_TIMESTAMP = rf"^{_STAMP}{_ZONE}?$"
"""An RE2 and Python pattern: ``T`` or a space in the middle, seconds and up to six decimals, zone; the last three
may be missing."""
ISO_DATE = rf"^{_DAY}$"

_ISO_OFFSET = re.compile(r"Z?|([+-])([0-9]{2}):?([0-9]{2})?")
_CLF_OFFSET = re.compile(r"([+-])([01][0-9]|2[0-3])([0-5][0-9])\]")
_CLF = rf"^\[[0-9]{{2}}/[A-Z][a-z]{{2}}/[0-9]{{4}}:{_CLOCK}:[0-5][0-9]$"


def from_iso(texts: pa.Array) -> pa.Array:
    """ISO 8601, by ``ISO_TIMESTAMP``; no zone means UTC. Null where a text is no such timestamp."""
    if _repeat(texts):
        encoded = texts.dictionary_encode()
        return _from_iso(encoded.dictionary).take(encoded.indices)
    return _from_iso(texts)


def _repeat(texts: pa.Array) -> bool:
    """Whether it is cheaper to read each text once: times to the second come many times, those to the microsecond do
    not."""
    sample = texts.slice(len(texts) // 2, _SAMPLE)
    return int(pc.count_distinct(sample, "all").as_py()) <= len(sample) // 2


def _from_iso(texts: pa.Array) -> pa.Array:
    texts = _only(texts, pc.match_substring_regex(texts, ISO_TIMESTAMP))
    if pc.all(pc.ends_with(texts, "Z")).as_py() is not False:
        return _in_range(_cast(texts, UTC))
    parts = pc.extract_regex(texts, rf"^(?P<stamp>{_STAMP})(?P<zone>{_ZONE}?)$")
    return _shifted(_cast(parts.field("stamp"), _NAIVE), parts.field("zone"), _ISO_OFFSET)


def from_clf(clocks: pa.Array, zones: pa.Array) -> pa.Array:
    """``[10/Oct/2000:13:55:36`` and ``-0700]``, as the common log format has them, in the same number of rows."""
    encoded = clocks.dictionary_encode()
    texts = encoded.dictionary
    texts = _only(texts, pc.match_substring_regex(texts, _CLF))
    year, month, day, clock = (
        pc.utf8_slice_codeunits(texts, start, stop) for start, stop in ((8, 12), (4, 7), (1, 3), (13, 21))
    )
    stamps = _cast(_iso(year, month, day, clock), _NAIVE)
    return _shifted(stamps.take(encoded.indices), zones, _CLF_OFFSET)


def from_ctime(month: pa.Array, day: pa.Array, clock: pa.Array, year: pa.Array) -> pa.Array:
    """``Sep``, ``9`` or ``09``, ``10:42:29`` with or without microseconds, ``2011``; taken as UTC."""
    stamps = _iso(year, month, pc.utf8_lpad(pc.utf8_trim(day, " "), 2, "0"), clock)
    return _in_range(_cast(_only(stamps, pc.match_substring_regex(stamps, rf"^{_STAMP}$")), _NAIVE)).view(UTC)


def from_strftime(texts: pa.Array, time_format: str) -> pa.Array:
    """By ``datetime.strptime``; the format must hold a zone."""

    def read(text: str | None) -> datetime | None:
        try:
            return None if text is None else datetime.strptime(text, time_format)
        except (ValueError, OverflowError):
            return None

    encoded = texts.dictionary_encode()
    return pa.array([read(text) for text in encoded.dictionary.to_pylist()], UTC).take(encoded.indices)


def from_epoch(numbers: pa.Array, per_second: int) -> pa.Array:
    """int64 counts of ``1 / per_second`` seconds (at most a million) since 1970. Null beyond the year 9999."""
    scale = 1_000_000 // per_second
    limit = (2**63 - 1) // scale
    fits = pc.and_(pc.less_equal(numbers, limit), pc.greater_equal(numbers, -limit))
    return _in_range(pc.multiply(_only(numbers, fits), scale).view(_NAIVE)).view(UTC)


def dates_from_iso(texts: pa.Array) -> pa.Array:
    """``2011-09-09`` to date32. Null where a text is no date that exists."""
    return _cast(_only(texts, pc.match_substring_regex(texts, ISO_DATE)), pa.date32())


def _iso(year: pa.Array, month: pa.Array, day: pa.Array, clock: pa.Array) -> pa.Array:
    month_number = _MONTH_NUMBERS.take(pc.index_in(month, value_set=_MONTHS))
    return pc.binary_join_element_wise(pc.binary_join_element_wise(year, month_number, day, "-"), clock, "T")


def _cast(texts: pa.Array, target: pa.DataType) -> pa.Array:
    """Well-formed texts; those that name no day of the calendar become null."""
    texts = _only(texts, pc.invert(pc.starts_with(texts, "0000")))
    try:
        return texts.cast(target)
    except pa.ArrowInvalid:
        days = pc.utf8_slice_codeunits(texts, 0, 10).dictionary_encode()
        exist = pa.array([_exists(day) for day in days.dictionary.to_pylist()], pa.bool_())
        return _only(texts, exist.take(days.indices)).cast(target)


def _exists(day: str) -> bool:
    try:
        datetime.strptime(day, "%Y-%m-%d")
    except ValueError:
        return False
    return True


def _shifted(stamps: pa.Array, zones: pa.Array, pattern: re.Pattern[str]) -> pa.Array:
    """Local times east or west of Greenwich to UTC. A zone that is none makes null."""
    encoded = zones.dictionary_encode()
    offsets = pa.array([_offset_us(pattern.fullmatch(zone)) for zone in encoded.dictionary.to_pylist()], pa.int64())
    instants = pc.subtract(stamps.view(pa.int64()), offsets.take(encoded.indices))
    return _in_range(instants.view(_NAIVE)).view(UTC)


def _offset_us(found: re.Match[str] | None) -> int | None:
    if found is None:
        return None
    minutes = int(found[2] or 0) * 60 + int(found[3] or 0)
    return (minutes if found[1] == "+" else -minutes) * _MINUTE_US


def _in_range(stamps: pa.Array) -> pa.Array:
    """Null outside of the years 1 to 9999, which is what a datetime can hold."""
    kind = stamps.type
    first, last = (pa.scalar(moment, _NAIVE).cast(kind) for moment in (_FIRST, _LAST))
    if pc.all(pc.and_(pc.greater_equal(stamps, first), pc.less_equal(stamps, last))).as_py() is not False:
        return stamps
    return _only(stamps, pc.and_(pc.greater_equal(stamps, first), pc.less_equal(stamps, last)))


def _only(values: pa.Array, where: pa.Array) -> pa.Array:
    return pc.if_else(where, values, None)
