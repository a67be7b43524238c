"""The generator is measured against a reading of the formats that is not the decoders' own."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import pytest

from streamsvc.testing.access_logs import JSON_COLUMNS, AccessLogs, Form

START = datetime(2026, 11, 24, 22, 30, tzinfo=UTC)
FORMS: tuple[Form, ...] = ("combined", "json")

_QUOTED = rb'"((?:[^"\\]|\\.)*)"'
_COMBINED = re.compile(
    rb"(\S+) (\S+) (\S+) \[([^\]]+)\] " + _QUOTED + rb" (\d{3}) (\d+|-) " + _QUOTED + rb" " + _QUOTED
)


def combined_fields(line: bytes) -> tuple[bytes, ...] | None:
    """The nine fields of a well-formed line, else ``None``."""
    found = _COMBINED.fullmatch(line)
    if found is None:
        return None
    try:
        datetime.strptime(found[4].decode(), "%d/%b/%Y:%H:%M:%S %z")
    except ValueError:
        return None
    return found.groups()


def json_fields(line: bytes) -> dict[str, object] | None:
    """The record of a well-formed line, else ``None``."""
    try:
        record = json.loads(line)
        datetime.fromisoformat(record["datetime"])
    except (ValueError, TypeError):
        return None
    return record if isinstance(record["response"], int) else None


def test_the_malformed_lines_of_the_combined_form_are_exactly_those_that_are_named() -> None:
    logs = AccessLogs(3, START, malformed_share=0.05)
    lines = logs.lines(20_000)
    assert {number for number, line in enumerate(lines) if combined_fields(line) is None} == set(logs.malformed)
    assert 700 < len(logs.malformed) < 1300
    assert set(logs.malformed.values()) == {
        "truncated",
        "field missing",
        "field left over",
        "impossible date",
        "garbage",
    }


def test_the_malformed_lines_of_the_json_form_are_exactly_those_that_are_named() -> None:
    logs = AccessLogs(3, START, form="json", malformed_share=0.05)
    records = [json_fields(line) for line in logs.lines(20_000)]
    assert {number for number, record in enumerate(records) if record is None} == set(logs.malformed)
    assert {tuple(record) for record in records if record is not None} == {tuple(JSON_COLUMNS)}


def test_both_forms_tell_of_the_same_requests() -> None:
    lines = AccessLogs(5, START, malformed_share=0.0).lines(5_000)
    records = AccessLogs(5, START, form="json", malformed_share=0.0).lines(5_000)
    for line, record in zip(lines, records, strict=True):
        fields, values = combined_fields(line), json_fields(record)
        assert fields is not None
        assert values is not None
        assert (fields[0].decode(), int(fields[5])) == (values["host"], values["response"])


@pytest.mark.parametrize("form", FORMS)
def test_a_seed_fixes_every_line_however_they_are_asked_for(form: Form) -> None:
    at_once, in_parts = AccessLogs(9, START, form=form), AccessLogs(9, START, form=form)
    lines = at_once.lines(30_000)
    assert lines == [line for count in (1, 0, 17, 12_982, 17_000) for line in in_parts.lines(count)]
    assert at_once.malformed == in_parts.malformed
    assert lines != AccessLogs(10, START, form=form).lines(30_000)


def test_lines_look_like_those_of_a_real_site() -> None:
    lines = AccessLogs(7, START, malformed_share=0.0).lines(100_000)
    fields = [combined_fields(line) for line in lines]
    rows = [row for row in fields if row is not None]
    assert len(rows) == len(lines)
    assert 180 < sum(map(len, lines)) / len(lines) < 200
    assert not any(b"\n" in line for line in lines)
    statuses = Counter(row[5] for row in rows)
    assert {b"200", b"304", b"301", b"404", b"500", b"408", b"204"} <= statuses.keys()
    assert {b"-", b"", rb"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"} <= {row[4] for row in rows}
    hosts = {row[0] for row in rows}
    assert any(b":" in host for host in hosts)
    assert any(host.endswith(b".example") for host in hosts)
    assert any(b"\\" in row[8] for row in rows), "escaped quotes and backslashes occur"
    paths = [count for _, count in Counter(row[4] for row in rows).most_common()]
    assert paths[0] > 20 * paths[len(paths) // 2], "few paths are asked for often, most of them rarely"


def test_not_found_answers_come_in_storms() -> None:
    lines = AccessLogs(7, START, malformed_share=0.0).lines(200_000)
    shares = [sum(b'" 404 ' in line for line in lines[at : at + 2_000]) / 2_000 for at in range(0, len(lines), 2_000)]
    assert max(shares) > 0.3
    assert sorted(shares)[len(shares) // 2] < 0.1


def test_time_goes_on_in_the_servers_own_zone_and_the_night_is_quiet() -> None:
    start = datetime(2026, 11, 24, 2, 0, tzinfo=timezone(timedelta(hours=-5)))
    night = AccessLogs(1, start, lines_a_second=2.0, malformed_share=0.0).lines(7_000)
    afternoon = AccessLogs(1, start.replace(hour=14), lines_a_second=2.0, malformed_share=0.0).lines(7_000)

    def span_of(lines: list[bytes]) -> timedelta:
        times = [line.partition(b"[")[2].partition(b"]")[0].decode() for line in lines]
        moments = [datetime.strptime(time, "%d/%b/%Y:%H:%M:%S %z") for time in times]
        assert moments == sorted(moments)
        assert all(time.endswith(" -0500") for time in times)
        return moments[-1] - moments[0]

    assert span_of(night) > 2 * span_of(afternoon)


def test_a_log_without_a_zone_or_with_a_share_above_one_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        AccessLogs(1, datetime(2026, 11, 24))
    with pytest.raises(ValueError, match="malformed_share"):
        AccessLogs(1, START, malformed_share=1.5)
