"""Access logs against a reading of the formats by Python's ``re``, and the fast way against the exact one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.decoders import apache
from streamsvc.decoders.apache import AccessLogDecoder, apache_decoder
from streamsvc.decoders.line_pattern import LinePattern
from streamsvc.decoders.logformat import NAMED_FORMATS, parse_log_format
from streamsvc.testing.access_logs import AccessLogs

LINE = (
    b'203.0.113.9 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.gif?x=1 HTTP/1.1" 200 2326 "http://e.com/" "M/5.0 (X)"'
)


def decode(decoder: Any, *values: bytes | None) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    sifted = decoder.decode(pa.array(values, pa.binary()))
    sifted.rows.validate(full=True)
    rejects = [(reject["_row"], reject["reason"]) for reject in sifted.rejects.to_pylist()]
    return sifted.rows.to_pylist(), rejects


def row(line: bytes, form: str = "combined") -> dict[str, Any]:
    rows, rejects = decode(apache_decoder(form), line)
    assert rejects == []
    return rows[0]


def reject(line: bytes, form: str = "combined") -> dict[str, Any]:
    sifted = apache_decoder(form).decode(pa.array([line], pa.binary()))
    assert len(sifted.rows) == 0
    return dict(sifted.rejects.to_pylist()[0])


def with_request(request: bytes) -> bytes:
    return LINE.replace(b"GET /a.gif?x=1 HTTP/1.1", request)


def exact_only(form: str) -> AccessLogDecoder:
    elements = NAMED_FORMATS[form] if form in NAMED_FORMATS else parse_log_format(form)
    decoder = AccessLogDecoder(elements)
    decoder._readers = [LinePattern(elements).read_matching]
    return decoder


def test_combined_has_the_columns_of_the_kinesis_agent_typed() -> None:
    assert apache_decoder("combined").schema == pa.schema(
        [
            ("host", pa.string()),
            ("ident", pa.string()),
            ("authuser", pa.string()),
            ("datetime", pa.timestamp("us", "UTC")),
            ("request", pa.string()),
            ("method", pa.string()),
            ("path", pa.string()),
            ("protocol", pa.string()),
            ("response", pa.int16()),
            ("bytes", pa.int64()),
            ("referer", pa.string()),
            ("agent", pa.string()),
        ]
    )
    assert row(LINE) == {
        "host": "203.0.113.9",
        "ident": None,
        "authuser": "frank",
        "datetime": datetime(2000, 10, 10, 20, 55, 36, tzinfo=UTC),
        "request": "GET /a.gif?x=1 HTTP/1.1",
        "method": "GET",
        "path": "/a.gif?x=1",
        "protocol": "HTTP/1.1",
        "response": 200,
        "bytes": 2326,
        "referer": "http://e.com/",
        "agent": "M/5.0 (X)",
        "_row": 0,
    }


def test_vhost_combined_keeps_the_port() -> None:
    assert apache_decoder("vhost_combined").schema.names[:2] == ["virtual_host", "host"]
    assert row(b"www.example.com:443 " + LINE, "vhost_combined")["virtual_host"] == "www.example.com:443"


def test_common() -> None:
    assert row(b'::1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 304 -', "common")["bytes"] is None


@pytest.mark.parametrize(
    "host", [b"2001:db8::1", b"::ffff:192.0.2.1", b"fe80::1%eth0", b"crawl-66.example.com", b"localhost"]
)
def test_hosts(host: bytes) -> None:
    assert row(LINE.replace(b"203.0.113.9", host))["host"] == host.decode()


@pytest.mark.parametrize(
    ("request_line", "method", "path", "protocol"),
    [
        (b"GET / HTTP/1.1", "GET", "/", "HTTP/1.1"),
        (b"GET /a b  c HTTP/2.0", "GET", "/a b  c", "HTTP/2.0"),
        (b"M-SEARCH * HTTP/1.1", "M-SEARCH", "*", "HTTP/1.1"),
        (b"CONNECT example.com:443 HTTP/1.1", "CONNECT", "example.com:443", "HTTP/1.1"),
        (b"GET /", None, None, None),
        (b"GET  HTTP/1.1", None, None, None),
        (b"GET / HTTP/1.1 ", None, None, None),
        (b"GET / FTP/1.1", None, None, None),
        (b"G(T / HTTP/1.1", None, None, None),
        (b"GET / HTTP/11", None, None, None),
        (b"quit", None, None, None),
        (b"", None, None, None),
        (rb"\x16\x03\x01\x02", None, None, None),
    ],
)
def test_requests_that_are_odd_are_rows(
    request_line: bytes, method: str | None, path: str | None, protocol: str | None
) -> None:
    found = row(with_request(request_line))
    assert found["request"] == request_line.decode()
    assert (found["method"], found["path"], found["protocol"]) == (method, path, protocol)


def test_a_dash_is_null() -> None:
    found = row(b'h - - [10/Oct/2000:13:55:36 -0700] "-" 408 - "-" "-"')
    assert [name for name, value in found.items() if value is None] == [
        "ident", "authuser", "request", "method", "path", "protocol", "bytes", "referer", "agent",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (rb"say \"hi\"", 'say "hi"'),
        (rb"back\\slash", "back\\slash"),
        (rb"ends in one\\", "ends in one\\"),
        (rb"\\\"", '\\"'),
        (rb"\xe2\x82\xac \t \n", r"\xe2\x82\xac \t \n"),
        (rb"a\ b", r"a\ b"),
        (b"control \x01 \x02 \x00 raw", "control \x01 \x02 \x00 raw"),
        (b'control \x01 and \\"', 'control \x01 and "'),
        ("naïve €".encode(), "naïve €"),
        (b"", ""),
    ],
)
def test_escapes_in_quoted_fields(written: bytes, meant: str) -> None:
    assert row(LINE.replace(b"M/5.0 (X)", written))["agent"] == meant
    assert row(LINE.replace(b"http://e.com/", written))["referer"] == meant
    assert row(with_request(written))["request"] == meant


@pytest.mark.parametrize(
    ("user", "meant"), [(b"John Doe", "John Doe"), (b'""', ""), (rb"a\"b", 'a"b'), (b"a [b", "a [b")]
)
def test_users(user: bytes, meant: str) -> None:
    assert row(LINE.replace(b"frank", user))["authuser"] == meant


@pytest.mark.parametrize("field", [b"GET /a HTTP/1.1\n", b"\nGET /a HTTP/1.1", b"GET /a\n HTTP/1.1"])
def test_a_line_break_in_a_request_is_read_alike_anywhere_in_a_batch(field: bytes) -> None:
    line = b'[10/Oct/2000:13:55:36 -0700] 1.1.1.1 "' + field + b'"'
    decoder = apache_decoder('%t %h "%r"')
    (alone,), _ = decode(decoder, line)
    assert alone["request"] == field.decode()
    assert decode(decoder, line, line.replace(field, b"-"), line)[0][::2] == [alone, alone | {"_row": 2}]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b"\n\n"])
def test_a_line_break_at_the_end_is_no_matter(end: bytes) -> None:
    assert row(LINE + end) == row(LINE)


@pytest.mark.parametrize(
    ("line", "reason", "says"),
    [
        (b"", "malformed", "expected column host (%h) and then ' ' at byte 0, found the end"),
        (LINE + b' "0.004"', "malformed", "expected the end of the line at byte 111, found ' \"0.004\"'"),
        (LINE.partition(b" ")[2], "malformed", "expected column datetime (%t)"),
        (LINE[:-1], "malformed", "expected column agent"),
        (LINE[:60], "malformed", "expected column request (%r) and then '\" ' at byte 50"),
        (LINE + b"\n" + LINE, "malformed", "the end of the line"),
        (LINE.replace(b"10/Oct", b"31/Feb"), "timestamp", "column datetime (%t): '[31/Feb/2000:13:55:36 -0700]'"),
        (LINE.replace(b"10/Oct", b"10/Okt"), "timestamp", "is not a time"),
        (LINE.replace(b"13:55:36", b"24:00:00"), "timestamp", "is not a time"),
        (LINE.replace(b"-0700", b"-9900"), "timestamp", "is not a time"),
        (LINE.replace(b"-0700", b"-07:00"), "timestamp", "is not a time"),
        (LINE.replace(b"-0700", b"Z"), "timestamp", "is not a time"),
        (LINE.replace(b" 200 ", b" 99999 "), "number", "column response (%>s): '99999' is not an int16"),
        (LINE.replace(b" 200 ", b" 2x0 "), "number", "is not an int16"),
        (LINE.replace(b"2326", b"9223372036854775808"), "number", "column bytes (%b)"),
        (LINE.replace(b"2326", b"0x1F"), "number", "is not an int64"),
        (LINE.replace(b"2326", b"+5"), "number", "is not an int64"),
        (LINE.replace(b"2326", b"1" * 5000), "number", "is not an int64"),
        (LINE.replace(b"M/5.0", b"M\xff5.0"), "encoding", "byte 102 is not UTF-8"),
        (LINE.replace(b"M/5.0", b"M" * 2**20), "too_long", "1048682 bytes; a line may have 1048576"),
    ],
)
def test_rejects_say_what_and_where(line: bytes, reason: str, says: str) -> None:
    found = reject(line)
    assert found["reason"] == reason
    assert says in found["error"]


def test_the_largest_numbers_are_rows() -> None:
    found = row(LINE.replace(b"2326", b"9223372036854775807").replace(b" 200 ", b" 00032767 "))
    assert (found["bytes"], found["response"]) == (2**63 - 1, 32767)


def test_a_bad_number_or_date_takes_none_of_its_neighbours_along() -> None:
    lines = [
        LINE,
        LINE.replace(b"2326", b"0x1F"),
        LINE.replace(b"10/Oct", b"31/Feb"),
        None,
        b"\xff",
        LINE,
        b"junk",
        LINE,
    ]
    rows, rejects = decode(apache_decoder("combined"), *lines)
    assert [found["_row"] for found in rows] == [0, 3, 5, 7]
    assert [found["host"] for found in rows] == ["203.0.113.9", None, "203.0.113.9", "203.0.113.9"]
    assert rejects == [(1, "number"), (2, "timestamp"), (4, "encoding"), (6, "malformed")]


def test_a_million_brackets_are_read_in_linear_time() -> None:
    hostile = b"h l " + b"a [" * 300_000
    rows, rejects = decode(apache_decoder("combined"), hostile, b'"' * 900_000, b"\\" * 900_000, b" " * 900_000, LINE)
    assert [found["_row"] for found in rows] == [4]
    assert {reason for _, reason in rejects} == {"malformed"}


def test_generated_logs_reject_exactly_the_malformed() -> None:
    logs = AccessLogs(seed=11, start=datetime(2026, 11, 24, tzinfo=UTC), malformed_share=0.01)
    _, rejects = decode(apache_decoder("combined"), *logs.lines(20_000))
    assert [number for number, _ in rejects] == sorted(logs.malformed)


# Custom formats


def test_every_common_directive_has_a_typed_column() -> None:
    decoder = apache_decoder(
        '%a %{c}a %A %h %l %u %t "%r" %>s %b %B %I %O %D %T %{ms}T %v %V %p %{remote}p %P %{tid}P %k %X %L '
        '"%{X-Forwarded-For}i" "%{Content-Type}o" "%{session}C" "%{UNIQUE_ID}e" "%{note}n" %{SSL_PROTOCOL}x %^FB %%'
    )
    values = (
        b'10.0.0.1 10.0.0.2 10.0.0.3 h - - [01/Jan/2024:00:00:00 +0000] "GET / HTTP/1.1" 200 1 2 3 4 5 6 7 www srv 443 '
        b'50000 11 12 13 + id "1.2.3.4, 5.6.7.8" "text/html" "-" "x" "n" TLSv1.3 - %'
    )
    rows, rejects = decode(decoder, values)
    assert rejects == []
    wanted = {
        "client_ip": "10.0.0.1", "peer_ip": "10.0.0.2", "local_ip": "10.0.0.3", "response": 200, "bytes": 1,
        "bytes_2": 2, "bytes_received": 3, "bytes_sent": 4, "duration_us": 5, "duration_s": 6, "duration_ms": 7,
        "virtual_host": "www", "server_name": "srv", "port": 443, "remote_port": 50000, "process_id": 11,
        "thread_id": 12,
        "keepalive_requests": 13, "connection_status": "+", "log_id": "id", "x_forwarded_for": "1.2.3.4, 5.6.7.8",
        "response_content_type": "text/html", "cookie_session": None, "env_unique_id": "x", "note_note": "n",
        "ssl_protocol": "TLSv1.3", "first_byte_us": None,
    }  # fmt: skip
    assert {name: rows[0][name] for name in wanted} == wanted


def test_a_closed_connection_is_no_null() -> None:
    assert row(b"h -", "%h %X")["connection_status"] == "-"


@pytest.mark.parametrize(
    ("form", "line", "wanted"),
    [
        ("%{sec}t %h", b"1700000000 h", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("%{msec}t %h", b"1700000000123 h", datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)),
        ("%{usec}t %h", b"1700000000123456 h", datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)),
        ("%{%Y-%m-%dT%H:%M:%S%z}t %h", b"2024-02-29T12:00:00+0200 h", datetime(2024, 2, 29, 10, 0, tzinfo=UTC)),
        ('"%{%d/%b/%Y %T %z}t" %h', b'"29/Feb/2024 12:00:00 -0100" h', datetime(2024, 2, 29, 13, 0, tzinfo=UTC)),
        ("[%{begin:%F %T %z}t] %h", b"[2024-02-29 12:00:00 +0000] h", datetime(2024, 2, 29, 12, 0, tzinfo=UTC)),
        ('"%t" %h', b'"[29/Feb/2024:12:00:00 +0000]" h', datetime(2024, 2, 29, 12, 0, tzinfo=UTC)),
        ('"at %t" %h', b'"at [29/Feb/2024:12:00:00 +0000]" h', datetime(2024, 2, 29, 12, 0, tzinfo=UTC)),
    ],
)
def test_times_in_other_forms(form: str, line: bytes, wanted: datetime) -> None:
    assert row(line, form)["datetime"] == wanted
    assert row(line, form)["host"] == "h"


def test_a_time_without_its_zone_stays_text() -> None:
    assert row(b"2024-02-29 12:00:00", "%{%F %T}t")["time"] == "2024-02-29 12:00:00"


@pytest.mark.parametrize(
    ("form", "line"), [("%{%F %T %z}t", b"2024-02-30 12:00:00 +0000"), ("%{sec}t %h", b"9" * 18 + b" h")]
)
def test_times_that_do_not_exist_in_other_forms(form: str, line: bytes) -> None:
    assert reject(line, form)["reason"] == "timestamp"


@pytest.mark.parametrize(
    ("form", "line", "wanted"),
    [
        ("%v:%p %h", b"a:b:80 h", {"virtual_host": "a:b", "port": 80, "host": "h"}),
        ("%h|%>s|%U", b"h|200|/a b", {"host": "h", "response": 200, "path": "/a b"}),
        ('%h "%m %U%q %H" %>s', b'h "GET /a?b=1 HTTP/1.1" 200', {"method": "GET", "path": "/a", "query": "?b=1"}),
        ("%{Referer}i -> %U", b"http://x/ -> /y", {"referer": "http://x/", "path": "/y"}),
        (r"%h\t%u\t%s", b"h\tfrank\t200", {"host": "h", "authuser": "frank", "response": 200}),
        (r"%h \"%r\"", b'h "GET / HTTP/1.0"', {"host": "h", "method": "GET"}),
        ("%!200,304{Referer}i %h", b"- h", {"referer": None, "host": "h"}),
        ("%>s %<s", b"200 302", {"response": 200, "response_2": 302}),
        ("%r", b"GET / HTTP/1.1", {"method": "GET", "path": "/"}),
        ("100%% %h", b"100% h", {"host": "h"}),
    ],
)
def test_custom_formats(form: str, line: bytes, wanted: dict[str, Any]) -> None:
    found = row(line, form)
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("combinde", "did you mean combined?"),
        ("nginx", "write common, combined, vhost_combined, error or a LogFormat string"),
        ("%h %K", "LogFormat column 4: %K is not known; did you mean %k?"),
        ("%h %Z", "LogFormat column 4: %Z is not known; known are %h"),
        ("%i", "it needs a name: %{Name}i"),
        ("%{Referer}I", "did you mean %{Referer}i?"),
        ("%{}i", "the name in the braces is empty"),
        ("%{foo}P", "known are %{pid}P, %{tid}P, %{hextid}P"),
        ("%{x}s", "it takes no argument: %s"),
        ("%h %", "LogFormat column 4: '%' is no complete directive"),
        ("100%%", "has no directive"),
    ],
)
def test_formats_that_are_wrong_say_where_and_what_instead(form: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        apache_decoder(form)


# The error log


def test_error_log_of_2_4() -> None:
    line = (
        b"[Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 35708:tid 4328636416] (2)No such file or directory: "
        b"[client 72.15.99.187:5150] AH00035: access to /[a] denied, referer: http://x/"
    )
    assert row(line, "error") == {
        "timestamp": datetime(2011, 9, 9, 10, 42, 29, 902022, tzinfo=UTC),
        "module": "core",
        "severity": "error",
        "processid": 35708,
        "threadid": 4328636416,
        "client": "72.15.99.187:5150",
        "message": "(2)No such file or directory: AH00035: access to /[a] denied, referer: http://x/",
        "_row": 0,
    }


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (
            b"[Wed Oct 11 14:32:52 2000] [error] [client 127.0.0.1] client denied by server configuration: /export",
            {"module": None, "severity": "error", "processid": None, "client": "127.0.0.1"},
        ),
        (
            b"[Wed Oct  4 14:32:52 2000] [notice] Apache/2.2.3 (CentOS) configured -- resuming [normal] operations\n",
            {"client": None, "message": "Apache/2.2.3 (CentOS) configured -- resuming [normal] operations"},
        ),
        (
            b"[Wed Oct 11 14:32:52.000001 2000] [:error] [pid 17] [client ::1:5150] PHP Warning:  x in /a.php",
            {"module": None, "processid": 17, "threadid": None, "client": "::1:5150"},
        ),
        (
            b"[Wed Oct 11 14:32:52 2000] [proxy:trace4] [pid 1:tid 2] mod.c(12): [remote 10.0.0.1:80] hello",
            {"severity": "trace4", "client": "10.0.0.1:80", "message": "mod.c(12): hello"},
        ),
    ],
)
def test_error_log_lines_with_less(line: bytes, wanted: dict[str, Any]) -> None:
    found = row(line, "error")
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"AH00558: httpd: could not reliably determine the name", "malformed"),
        (b"[Wed Feb 30 14:32:52 2000] [error] x", "timestamp"),
        (b"[Wed Oct 11 14:32:52.1234567 2000] [error] x", "timestamp"),
        (b"[Wed Oct 11 14:32:52 2000] [core:error] [pid 99999999999999999999] x", "number"),
    ],
)
def test_error_log_rejects(line: bytes, reason: str) -> None:
    assert reject(line, "error")["reason"] == reason


# Against other readings

_REFERENCE = re.compile(
    r'([^ "]+) ([^ "]+) ([^"]+?) \[(\d\d)/(\w{3})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)\] '
    r'"((?:[^"\\]|\\.)*)" (\d{1,4}|-) (\d{1,18}|-) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"',
    re.DOTALL,
)
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()  # noqa: SIM905


def reference(line: str) -> dict[str, Any] | None:
    """A combined line, or ``None`` for a reject."""
    found = _REFERENCE.fullmatch(line)
    if found is None:
        return None
    host, ident, user, day, month, year, hour, minute, second, sign, east_h, east_m = found.groups()[:12]
    try:
        local = datetime(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:
        return None
    if int(east_h) > 23 or int(east_m) > 59:
        return None
    east = timedelta(hours=int(east_h), minutes=int(east_m))
    request, response, nbytes, referer, agent = found.groups()[12:]
    request, referer, agent = (re.sub(r'\\(["\\])', r"\1", text) for text in (request, referer, agent))
    whole = re.fullmatch(r"([\w!#$%&'*+.^`|~-]+) (.+) (HTTP/\d+\.\d+)", request, re.DOTALL | re.ASCII)
    method, path, protocol = whole.groups() if whole else (None, None, None)
    texts = {"host": host, "ident": ident, "authuser": user, "request": request, "referer": referer, "agent": agent}
    return {
        **{name: None if text == "-" else text for name, text in texts.items()},
        "datetime": local - east if sign == "+" else local + east,
        "method": method,
        "path": path,
        "protocol": protocol,
        "response": None if response == "-" else int(response),
        "bytes": None if nbytes == "-" else int(nbytes),
    }


_BARE = st.one_of(
    st.sampled_from(["-", "h", "::1", "10.0.0.1", "a-b.example"]), st.text("ab:.-", min_size=1, max_size=6)
)
_QUOTED = st.lists(
    st.sampled_from(["a", " ", "-", r"\"", r"\\", r"\x16", "é", "/", "GET ", " HTTP/1.1", "\x01", "HTTP/1.1"]),
    max_size=8,
).map("".join)
_REQUEST = st.one_of(
    st.builds(
        "{} {} {}".format, st.sampled_from(["GET", "POST", "M\\x16"]), _QUOTED, st.sampled_from(["HTTP/1.1", "HTTP/x"])
    ),
    _QUOTED,
)
_TIME = st.builds(
    "[{:02}/{}/{}:{:02}:{:02}:{:02} {}]".format,
    st.integers(1, 31),
    st.sampled_from(_MONTHS),
    st.integers(1970, 2400),
    st.integers(0, 24),
    st.integers(0, 59),
    st.integers(0, 60),
    st.sampled_from(["+0000", "-0700", "+0530", "+1400"]),
)
_NUMBER = st.one_of(st.just("-"), st.integers(0, 9999).map(str))
_LINE = st.builds(
    '{} {} {} {} "{}" {} {} "{}" "{}"'.format, _BARE, _BARE, _BARE, _TIME, _REQUEST, _NUMBER, _NUMBER, _QUOTED, _QUOTED
)
_PIECES = st.lists(
    st.sampled_from(
        [
            '"',
            " ",
            "[",
            "]",
            "\\",
            "-",
            "h",
            '" "',
            "] ",
            "\n",
            "\r",
            "\x01",
            "\x02",
            "\ufeff",
            "\x00",
            "é",
            "200",
            "[10/Oct/2000:13:55:36 -0700]",
            LINE.decode(),
        ]
    ),
    max_size=14,
).map("".join)


@st.composite
def _mangled(draw: st.DrawFn) -> str:
    line = draw(_LINE)
    at, until = sorted((draw(st.integers(0, len(line))), draw(st.integers(0, len(line)))))
    return line[:at] + draw(_PIECES) + line[draw(st.sampled_from([at, until])) :]


_ANY_LINE = st.one_of(_LINE, _mangled(), _PIECES)


@given(st.lists(_LINE, max_size=5))
@settings(max_examples=80, deadline=None)
def test_combined_as_a_regular_expression_reads_it(lines: list[str]) -> None:
    rows, rejects = decode(apache_decoder("combined"), *(line.encode() for line in lines))
    wanted = {number: reference(line) for number, line in enumerate(lines)}
    assert {found.pop("_row"): found for found in rows} == {
        n: found for n, found in wanted.items() if found is not None
    }
    assert [number for number, _ in rejects] == [number for number, found in wanted.items() if found is None]


@pytest.mark.parametrize(
    "form",
    ["combined", "vhost_combined", "common", '%v:%p %h "%m %U%q %H" %>s', "%h %u %t %>s", '%h "%t" %q|%s "%{a}i;"'],
)
@given(lines=st.lists(_ANY_LINE, max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_fast_way_reads_what_the_exact_way_reads(form: str, lines: list[str]) -> None:
    values = pa.array([line.encode() for line in lines], pa.binary())
    fast, exact = apache_decoder(form).decode(values), exact_only(form).decode(values)
    assert fast.rows.to_pylist() == exact.rows.to_pylist()
    assert fast.rejects.to_pylist() == exact.rejects.to_pylist()


def test_regular_formats_are_read_the_fast_way() -> None:
    for form in ("combined", "vhost_combined", "common"):
        decoder = apache_decoder(form)
        assert isinstance(decoder, apache.AccessLogDecoder)
        assert len(decoder._readers) == 2
