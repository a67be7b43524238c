"""Access logs as a busy web server writes them, from a seed: the same seed gives the same lines on every machine.

People walk from page to page and load what the pages need; crawlers take pages without a referer; now and then a
scanner asks for hundreds of paths that are not there (a 404 storm); some clients talk TLS to a plain port, or say
nothing at all. A small share of the lines is malformed, in several ways, and it is known which.

    logs = AccessLogs(seed=7, start=datetime(2026, 11, 24, tzinfo=UTC))
    lines = logs.lines(1_000_000)           # combined format, about 189 bytes each
    logs.malformed                          # {1804: "truncated", ...}

``form="json"`` makes the same requests as JSON records of 11 fields.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address
from itertools import accumulate
from random import Random
from typing import Literal, TypeAlias, TypeVar

Form: TypeAlias = Literal["combined", "json"]

_T = TypeVar("_T")

JSON_COLUMNS = {
    "host": "string",
    "ident": "string",
    "authuser": "string",
    "datetime": "timestamp",
    "method": "string",
    "path": "string",
    "protocol": "string",
    "response": "int16",
    "bytes": "int64",
    "referer": "string",
    "agent": "string",
}
"""The columns of ``form="json"``, in order."""

_BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36",
    'Mozilla/5.0 (Android 14; Mobile; "Tablet \\ Phone") Gecko/133.0 Firefox/133.0',
)
_CRAWLERS = (
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
    "Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)",
    "CCBot/2.0 (https://commoncrawl.org/faq/)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
)
_PROGRAMS = ("curl/8.11.0", "python-requests/2.32.3", "Go-http-client/1.1", "okhttp/4.12.0", None)
_SCANNERS = ("Mozilla/5.0 zgrab/0.x", "Mozilla/5.0 (compatible; Nmap Scripting Engine)", "masscan/1.3", None)
_PROBES = (
    "/wp-login.php", "/.env", "/.git/config", "/phpmyadmin/index.php", "/xmlrpc.php", "/admin/config.php",
    "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php", "/cgi-bin/luci/;stok=/locale", "/boaform/admin/formLogin",
    "/solr/admin/info/system?wt=json", "/actuator/health", "/?q=%27%20OR%201%3D1--", "/a path with spaces/index.php",
)  # fmt: skip
_ASSETS = (
    "/static/site.css?v=41",
    "/static/app.js?v=41",
    "/static/logo.svg",
    "/favicon.ico",
    "/static/fonts/inter.woff2",
)
_TOPICS = ("guides", "blog", "shop/products", "docs/reference", "news", "support/questions", "events", "about/team")
_WORDS = (
    "river",
    "lamp",
    "orchard",
    "ticket",
    "garden",
    "harbour",
    "copper",
    "meadow",
    "winter",
    "signal",
    "paper",
    "stone",
)
_SITE = "https://example.com"
_ELSEWHERE = ("https://www.google.com/", "https://duckduckgo.com/", "https://news.ycombinator.com/", None, None, None)
_PEOPLE = ("alice", "bjorn", "carmen", "dmitri")
_NETWORKS = ("dsl.example.net", "mobile.example.org", "pool.isp.example", "crawl.search.example")

_CONCURRENT_SESSIONS = 160
_STORM_SESSIONS = 70
_STORM_REPEATS = 3
_LINES_BETWEEN_STORMS = 20_000


@dataclass(frozen=True, slots=True)
class _Request:
    """``line`` is what the log shows; method, path and protocol are ``None`` unless it is a whole HTTP request."""

    line: str
    response: int
    nbytes: int | None
    referer: str | None
    method: str | None = None
    path: str | None = None
    protocol: str | None = None


@dataclass(frozen=True, slots=True)
class _Writer:
    """How a form writes a line: ``opening + time + request + closing``, joined without anything between."""

    opening: Callable[[str, str | None], bytes]
    time: Callable[[datetime], bytes]
    request: Callable[[_Request], bytes]
    closing: Callable[[str | None], bytes]
    spoil: dict[str, Callable[[bytes, Random], bytes]]


_Walk: TypeAlias = tuple[bytes, ...]
_Session: TypeAlias = tuple[bytes, bytes, Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class _Crowd:
    """Clients of one kind (the opening and the closing of their lines) and what they do."""

    clients: Sequence[tuple[bytes, bytes]]
    walks: Sequence[_Walk]


class AccessLogs:
    """An endless log; every call goes on where the last one ended.

    start:            time of the first line; its offset is the server's
    form:             ``combined`` or ``json``
    lines_a_second:   in the log's own time, averaged over the day: half as many at night, half more in the afternoon
    malformed_share:  of the lines, from 0 to 1
    """

    def __init__(
        self,
        seed: int,
        start: datetime,
        *,
        form: Form = "combined",
        lines_a_second: float = 200.0,
        malformed_share: float = 0.001,
    ) -> None:
        if lines_a_second <= 0.0 or not 0.0 <= malformed_share <= 1.0:
            raise ValueError("lines_a_second must be above 0, malformed_share from 0 to 1")
        if start.tzinfo is None:
            raise ValueError("start needs a time zone: a log line always names its offset")
        self.malformed: dict[int, str] = {}
        """Number of each malformed line made so far, counted from 0, and what is wrong with it."""
        self.made = 0
        self._random = Random(seed)  # noqa: S311 - repeatable is what it is for
        self._mischief = Random(seed + 1)  # noqa: S311 - apart, so that lines(a) + lines(b) equals lines(a + b)
        self._writer = _WRITERS[form]
        self._lines_a_second = lines_a_second
        self._malformed_share = malformed_share
        self._kinds = tuple(self._writer.spoil)
        self._clock = start.replace(microsecond=0)
        self._time = b""
        self._left_in_second = 0
        self._owed = 0.0
        self._usual, self._scanners = _crowds(self._random, self._writer)
        self._sessions = [self._session(self._some(self._usual)) for _ in range(_CONCURRENT_SESSIONS)]
        self._next_malformed = self._malformed_gap()

    def lines(self, count: int) -> list[bytes]:
        """The next ``count`` lines, without line ends."""
        made: list[bytes] = []
        while len(made) < count:
            if self._left_in_second == 0:
                self._tick()
            now = min(self._left_in_second, count - len(made))
            self._write(now, made)
            self._left_in_second -= now
        while self._next_malformed < self.made + count:
            self._spoil(made, self._next_malformed)
            self._next_malformed += 1 + self._malformed_gap()
        self.made += count
        return made

    def _write(self, count: int, made: list[bytes]) -> None:
        random, time, sessions = self._random.random, self._time, self._sessions
        size = len(sessions)
        for _ in range(count):
            place = int(random() * size)
            opening, closing, steps = sessions[place]
            request = next(steps, None)
            if request is None:
                opening, closing, steps = sessions[place] = self._session(self._some(self._usual))
                request = next(steps)
            made.append(opening + time + request + closing)

    def _tick(self) -> None:
        """Go on to the next second that has lines."""
        while self._left_in_second == 0:
            hour = self._clock.hour + self._clock.minute / 60
            day_curve = 1.0 + 0.5 * math.sin((hour - 9.0) * math.pi / 12.0)
            self._owed += self._lines_a_second * day_curve * (0.8 + 0.4 * self._random.random())
            self._left_in_second = int(self._owed)
            self._owed -= self._left_in_second
            self._time = self._writer.time(self._clock)
            self._clock += timedelta(seconds=1)
            if self._random.random() * _LINES_BETWEEN_STORMS < self._left_in_second:
                self._storm()

    def _storm(self) -> None:
        """One scanner takes many of the open sessions at once."""
        opening, closing = self._some(self._scanners.clients)
        for place in range(_STORM_SESSIONS):
            walk = self._some(self._scanners.walks) * _STORM_REPEATS
            self._sessions[place] = (opening, closing, iter(walk))

    def _session(self, crowd: _Crowd) -> _Session:
        opening, closing = self._some(crowd.clients)
        return opening, closing, iter(self._some(crowd.walks))

    def _some(self, pool: Sequence[_T]) -> _T:
        return pool[int(self._random.random() * len(pool))]

    def _malformed_gap(self) -> int:
        """How many well-formed lines come before the next malformed one (geometric)."""
        if self._malformed_share <= 0.0:
            return 1 << 62
        if self._malformed_share >= 1.0:
            return 0
        return int(math.log(1.0 - self._mischief.random()) / math.log(1.0 - self._malformed_share))

    def _spoil(self, made: list[bytes], number: int) -> None:
        kind = self._mischief.choice(self._kinds)
        made[number - self.made] = self._writer.spoil[kind](made[number - self.made], self._mischief)
        self.malformed[number] = kind


# How a form writes its lines


def _escaped(text: str | None) -> bytes:
    """As Apache writes a quoted field: bytes that are not printable ASCII as ``\\xHH``, quote and backslash escaped."""
    if text is None:
        return b"-"
    parts = []
    for byte in text.encode("latin-1"):
        if byte in b'"\\':
            parts.append(b"\\" + bytes([byte]))
        elif 32 <= byte < 127:
            parts.append(bytes([byte]))
        else:
            parts.append(b"\\x%02x" % byte)
    return b"".join(parts)


def _combined_request(request: _Request) -> bytes:
    size = "-" if request.nbytes is None else str(request.nbytes)
    return b'] "%b" %d %b "%b" ' % (
        _escaped(request.line),
        request.response,
        size.encode(),
        _escaped(request.referer),
    )


def _json(value: str | int | None) -> bytes:
    return json.dumps(value).encode()


def _json_request(request: _Request) -> bytes:
    fields = {
        "method": request.method,
        "path": request.path,
        "protocol": request.protocol,
        "response": request.response,
        "bytes": request.nbytes,
        "referer": request.referer,
    }
    return b'",' + b",".join(b'"%b":%b' % (name.encode(), _json(value)) for name, value in fields.items())


def _with_day(line: bytes, before: bytes, day: bytes) -> bytes:
    start = line.index(before) + len(before)
    return line[:start] + day + line[start + len(day) :]


def _garbage(line: bytes, random: Random) -> bytes:
    return random.choice((random.randbytes(48).replace(b"\n", b"\r"), b"[core:notice] AH00094: Command line: 'httpd'"))


_WRITERS: dict[Form, _Writer] = {
    "combined": _Writer(
        opening=lambda host, user: b"%b - %b [" % (host.encode(), b"-" if user is None else user.encode()),
        time=lambda moment: moment.strftime("%d/%b/%Y:%H:%M:%S %z").encode(),
        request=_combined_request,
        closing=lambda agent: b'"%b"' % _escaped(agent),
        spoil={
            "truncated": lambda line, random: line[: random.randrange(12, line.index(b'" "'))],
            "field missing": lambda line, _: line.partition(b" ")[2],
            "field left over": lambda line, _: line + b' "0.004"',
            "impossible date": lambda line, _: _with_day(line, b" [", b"31/Feb"),
            "garbage": _garbage,
        },
    ),
    "json": _Writer(
        opening=lambda host, user: b'{"host":%b,"ident":null,"authuser":%b,"datetime":"' % (_json(host), _json(user)),
        time=lambda moment: moment.isoformat().encode(),
        request=_json_request,
        closing=lambda agent: b',"agent":%b}' % _json(agent),
        spoil={
            "truncated": lambda line, random: line[: random.randrange(12, line.index(b'"agent"'))],
            "wrong type": lambda line, _: line.replace(b'"response":', b'"response":"ok","was":', 1),
            "not an object": lambda line, _: b"[%b]" % line,
            "impossible date": lambda line, _: _with_day(line, b'"datetime":"', b"2026-02-31"),
            "garbage": _garbage,
        },
    ),
}


# Who asks for what


def _crowds(random: Random, writer: _Writer) -> tuple[tuple[_Crowd, ...], _Crowd]:
    """The usual clients, each kind as often as it is to be met, and the scanners."""
    pages = _pages(random)
    popularity = list(accumulate(1.0 / rank**1.05 for rank in range(1, len(pages) + 1)))

    def popular(count: int) -> list[str]:
        return random.choices(pages, cum_weights=popularity, k=count)

    def crowd(agents: Sequence[str | None], clients: int, walks: Sequence[Sequence[_Request]]) -> _Crowd:
        lines = {request: writer.request(request) for walk in walks for request in walk}
        return _Crowd(
            clients=[_client(random, writer, random.choice(agents)) for _ in range(clients)],
            walks=[tuple(lines[request] for request in walk) for walk in walks],
        )

    people = crowd(_BROWSERS, 3000, [_visit(random, popular(random.randint(1, 9))) for _ in range(1500)])
    crawlers = crowd(_CRAWLERS, 60, [_crawl(random, popular(random.randint(4, 30))) for _ in range(200)])
    programs = crowd(_PROGRAMS, 200, [_calls(random) for _ in range(60)])
    strangers = crowd((None,), 100, [[request] for request in _ODD])
    scanners = crowd(_SCANNERS, 20, [_probes(random) for _ in range(20)])
    return (people,) * 11 + (crawlers,) * 4 + (programs,) * 4 + (strangers,), scanners


def _client(random: Random, writer: _Writer, agent: str | None) -> tuple[bytes, bytes]:
    user = random.choice(_PEOPLE) if random.random() < 0.02 else None
    return writer.opening(_host(random), user), writer.closing(agent)


def _host(random: Random) -> str:
    roll = random.random()
    if roll < 0.12:
        return str(IPv6Address(0x2001_0DB8 << 96 | random.getrandbits(64)))
    if roll < 0.2:
        return f"{random.choice(_WORDS)}-{random.randint(1, 250)}.{random.choice(_NETWORKS)}"
    return ".".join(str(random.randint(1, 254)) for _ in range(4))


def _pages(random: Random) -> list[str]:
    """Most popular first."""
    pages = ["/", "/search?q=lamp&page=2", "/login"]
    while len(pages) < 400:
        words = "-".join(random.sample(_WORDS, random.randint(1, 2)))
        query = f"?ref={random.randint(100, 999)}" if random.random() < 0.15 else ""
        pages.append(f"/{random.choice(_TOPICS)}/{words}/{len(pages)}{query}")
    return pages


def _http(method: str, path: str, response: int, nbytes: int | None, referer: str | None) -> _Request:
    protocol = "HTTP/2.0" if len(path) % 4 == 0 else "HTTP/1.1"
    return _Request(f"{method} {path} {protocol}", response, nbytes, referer, method, path, protocol)


def _visit(random: Random, pages: Sequence[str]) -> list[_Request]:
    """From page to page, with what the pages need; later on that is in the browser's cache. Some hide referers."""
    named = random.random() < 0.7
    walk: list[_Request] = []
    referer = random.choice(_ELSEWHERE) if named else None
    for page in pages:
        walk.append(_page(random, page, referer))
        referer = _SITE + page if named else None
        for asset in random.sample(_ASSETS, random.randint(1, 3)):
            cached = len(walk) > 4 and random.random() < 0.6
            walk.append(_http("GET", asset, 304 if cached else 200, None if cached else 900 + 97 * len(asset), referer))
    if random.random() < 0.1:
        walk.append(_http("POST", "/login", random.choice((302, 302, 401, 500)), 512, referer))
    return walk


def _page(random: Random, page: str, referer: str | None) -> _Request:
    response = random.choices((200, 301, 404, 500, 503), weights=(940, 25, 25, 7, 3))[0]
    return _http("GET", page, response, random.randint(2_000, 90_000) if response == 200 else 312, referer)


def _crawl(random: Random, pages: Sequence[str]) -> list[_Request]:
    return [_http("GET", "/robots.txt", 200, 411, None), *(_page(random, page, None) for page in pages)]


def _calls(random: Random) -> list[_Request]:
    item = f"/api/v2/items/{random.randint(1, 99_999)}"
    calls = (("GET", 200, 1_204), ("PUT", 204, None), ("DELETE", 403, 88), ("HEAD", 200, 0), ("OPTIONS", 204, None))
    return [_http(method, item, response, nbytes, None) for method, response, nbytes in random.sample(calls, 3)]


def _probes(random: Random) -> list[_Request]:
    return [_http("GET", path, 404, 196, None) for path in random.sample(_PROBES, len(_PROBES))]


_ODD = (
    _Request("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, 226, None),
    _Request("\x05\x01\x00", 400, 226, None),
    _Request("-", 408, None, None),
    _Request("", 400, 0, None),
    _Request("quit", 400, 226, None),
)
